'use strict'
// The classifier of ulmfit_nb for one text at a time: embedding, LSTM layers, [last | max | mean] of what they say, head

const sigmoid = x => 1 / (1 + Math.exp(-x))

// Rows of 8 bits, each with its step
class Rows {
  constructor({steps, size}, cols) { Object.assign(this, {steps, size, cols}) }
  row(i) { return Float32Array.from(this.steps.subarray(i * this.cols, (i + 1) * this.cols), o => o * this.size[i]) }
  all() {
    const res = new Float32Array(this.steps.length)
    for (let i = 0; i < this.size.length; i++) res.set(this.row(i), i * this.cols)
    return res
  }
}

// out[t, j] += w[j] · x[t] for n rows of x; four rows of w at a time
function multiply(w, x, n, out) {
  const rows = out.length / n, cols = x.length / n
  for (let j = 0; j < rows; j += 4) {
    const p = j * cols, q = p + cols, r = q + cols, s = r + cols
    for (let t = 0; t < n; t++) {
      const at = t * cols
      let a = 0, b = 0, c = 0, d = 0
      for (let k = 0; k < cols; k++) {
        const v = x[at + k]
        a += w[p + k] * v
        b += w[q + k] * v
        c += w[r + k] * v
        d += w[s + k] * v
      }
      const o = t * rows + j
      out[o] += a
      out[o + 1] += b
      out[o + 2] += c
      out[o + 3] += d
    }
  }
}

// out[t, k] += Σ w[j, k] z[t, j]: the same way back
function multiplyBack(w, z, n, out) {
  const rows = z.length / n, cols = out.length / n
  for (let j = 0; j < rows; j += 4) {
    const p = j * cols, q = p + cols, r = q + cols, s = r + cols
    for (let t = 0; t < n; t++) {
      const o = t * rows + j, at = t * cols, a = z[o], b = z[o + 1], c = z[o + 2], d = z[o + 3]
      for (let k = 0; k < cols; k++) out[at + k] += w[p + k] * a + w[q + k] * b + w[r + k] * c + w[s + k] * d
    }
  }
}

class LSTM {
  constructor({input, hidden, bias, size, wide}) {
    Object.assign(this, {bias, size, wide, wx: new Rows(input, wide).all(), wh: new Rows(hidden, size).all()})
  }

  start() { return {h: new Float64Array(this.size), c: new Float64Array(this.size)} }

  // What the layer says of n tokens x (n × wide) after `state`, which goes on. `kept` gets what the way back needs
  read(x, n, state, kept) {
    const H = this.size, out = new Float64Array(n * H), all = new Float64Array(n * 4 * H)
    for (let t = 0; t < n; t++) all.set(this.bias, t * 4 * H)
    multiply(this.wx, x, n, all)
    for (let t = 0; t < n; t++) {
      const z = all.subarray(t * 4 * H, (t + 1) * 4 * H), before = state.c
      multiply(this.wh, state.h, 1, z)
      const h = out.subarray(t * H, (t + 1) * H), c = new Float64Array(H)
      for (let k = 0; k < H; k++) {
        const i = z[k] = sigmoid(z[k]), f = z[H + k] = sigmoid(z[H + k]), g = z[2 * H + k] = Math.tanh(z[2 * H + k])
        const o = z[3 * H + k] = sigmoid(z[3 * H + k])
        c[k] = f * before[k] + i * g
        h[k] = o * Math.tanh(c[k])
      }
      if (kept) kept.push({z, c, before})
      state.h = h
      state.c = c
    }
    return out
  }

  // The gradient for the inputs of tokens a to b, from that for the outputs; `state` comes from the tokens after b
  back(grad, a, b, kept, state) {
    const H = this.size, n = b - a, all = new Float64Array(n * 4 * H), res = new Float64Array(n * this.wide)
    for (let t = n - 1; t >= 0; t--) {
      const {z, c, before} = kept[a + t], dz = all.subarray(t * 4 * H, (t + 1) * 4 * H), dc = new Float64Array(H)
      for (let k = 0; k < H; k++) {
        const i = z[k], f = z[H + k], g = z[2 * H + k], o = z[3 * H + k], tanh = Math.tanh(c[k])
        const dh = grad[(a + t) * H + k] + state.h[k], d = state.c[k] + dh * o * (1 - tanh * tanh)
        dz[k] = d * g * i * (1 - i)
        dz[H + k] = d * before[k] * f * (1 - f)
        dz[2 * H + k] = d * i * (1 - g * g)
        dz[3 * H + k] = dh * tanh * o * (1 - o)
        dc[k] = d * f
      }
      state.c = dc
      state.h = new Float64Array(H)
      multiplyBack(this.wh, dz, 1, state.h)
    }
    multiplyBack(this.wx, all, n, res)
    return res
  }
}

