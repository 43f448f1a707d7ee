"The page that `ulmfit export-web` writes, in a real browser without a network: it says what Python says"
import random, shutil, subprocess, sys
import pytest, torch
import browser
from ulmfit_nb.ensemble import Ensemble
from ulmfit_nb.estimator import ULMFiTClassifier
from ulmfit_nb.interpret import attribute
from ulmfit_nb.language_model import load_language_model
from ulmfit_nb.rules import text_proc_rules
from ulmfit_nb.texts import sentences
from ulmfit_nb.tokenization import Tokenizer, WordTokenizer
from ulmfit_nb.web import as_signs, export_web, tokenizer_tables

title,evil = 'Good or <bad> & "co"','<img src=x onerror="window.harmed=1"> [{</script><b>so</b>}] </textarea>'

@pytest.fixture(scope='module')
def clf():
    df = sentences().sample(200, random_state=0)
    df['label'] = df.label.replace('negative', '<b>bad</b>')
    clf = ULMFiTClassifier(False, ('fwd','bwd'), size='tiny', lm_epochs=0, epochs=(1,0,0,0)).fit(df.text, df.label)
    for o in clf.ensemble_.learners: # so that its scores differ from text to text
        with torch.no_grad():
            for l in o.model[1].layers: l[2 if len(l)>2 else 1].weight.normal_(0, .5)
    clf.ensemble_.temperature,clf.ensemble_.weights = 1.3,(.8,.4)
    return clf

@pytest.fixture(scope='module')
def page(clf, tmp_path_factory):
    return export_web(clf, tmp_path_factory.mktemp('web')/'page.html', title, evil)

@pytest.fixture(scope='module')
def opened():
    "A browser that obeys pages' policies; a page is opened from the disk, and waited for"
    if not browser.find(): pytest.skip('no Chromium here: apt-get install chromium, or set CHROME')
    with browser.chromium(bypass_csp=False) as tab:
        def _open(page):
            tab.open(page.as_uri())
            tab.until("document.getElementById('busy').textContent==='' && !document.getElementById('result').hidden")
            return tab
        yield _open

@pytest.fixture
def tab(opened, page): return opened(page)

def asked(tab, texts, want):
    "What the page's own JavaScript says of each of `texts`"
    return tab.page.evaluate('''async ([texts, want]) => {
        const all = []
        for (const o of texts) all.push(await ask(o, want))
        return all
    }''', [list(texts), want])

signs = [chr(i) for i in (*range(1, 256), 0x130, 0x3a3, 0x3c2, 0x3c3, 0x5d0, 0x661, 0x1680, 0x200d, 0x2028, 0x2460,
    0x3000, 0xfeff, 0xfffe, 0x1d400, 0x1f468, 0x1f600)]

def torn(n):
    "Texts of odd signs, and of those that rules and spaCy look for"
    rng,words = random.Random(0),['Mr.',' <unk>','&lt','&#x','don\'t','a a a','...',':-)']
    often = list(' aabBc.,:)(!\'"-/\\<>3&;#x\n')+words
    def one(): return ''.join(rng.choice(signs if rng.random()<.2 else often) for _ in range(rng.randrange(50)))
    return [one() for _ in range(n)]

hard = ['', ' ', 'xxpad', 'AAA', 'so so so so', 'so so soon', '&notit; &amp;lt; &#0; &#x80; &#xd800; &#1114112;',
    '&ampx &copy', 'http://a.co/x-y?z=1.', 'e.g. Mr.Smith, Ph.D.', ':-)) :-( <3',
    '\u0130stanbul \u039f\u03a3 \u039f\u03a3.', 'a\x1cb\x85c\ufeffd', '(((((a)))))', "''''Tis", '1,000.5km 5-6 a--b',
    'we\u2019ve', '\U0001d400'*3, '&#'+'9'*400+';', '.'*3000, '('*500+'x-y,'*300]

def test_rules(tab):
    "Each of the eight rules, text by text"
    texts = torn(200)+hard
    for t,got in zip(texts, asked(tab, texts, 'tokens')):
        want = []
        u = t
        for rule in text_proc_rules: want.append([rule.__name__, u := rule(u)])
        assert got['rules']==want, t

def test_tokens_and_numbers(tab, clf):
    texts = torn(400)+hard+sentences().text.sample(200, random_state=1).tolist()
    ds = clf.ensemble_.learners[0].dls.train_ds
    for t,got in zip(texts, asked(tab, texts, 'tokens')):
        toks = list(ds.tokenizer(t))
        assert got['tokens']==toks, t
        assert got['ids']==ds.numericalize(toks).tolist(), t

