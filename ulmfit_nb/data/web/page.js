'use strict'
// The page: what is typed goes to the worker, and what comes back is shown. Texts are put in as text, never as markup

const by = id => document.getElementById(id)
const el = (name, text = '', more = {}) => Object.assign(document.createElement(name), {textContent: text}, more)
const percent = p => (100 * p).toFixed(1) + '%'
const labels = JSON.parse(by('labels').textContent)
if (window !== window.top) document.documentElement.className = 'framed'
if (!labels.length) for (const o of document.querySelectorAll('.model')) o.hidden = true
by('answer').style.minHeight = labels.length ? '' : 0

const code = [...document.querySelectorAll('script[type="text/plain"][data-for="worker"]')].map(o => o.textContent)
const worker = new Worker(URL.createObjectURL(new Blob(code, {type: 'text/javascript'})))
const waiting = new Map()
let newest = 0
const ready = new Promise((yes, no) => {
  worker.onerror = e => no(new Error(e.message))
  worker.onmessage = ({data}) => {
    if (data.ready) return yes()
    if (data.id === undefined) return no(new Error(data.error))
    waiting.get(data.id)?.(data)
    if (data.done) waiting.delete(data.id)
  }
})
worker.postMessage({packed: by('packed').textContent})
by('packed').remove()

// Everything that the worker says of a text, together; `seen` gets each part when it comes. `want`: tokens, answer,
// words, or words `if quick`
function ask(text, want, seen = () => {}) {
  const id = ++newest, all = {}
  return ready.then(() => new Promise((yes, no) => {
    waiting.set(id, part => {
      Object.assign(all, part)
      seen(part)
      if (part.error) no(new Error(part.error))
      else if (part.done) yes(part.late ? null : all)
    })
    worker.postMessage({id, text, want})
  }))
}

function showRules(rules) {
  let before = null
  by('rules').replaceChildren(...rules.map(([name, text]) => {
    const row = el('tr'), same = text === before
    row.append(el('th', name, {scope: 'row'}), el('td', same ? 'no change' : short(text), {className: same ? 'same' : 'text'}))
    before = text
    return row
  }))
}

const short = text => text.length > 3000 ? text.slice(0, 3000) + ' …' : text

function showTokens(toks, ids) {
  const n = 1000, items = toks.slice(0, n).map((t, i) => {
    const li = el('li'), unknown = ids[i] === 0 && t !== 'xxunk'
    li.append(el('span', t.replaceAll(' ', '␣').replaceAll('\n', '↵'), {className: /^xx/.test(t) ? 'mark' : ''}), ' ',
      el('span', unknown ? `${ids[i]}: unknown` : ids[i], {className: 'id'}))
    return li
  })
  by('tokens').replaceChildren(...items)
  by('counted').textContent = `${toks.length} tokens` + (toks.length > n ? `, the first ${n} of them:` : ':')
}

function showAnswer(p, ms) {
  const order = labels.map((_, i) => i).sort((a, b) => p[b] - p[a])
  by('answer').textContent = `${labels[order[0]]}, ${percent(p[order[0]])}`
  by('probabilities').replaceChildren(...order.map(i => {
    const row = el('tr'), cell = el('td'), bar = el('div', '', {className: 'bar'})
    bar.style.width = percent(p[i])
    cell.append(bar)
    row.append(el('th', labels[i], {scope: 'row'}), el('td', percent(p[i]), {className: 'p'}), cell)
    return row
  }))
  by('time').textContent = `read in ${Math.max(1, Math.round(ms))} ms`
}

function showWords(words, label) {
  const largest = words.reduce((most, o) => Math.max(most, Math.abs(o[1])), 1e-9), text = by('words')
  text.replaceChildren()
  for (const [word, share] of words) {
    const strength = Math.abs(share) / largest, side = share > 0 ? 'for' : 'against'
    const span = el('span', word, {className: strength > .25 ? side : '', title: (share > 0 ? '+' : '') + share.toFixed(3)})
    span.style.background = `rgba(var(--${side}), ${(.4 * strength).toFixed(2)})`
    text.append(span, ' ')
  }
  const best = sign => words.filter(o => o[1] * sign > largest / 4).sort((a, b) => (b[1] - a[1]) * sign).slice(0, 5)
    .map(([w, s]) => `${w} (${s > 0 ? '+' : ''}${s.toFixed(2)})`).join(', ') || 'none'
  by('said').replaceChildren(el('span', 'For', {className: 'for'}), ` ${labels[label]}: ${best(1)}. `,
    el('span', 'Against', {className: 'against'}), ` it: ${best(-1)}.`)
}

let last = ''
async function read(text, want) {
  last = text
  by('result').hidden = !text.trim()
  if (want === 'if quick') {
    by('words').replaceChildren()
    by('said').textContent = ''
  }
  by('colour').hidden = true
  if (!text.trim()) {
    newest++
    for (const o of ['answer', 'time', 'busy']) by(o).textContent = ''
    return
  }
  try {
    await ask(text, want, o => {
      if (text !== last || o.late) return
      if (o.progress) by('busy').textContent = `${Math.round(100 * o.progress)}%`
      if (o.rules) showRules(o.rules)
      if (o.tokens) showTokens(o.tokens, o.ids)
      if (o.probabilities) showAnswer(o.probabilities, o.ms)
      if (o.words) showWords(o.words, o.label)
      if (o.done) by('busy').textContent = ''
      if (o.long) by('said').textContent = `Words are coloured in texts of up to ${o.long} tokens.`
      if (o.slow) {
        by('colour').textContent = `Colour the words (about ${Math.round(o.slow / 1000)} s)`
        by('colour').hidden = false
      }
    })
  } catch (e) { by('answer').textContent = e.message }
}

const box = by('text')
let timer
box.addEventListener('input', () => {
  clearTimeout(timer)
  timer = setTimeout(() => read(box.value, 'if quick'), 150)
})
by('colour').addEventListener('click', () => read(box.value, 'words'))
ready.then(() => {
  by('busy').textContent = ''
  read(box.value, 'if quick')
}, e => { by('busy').textContent = `This browser cannot read the model: ${e.message}` })