class Vocabulary {
  constructor(vocab) {
    this.vocab = vocab
    this.ids = new Map(vocab.map((o, i) => [o, i]).reverse().filter(o => o[0] !== 'xxfake'))
  }

  // Numbers of tokens, in the order of the text
  numbers(toks) {
    const unknown = this.ids.get('xxunk') ?? 0
    return toks.map(t => this.ids.get(t) ?? this.ids.get(t.replaceAll(' ', '▁')) ?? unknown)
  }
}

class Classifier extends Vocabulary {
  constructor({vocab, backwards, bptt, maxLen, wide, embedding, layers, head}) {
    super(vocab)
    Object.assign(this, {backwards, bptt, maxLen, head, wide})
    this.embedding = new Rows(embedding, wide)
    this.layers = layers.map(o => new LSTM(o))
  }

  // Embeddings of `ids`, times `level` but for that of the number `loud`
  embed(ids, level = 1, loud = null) {
    const res = new Float64Array(ids.length * this.wide)
    ids.forEach((o, t) => {
      const row = this.embedding.row(o), much = o === loud ? 1 : level
      for (let k = 0; k < this.wide; k++) res[t * this.wide + k] = row[k] * much
    })
    return res
  }

  // A list in the order of reading
  inOrder(list) { return this.backwards ? list.slice().reverse() : list }

  // Scores of each label for embeddings x; `breathe` is awaited between slices
  async scores(x, breathe, kept) {
    const n = x.length / this.wide, H = this.layers.at(-1).size, states = this.layers.map(o => o.start())
    const skip = this.maxLen === null || n <= this.maxLen ? 0 : Math.ceil((n - this.maxLen) / this.bptt) * this.bptt
    const pooled = new Float64Array(3 * H).fill(-Infinity, H, 2 * H), most = new Int32Array(H)
    let out
    for (let a = 0; a < n; a += slice) {
      const b = Math.min(n, a + slice)
      out = x.subarray(a * this.wide, b * this.wide)
      this.layers.forEach((o, i) => { out = o.read(out, b - a, states[i], kept?.layers[i]) })
      for (let t = Math.max(a, skip); t < b; t++)
        for (let k = 0; k < H; k++) {
          const v = out[(t - a) * H + k]
          if (v > pooled[H + k]) {
            pooled[H + k] = v
            most[k] = t
          }
          pooled[2 * H + k] += v / (n - skip)
        }
      await breathe()
    }
    pooled.set(out.subarray(out.length - H))
    const inside = [pooled]
    for (const o of this.head) inside.push(linear(o, inside.at(-1)))
    if (kept) Object.assign(kept, {n, skip, most, inside})
    return inside.at(-1)
  }

  // The gradient for the embeddings, from that for the scores
  async back(grad, kept, breathe) {
    const {n, skip, most, inside} = kept, H = this.layers.at(-1).size
    for (let i = this.head.length - 1; i >= 0; i--) grad = linearBack(this.head[i], inside[i + 1], grad)
    let d = new Float64Array(n * H)
    for (let k = 0; k < H; k++) {
      for (let t = skip; t < n; t++) d[t * H + k] += grad[2 * H + k] / (n - skip)
      d[(n - 1) * H + k] += grad[k]
      d[most[k] * H + k] += grad[H + k]
    }
    for (let i = this.layers.length - 1; i >= 0; i--) {
      const layer = this.layers[i], state = layer.start(), res = new Float64Array(n * layer.wide)
      for (let b = n; b > 0; b -= slice) {
        const a = Math.max(0, b - slice)
        res.set(layer.back(d, a, b, kept.layers[i], state), a * layer.wide)
        await breathe()
      }
      d = res
    }
    return d
  }
}