def test_a_page_without_a_classifier(opened, tmp_path):
    "Of a language model: the same rules, tokens and numbers, and no word of what it can't say"
    lm = load_language_model('wiki-en-compact-fwd')
    tab = opened(export_web(lm, tmp_path/'tokens.html', text=evil))
    texts,ds = torn(50)+hard,lm.dls.train_ds
    for t,got in zip(texts, asked(tab, texts, 'if quick')):
        toks = list(ds.tokenizer(t))
        assert got['tokens']==toks and got['ids']==ds.numericalize(toks).tolist() and 'probabilities' not in got, t
    seen = tab.js('document.body.innerText')
    assert 'among 20,000 words' in seen and 'fix_html' in seen and 'Probabilities' not in seen and 'spoke' not in seen
    assert not tab.complaints()

def few():
    words = ' '.join(sentences().text).split()
    return ['', 'Good.', 'bad xxpad film', *sentences().text[:8], ' '.join(words[:300]), ' '.join(words[300:2300])]

def test_probabilities(tab, clf):
    "A long text is pooled over its last tokens only, and a bag of words has its say"
    texts = few()
    assert len(Tokenizer()(texts[-1]))>clf.ensemble_.learners[0].model[0].max_len
    want,alone = clf.predict_proba(texts),clf.ensemble_.networks_proba(texts)
    got = asked(tab, texts, 'answer')
    assert abs(want-alone.numpy()).max()>.02 and want[:,0].std()>.02
    for g,w,a in zip(got, want.tolist(), alone.tolist()):
        assert g['probabilities']==pytest.approx(w, abs=.002) and g['networks']==pytest.approx(a, abs=.002)

def test_colours(tab, clf):
    "The words' shares are those of `attribute`"
    for t,got in zip(few()[:8], asked(tab, few()[:8], 'words')):
        a = attribute(clf, t, n_steps=8)
        assert got['shares']==pytest.approx(a.shares.tolist(), abs=1e-3)
        assert [o[0] for o in got['words']]==[o[0] for o in a.words()]
        assert [o[1] for o in got['words']]==pytest.approx([o[1] for o in a.words()], abs=1e-3)
        assert clf.ensemble_.labels[got['label']]==a.label

def members(clf, tmp_path):
    "The model in each kind of folder"
    one = clf.ensemble_.learners[1]
    one.export(tmp_path/'learner')
    Ensemble(clf.ensemble_.learners[:1], 2.).save(tmp_path/'ensemble')
    clf.save(tmp_path/'estimator', language_models=False)
    return dict(learner=Ensemble([one]), ensemble=Ensemble(clf.ensemble_.learners[:1], 2.), estimator=clf)

def test_every_kind_of_folder(opened, clf, tmp_path):
    "The command takes a learner, an ensemble and an estimator; a line says where the page is"
    for name,model in members(clf, tmp_path).items():
        out = tmp_path/f'{name}.html'
        command = 'export-web',tmp_path/name,out,'--text','Good.'
        r = subprocess.run([sys.executable, '-m', 'ulmfit_nb', *command], capture_output=True, text=True)
        assert r.returncode==0 and str(out) in r.stdout, r.stderr
        texts = sentences().text[:3].tolist()
        want = model.predict_proba(texts).tolist()
        for g,w in zip(asked(opened(out), texts, 'answer'), want): assert g['probabilities']==pytest.approx(w, abs=.006)

def coloured(tab, word):
    "Wait until `word` is among the coloured words; a slow machine asks before it colours"
    for i in range(300):
        if word in tab.js("document.getElementById('words').textContent"): return
        if tab.js("!document.getElementById('colour').hidden"): tab.page.click('#colour')
        tab.page.wait_for_timeout(100)
    raise TimeoutError(f'{word} was never coloured')

def test_typing(tab):
    "What is typed is read after a moment; a newer text ends the work on an older one; an emptied box empties the page"
    page = tab.page
    page.fill('#text', 'It broke. '*4000)
    page.wait_for_timeout(300)
    page.fill('#text', '')
    page.keyboard.type('Never AGAIN!!!', delay=5)
    coloured(tab, 'AGAIN')
    assert tab.js("document.querySelectorAll('#rules tr').length")==8
    assert 'xxup again xxrep 3 !' in tab.js("document.getElementById('rules').textContent")
    assert '%' in tab.js("document.getElementById('answer').textContent")
    assert tab.js("[...document.querySelectorAll('#tokens li')].map(o => o.textContent).join()").startswith('xxbos 2')
    page.fill('#text', ' ')
    tab.until("document.getElementById('result').hidden")
    assert tab.js("document.getElementById('answer').textContent")=='' and not tab.complaints()

def test_texts_that_are_too_long_to_colour(tab):
    got, = asked(tab, ['It broke. '*800], 'words')
    assert got['long']==2000 and 'words' not in got and len(got['probabilities'])==2

