'use strict'
// The bag of words of ulmfit_nb.bag_of_words: TF-IDF of words and pairs, and of runs of signs, as scikit-learn counts them

class BagOfWords {
  constructor({views, weights, bias, trust}, {word, white}) {
    this.views = views.map(o => ({...o, places: new Map(o.entries.map((e, i) => [e, i]))}))
    Object.assign(this, {weights, bias, trust, n: views.reduce((sum, o) => sum + o.entries.length, 0)})
    this.tokens = new RegExp(`[${word}]+|[^${word}${white}]+`, 'gu')
    this.words = new RegExp(`[^${white}]+`, 'gu')
  }

  // What is counted in a text: words and pairs of them, or runs of 1 to 5 signs of a word with a space at both ends
  counted(kind, text) {
    if (kind === 'word') {
      const toks = text.match(this.tokens) ?? []
      return [...toks, ...toks.slice(1).map((t, i) => `${toks[i]} ${t}`)]
    }
    const res = []
    for (const w of text.match(this.words) ?? []) {
      const signs = [' ', ...w, ' ']
      for (let n = 1; n <= Math.min(5, signs.length); n++)
        for (let i = 0; i + n <= signs.length; i++) res.push(signs.slice(i, i + n).join(''))
    }
    return res
  }

  logProbabilities(text) {
    const scores = Array.from(this.bias)
    let first = 0
    for (const {kind, places, idf} of this.views) {
      const counts = new Map()
      for (const o of this.counted(kind, text.toLowerCase())) {
        const i = places.get(o)
        if (i !== undefined) counts.set(i, (counts.get(i) ?? 0) + 1)
      }
      const values = [...counts].map(([i, n]) => [i, (1 + Math.log(n)) * idf[i]])
      const length = norm(values)
      for (const [i, v] of values)
        for (let k = 0; k < scores.length; k++) scores[k] += this.weights[k * this.n + first + i] * v / length
      first += idf.length
    }
    return softmax(scores).map(o => Math.log(Math.max(o, 1e-300)))
  }

  // The entries of words joined by spaces, each with the numbers of the words where it stands
  placed(kind, words) {
    if (kind !== 'word') return words.flatMap((w, i) => this.counted(kind, w.toLowerCase()).map(o => [o, [i]]))
    const toks = words.flatMap((w, i) => (w.toLowerCase().match(this.tokens) ?? []).map(t => [t, [i]]))
    return [...toks, ...toks.slice(1).map(([t, [j]], i) => [`${toks[i][0]} ${t}`, [toks[i][1][0], j]])]
  }

  // The weight of entry `i` for label `idx`, beside the mean of the others
  weight(idx, i) {
    const all = Array.from(this.bias, (_, k) => this.weights[k * this.n + i])
    return all[idx] - (all.reduce((a, b) => a + b) - all[idx]) / (all.length - 1)
  }

  // What each word spoke for label `idx`, as BagOfWords.word_shares has it
  wordShares(words, idx) {
    const res = new Float64Array(words.length)
    let first = 0
    for (const {kind, places, idf} of this.views) {
      const where = new Map()
      for (const [entry, at] of this.placed(kind, words)) {
        const i = places.get(entry)
        if (i !== undefined) where.has(i) ? where.get(i).push(at) : where.set(i, [at])
      }
      const values = [...where].map(([i, all]) => [i, (1 + Math.log(all.length)) * idf[i], all]), length = norm(values)
      for (const [i, v, all] of values) {
        const share = this.weight(idx, first + i) * v / length / all.length
        for (const at of all) for (const j of at) res[j] += share / at.length
      }
      first += idf.length
    }
    return res
  }

  // The networks' shares of the tokens and the bag's together
  added(shares, toks, idx, temperature) {
    const [networks, bag] = this.trust, groups = wordGroups(toks), res = shares.map(o => networks / temperature * o)
    const own = this.wordShares(groups.map(o => o.word), idx)
    groups.forEach(({at, n}, i) => { for (let t = at; t < at + n; t++) res[t] += bag * own[i] / n })
    return res
  }

  // The networks' probabilities `p` and the bag's, each as far as it is trusted
  mixed(p, text) {
    const own = this.logProbabilities(text), [networks, bag] = this.trust
    return softmax(p.map((o, i) => networks * Math.log(Math.max(o, 1e-12)) + bag * own[i]))
  }
}

// The length of a vector whose numbers are second in `values`
function norm(values) { return Math.sqrt(values.reduce((sum, o) => sum + o[1] * o[1], 0)) || 1 }