const slice = 16 // tokens that are read without a pause

function linear({weight, bias, relu}, x) {
  return Float64Array.from(bias, (b, j) => {
    for (let k = 0; k < x.length; k++) b += weight[j * x.length + k] * x[k]
    return relu ? Math.max(0, b) : b
  })
}

function linearBack({weight, bias, relu}, out, grad) {
  const n = weight.length / bias.length, res = new Float64Array(n)
  for (let j = 0; j < bias.length; j++)
    if (!relu || out[j] > 0) for (let k = 0; k < n; k++) res[k] += weight[j * n + k] * grad[j]
  return res
}

function softmax(scores) {
  const most = Math.max(...scores), e = Array.from(scores, o => Math.exp(o - most)), sum = e.reduce((a, b) => a + b)
  return e.map(o => o / sum)
}

// Probabilities of each label: the members' average at the ensemble's temperature
async function probabilities(members, temperature, toks, breathe) {
  const each = []
  for (const o of members) {
    const ids = o.inOrder(o.numbers(toks).filter(id => id !== 1)) // without padding
    each.push(softmax(await o.scores(o.embed(ids), breathe)))
  }
  const p = each[0].map((_, i) => each.reduce((sum, o) => sum + o[i], 0) / each.length)
  return temperature === 1 ? p : softmax(p.map(o => Math.log(Math.max(o, 1e-30)) / temperature))
}

// The share of each token in the log-odds of label `idx`: integrated gradients, as ulmfit_nb.interpret.attribute has
// them. `levels` are pairs of a level and its weight
async function shares(members, levels, toks, idx, breathe) {
  const res = new Float64Array(toks.length)
  for (const o of members) {
    const ids = o.inOrder(o.numbers(toks)), bos = o.ids.get('xxbos'), whole = o.embed(ids)
    const mine = new Float64Array(ids.length)
    for (const [level, weight] of levels) {
      const kept = {layers: o.layers.map(() => [])}, scores = await o.scores(o.embed(ids, level, bos), breathe, kept)
      const others = softmax(scores.map((s, i) => i === idx ? -Infinity : s))
      const grad = await o.back(others.map((p, i) => i === idx ? 1 : -p), kept, breathe)
      ids.forEach((id, t) => {
        for (let k = t * o.wide; k < (t + 1) * o.wide && id !== bos; k++)
          mine[t] += weight * whole[k] * grad[k] / members.length
      })
    }
    o.inOrder(mine).forEach((v, i) => { res[i] += v })
  }
  return res
}

// What each mark says of the tokens after it: how many there are
const marks = {xxrep: 2, xxwrep: 2, xxup: 1, xxmaj: 1}

// Words as they were written, each with the place of its first token and how many there are
function wordGroups(toks) {
  const res = []
  for (let i = 0, n; i < toks.length; i += n) {
    for (n = 1; i + n <= toks.length && toks[i + n - 1] in marks;) n += marks[toks[i + n - 1]]
    const own = toks.slice(i, i + n)
    if (own.join() !== 'xxbos') res.push({word: written(own).join(' '), at: i, n: own.length})
  }
  return res
}

// Words, each with the share of its tokens: a list of [word, share]
function writtenWords(toks, shares) {
  return wordGroups(toks).map(({word, at, n}) => [word, shares.slice(at, at + n).reduce((a, b) => a + b, 0)])
}

function written(toks) {
  const capital = t => t.replace(/^./u, c => c.toUpperCase())
  const undo = {xxmaj: (n, o) => o.map(capital), xxup: (n, o) => o.map(t => t.toUpperCase()),
    xxrep: (n, o) => o.map(t => t.repeat(n)), xxwrep: (n, o) => Array(n).fill(o).flat()}
  let res = [], open = [], counted = false
  for (const t of toks) {
    if (t in undo) {
      open.push([t, 1])
      counted = t.endsWith('rep')
    } else if (counted && /^\p{Nd}+$/u.test(t)) {
      open.at(-1)[1] = Number(t)
      counted = false
    } else {
      res.push(...open.reduceRight((o, [mark, n]) => undo[mark](n, o), [t]))
      open = []
      counted = false
    }
  }
  return res
}
