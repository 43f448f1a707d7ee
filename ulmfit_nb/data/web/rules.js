'use strict'
// The eight default rules of ulmfit_nb.rules, in their order. `py` says what browsers see otherwise than Python: which
// signs are `white` and which belong to a `word` (both as the inside of [...]), and what HTML's &names; stand for

function makeRules(py) {
  const re = s => new RegExp(s.replaceAll('WHITE', py.white).replaceAll('WORD', py.word), 'gu')
  const rep = re('([^WHITE])\\1{2,}'), wrep = re('(?:[WHITE]|^)([WORD]+)(?:[WHITE]+\\1){2,}([WHITE]|[^WORD]|$)')
  const caps = re('(?<![^WHITE])[A-Z][^a-zWHITE]*(?![^WHITE])'), maj = re('(?<![^WHITE])[A-Z][^A-ZWHITE]*(?![^WHITE])')
  const words = re('[^WHITE]+'), entities = new Map(Object.entries(py.entities)), numbers = new Map(py.numbers)
  const remains = [['#39;', "'"], ['amp;', '&'], ['#146;', "'"], ['nbsp;', ' '], ['#36;', '$'], ['\\n', '\n'],
    ['quot;', "'"], ['<br />', '\n'], ['\\"', '"'], ['<unk>', 'xxunk'], [' @.@ ', '.'], [' @-@ ', '-'], ['...', ' …']]

  // What Python's html.unescape makes of `&name`
  function character(all, name) {
    if (name[0] === '#') {
      const n = /^#x/i.test(name) ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10)
      if (numbers.has(n)) return numbers.get(n)
      return n > 0x10ffff || n >= 0xd800 && n <= 0xdfff ? '\ufffd' : String.fromCodePoint(n)
    }
    for (let i = name.length; i > 1; i--)
      if (entities.has(name.slice(0, i))) return entities.get(name.slice(0, i)) + name.slice(i)
    return all
  }

  function fixHtml(t) {
    for (const [was, is] of remains) t = t.replaceAll(was, () => is)
    return t.replace(/&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu, character)
  }

  const lower = (mark, w) => ([...w].length > 1 ? mark + ' ' : '') + w.toLowerCase()
  const stretched = (all, c) => ` xxrep ${[...all].length} ${c} `
  const again = (all, w, end) => ` xxwrep ${all.match(words).length} ${w} ${end}`
  const isWhite = py.isWhite
  function strip(t) {
    let a = 0, b = t.length
    while (a < b && isWhite(t[a])) a++
    while (a < b && isWhite(t[b - 1])) b--
    return t.slice(a, b)
  }

  return [['fix_html', fixHtml],
    ['replace_rep', t => t.replace(rep, stretched)],
    ['replace_wrep', t => t.replace(wrep, again)],
    ['spec_add_spaces', t => t.replace(/[/#\\]/g, ' $& ')],
    ['rm_useless_spaces', t => t.replace(/ {2,}/g, ' ')],
    ['replace_all_caps', t => t.replace(caps, w => lower('xxup', w))],
    ['replace_maj', t => t.replace(maj, w => lower('xxmaj', w))],
    ['lowercase', t => 'xxbos ' + strip(t.toLowerCase())]]
}

// The text after each rule: a list of [name, text]
function afterRules(rules, t) { return rules.map(([name, rule]) => [name, t = rule(t)]) }

// `isWhite` for the signs of a list of numbers, and the inside of [...]
function whiteSigns(numbers) {
  const all = new Set(numbers.map(n => String.fromCharCode(n)))
  return {isWhite: c => all.has(c), white: numbers.map(n => `\\u{${n.toString(16)}}`).join('')}
}
