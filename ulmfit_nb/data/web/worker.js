'use strict'
// Reads texts beside the page, which stays alive. In: {packed}, then {id, text, want}; out: {id, ...} for each part of
// the answer. A newer text ends the work on an older one

let model = null, newest = 0
const patience = 8000 // milliseconds: words are weighed unasked if it takes no longer
const most = 2000 // tokens of a text whose words are weighed: the way back needs 50 KB of memory for each

// Packed bytes stand in signs, two in each: first their number, then what was deflated. A sign that HTML doesn't keep
// stands behind U+E000, with another first bit
async function unpack(packed) {
  const pairs = new Uint16Array(packed.length)
  let n = 0
  for (let i = 0; i < packed.length; i++) {
    const c = packed.charCodeAt(i)
    pairs[n++] = c === 0xe000 ? packed.charCodeAt(++i) ^ 0x8000 : c
  }
  const deflated = new Uint8Array(pairs.buffer, 4, pairs[0] + pairs[1] * 0x10000)
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream('deflate'))
  const bytes = await new Response(stream).arrayBuffer(), start = new DataView(bytes).getUint32(0, true)
  const kinds = {int8: Int8Array, float32: Float32Array}
  return JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, start)),
    (k, o) => o?.type in kinds ? new kinds[o.type](bytes, o.at, o.n) : o)
}

function build({rules, tokenizer, members, vocabs, bag, ...rest}) {
  const signs = {...rules, ...whiteSigns(rules.white)}
  model = {...rest, rules: makeRules(signs), tokenizer: new WordTokenizer(tokenizer, signs.isWhite),
    bag: bag && new BagOfWords(bag, signs),
    members: members.map(o => new Classifier({...o, vocab: vocabs[o.vocab]}))}
  model.words = model.members[0] ?? new Vocabulary(vocabs[0]) // without a classifier there are only tokens to show
}

class Late extends Error {}

async function answer({id, text, want}) {
  const say = part => postMessage({id, ...part}), begin = performance.now()
  let last = begin, done = 0
  const {members, levels, temperature} = model
  const rules = afterRules(model.rules, text), toks = model.tokenizer.tokens(rules.at(-1)[1])
  const slices = Math.ceil(toks.length / slice) * members.length
  const pause = n => async () => {
    done++
    if (performance.now() - last < 40) return
    say({progress: Math.min(1, done / n)})
    await new Promise(go => setTimeout(go))
    last = performance.now()
    if (id < newest) throw new Late()
  }
  say({rules, tokens: toks, ids: model.words.numbers(toks)})
  if (want === 'tokens' || !members.length) return say({done: true})
  const start = performance.now(), networks = await probabilities(members, temperature, toks, pause(slices))
  const p = model.bag ? model.bag.mixed(networks, text) : networks
  const ms = performance.now() - begin, estimate = levels.length * 2 * (performance.now() - start) // there and back
  say({probabilities: p, networks, ms})
  if (want === 'answer') return say({done: true})
  if (toks.length > most) return say({long: most, done: true})
  if (want === 'if quick' && estimate > patience) return say({slow: estimate, done: true})
  done = 0
  const idx = p.indexOf(Math.max(...p)), layers = members[0].layers.length
  let each = await shares(members, levels, toks, idx, pause(slices * levels.length * (1 + layers)))
  if (model.bag) each = model.bag.added(each, toks, idx, temperature)
  say({words: writtenWords(toks, each), shares: [...each], label: idx, done: true})
}

onmessage = async ({data}) => {
  try {
    if (data.packed) {
      build(await unpack(data.packed))
      return postMessage({ready: true})
    }
    newest = data.id
    await answer(data)
  } catch (e) {
    const late = e instanceof Late
    postMessage({id: data.id, done: true, late, error: late ? null : String(e)})
  }
}