def test_alive_while_a_long_text_is_read(tab):
    "The page answers at once while its worker reads"
    longest = tab.page.evaluate('''async text => {
        document.getElementById('text').value = text
        document.getElementById('text').dispatchEvent(new Event('input'))
        let longest = 0
        for (let i = 0; i < 40; i++) {
            const t = performance.now()
            await new Promise(go => setTimeout(go, 20))
            longest = Math.max(longest, performance.now() - t)
        }
        return longest
    }''', 'It was long, and it broke. '*3000)
    assert longest<2000
    assert tab.js("document.getElementById('busy').textContent").endswith('%')
    tab.page.fill('#text', 'Short.')
    coloured(tab, 'Short')

def test_nothing_typed_becomes_markup(tab):
    "Text, title and labels stay text; the policy stops what script there might be; no request leaves the page"
    assert tab.js("document.getElementById('text').value")==evil
    assert tab.js('document.title')==title and tab.js("document.querySelector('h1').textContent")==title
    coloured(tab, 'onerror')
    assert tab.js("document.querySelectorAll('main img, main b, main script').length")==0
    assert '<b>bad</b>' in tab.js("document.getElementById('probabilities').textContent")
    assert not tab.complaints()
    tab.page.evaluate("""() => {
        const s = document.createElement('script')
        s.textContent = 'window.harmed = 1'
        document.body.append(s)
    }""")
    assert tab.js('window.harmed')is None and any('Content Security Policy' in o for o in tab.complaints())
    assert tab.js("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")=='refused'
    assert all(o.startswith(('file:','blob:','data:')) for o in tab.requests())

def test_for_everyone(tab, page):
    "Names for what is there, the order of the keyboard, both schemes readable, and no scrolling sideways on a phone"
    js = tab.js
    assert js("document.querySelector('label[for=text]') && document.documentElement.lang")=='en'
    assert js("document.getElementById('answer').getAttribute('role')")=='status'
    assert js("[...document.querySelectorAll('table')].every(o => o.caption)")
    tab.page.keyboard.press('Tab')
    assert js('document.activeElement.id')=='text'
    for scheme in ('light','dark'):
        tab.page.emulate_media(color_scheme=scheme)
        assert min(contrasts(tab))>=4.5, scheme
    for width in (320,390,1400):
        tab.size(width)
        assert js('document.documentElement.scrollWidth')<=width

def contrasts(tab):
    "The contrast of each text with what is behind it, as WCAG counts"
    return tab.page.evaluate('''() => {
        const ctx = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d')
        const back = matchMedia('(prefers-color-scheme: dark)').matches ? '#121212' : '#ffffff'
        const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4
        const light = colours => {
            ctx.clearRect(0, 0, 1, 1)
            for (const c of [back, ...colours]) { ctx.fillStyle = c; ctx.fillRect(0, 0, 1, 1) }
            const [r, g, b] = [...ctx.getImageData(0, 0, 1, 1).data].map(v => linear(v / 255))
            return .2126 * r + .7152 * g + .0722 * b
        }
        const there = o => o.checkVisibility() && o.textContent.trim()
        return [...document.querySelectorAll('main *')].filter(there).map(o => {
            const s = getComputedStyle(o), a = light([s.backgroundColor]), b = light([s.backgroundColor, s.color])
            return (Math.max(a, b) + .05) / (Math.min(a, b) + .05)
        })
    }''')

def test_whatever_a_server_says_of_it(opened, page, tmp_path, clf):
    "A page behind a server that calls it UTF-8 is read all the same"
    shutil.copy(page, tmp_path/'index.html')
    tab = opened(page)
    with browser.serve(tmp_path, 'text/html; charset=utf-8') as url:
        tab.open(url+'/index.html')
        tab.until("document.getElementById('busy').textContent==='' && !document.getElementById('result').hidden")
        want = clf.predict_proba(['Good.'])[0].tolist()
        assert asked(tab, ['Good.'], 'answer')[0]['probabilities']==pytest.approx(want, abs=.002)

def test_signs_hold_the_bytes():
    "After their number; no half of a pair, no sign that HTML changes"
    for data in (b'', b'a', b'<script>', bytes(range(256))*3):
        signs = [ord(o) for o in as_signs(data).decode('utf-16-le')]
        assert not any(0xd800<=o<0xe000 or o in (0,13,60) for o in signs)
        it = iter(signs)
        back = b''.join(((next(it)^0x8000) if o==0xe000 else o).to_bytes(2, 'little') for o in it)
        assert int.from_bytes(back[:4], 'little')==len(data) and back[4:4+len(data)]==data

def test_tables_are_those_of_spacy():
    tk = WordTokenizer('en').spacy
    assert set(tokenizer_tables(tk)['special'])==set(tk.rules)
