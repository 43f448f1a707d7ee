'use strict'
// spaCy's tokenizer for English, with its tables from Python; the same steps as in ulmfit_nb.cutting: special cases, what
// is cut off the front and the back of a word, where its middle is cut, and a last look for special cases cut apart

class WordTokenizer {
  constructor(tables, isWhite) {
    this.isWhite = isWhite
    this.special = new Map(Object.entries(tables.special))
    this.longest = Math.max(...[...this.special.keys()].map(o => o.length))
    this.front = atOneEnd(tables.prefix, true)
    this.back = atOneEnd(tables.suffix, false)
    this.infix = new RegExp(tables.infix, 'gu')
    this.url = new RegExp(tables.url, 'u')
    this.found = new Map() // from the first token of a special case that is cut apart to all such cases
    for (const o of tables.found) this.found.set(o[0], [...this.found.get(o[0]) ?? [], o])
    this.known = new Map() // words that were seen, with their tokens
  }

  // The tokens of a run of signs which are all white, or all not
  word(w) {
    let toks = this.special.get(w) ?? this.known.get(w)
    if (toks) return toks
    toks = this.cut(w)
    if (this.known.size > 50000) this.known.clear()
    if (w.length < 100) this.known.set(w, toks)
    return toks
  }

  cut(w) {
    const pre = [], suf = []
    let a = 0, b = w.length
    const special = (a, b, pre, suf) => {
      const toks = b - a <= this.longest ? this.special.get(w.slice(a, b)) : null
      return toks && [...pre, ...toks, ...[...suf].reverse()]
    }
    while (a < b) {
      const p = this.front(w, a, b), s = this.back(w, a + p, b)
      const first = w.slice(a, a + p), last = w.slice(b - s, b)
      const toks = special(a, b, pre, suf) ?? (p ? special(a + p, b, [...pre, first], suf) : null) ??
        (s ? special(a, b - s, pre, [...suf, last]) : null)
      if (toks) return toks
      if (!p && !s) break
      if (p) pre.push(first)
      if (s) suf.push(last)
      a += p
      b -= s
    }
    return [...pre, ...this.middle(w.slice(a, b)), ...suf.reverse()]
  }

  middle(w) {
    const cuts = [...w.matchAll(this.infix)], toks = []
    if (cuts.length && this.url.test(w)) return [w]
    let at = 0
    for (const m of cuts) {
      if (!m.index) continue
      toks.push(w.slice(at, m.index), m[0])
      at = m.index + m[0].length
    }
    return [...toks, w.slice(at)].filter(Boolean)
  }

  // The tokens of a text; a single space between two words is none
  tokens(t) {
    const toks = [], gaps = []
    const add = w => { for (const o of this.word(w)) { toks.push(o); gaps.push('') } }
    let start = 0, inWhite = this.isWhite(t[0])
    for (let i = 0; i < t.length; i++) {
      if (this.isWhite(t[i]) === inWhite) continue
      if (start < i) add(t.slice(start, i))
      start = i
      if (t[i] === ' ') {
        gaps[gaps.length - 1] = ' '
        start++
      }
      inWhite = !inWhite
    }
    if (start < t.length) add(t.slice(start))
    return this.lastLook(toks, gaps)
  }

  // `toks` with the special cases that were cut apart, longer ones first
  lastLook(toks, gaps) {
    const spans = [], seen = new Set(), ends = new Map(), res = []
    toks.forEach((t, i) => {
      for (const o of this.found.get(t) ?? []) if (o.every((p, k) => p === toks[i + k])) spans.push([i, i + o.length])
    })
    for (const [i, j] of spans.sort(([i, j], [k, l]) => i - j - k + l || i - k)) {
      if (!seen.has(i) && !seen.has(j - 1)) ends.set(i, j)
      for (let k = i; k < j; k++) seen.add(k)
    }
    for (let i = 0, j; i < toks.length; i = j) {
      j = ends.get(i) ?? i + 1
      const own = toks.slice(i, j), text = own.map((t, k) => t + (k < own.length - 1 ? gaps[i + k] : '')).join('')
      res.push(...ends.has(i) && this.special.get(text) || own)
    }
    return res
  }
}

// The length of what a pattern finds at one end of w[a:b]. It looks at no more signs than decide, in a word of any length
function atOneEnd({pattern, reach, free}, front) {
  const find = new RegExp(pattern, 'u'), repeats = new RegExp(free, 'u')
  return (w, a, b) => {
    let n = Math.min(2 * reach, b - a) // a sign may have two places
    let more = [...front ? w.slice(a, a + n) : w.slice(b - n, b)].filter(c => repeats.test(c)).length
    for (; more && n < b - a; n++) if (!repeats.test(front ? w[a + n] : w[b - n - 1])) more--
    const m = find.exec(front ? w.slice(a, a + n) : w.slice(b - n, b))
    return m ? m[0].length : 0
  }
}
