"The site: it builds without a warning, says what every name does, and works in a real browser, without a network"
import html as htmllib, importlib, json, os, re, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
import pytest
from conftest import notebooks, root
import browser

pytest.importorskip('sphinx', reason="no Sphinx: install the extra 'docs'")
sys.path.insert(0, str(root/'docs'))
from build import page_name
docs,site = root/'docs',root/'docs'/'_build'/'html'

@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    "The folder of a classifier that has read, and has learned no labels"
    from ulmfit_nb.all import AWD_LSTM, TextDataLoaders, sentences, set_seed, text_classifier_learner
    set_seed(1)
    dls = TextDataLoaders.from_df(sentences().sample(200, random_state=0), text_col='text', label_col='label', seed=1)
    return text_classifier_learner(dls, AWD_LSTM).export(tmp_path_factory.mktemp('live').absolute()/'model')

@pytest.fixture(scope='module')
def built(classifier):
    "The folder of the site, built here and now, every warning an error; by two at once, which don't hurt each other"
    both = [subprocess.Popen([sys.executable, str(docs/'build.py'), '--live', str(classifier)], cwd=root,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    for p,said in [(p,p.communicate()[0]) for p in both]: assert p.returncode==0, said[-9000:]
    return site

def test_builds_take_turns(tmp_path):
    "One begins when the other has ended, even where that was killed"
    code = """import sys, time
sys.path.insert(0, sys.argv[1])
from build import alone, Path
with alone(Path(sys.argv[2])/'lock'):
    with open(Path(sys.argv[2])/'log', 'a') as f: f.write('begin ')
    if sys.argv[3]=='killed': import os, signal; os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(.5)
    with open(Path(sys.argv[2])/'log', 'a') as f: f.write('end ')
"""
    for o in [subprocess.Popen([sys.executable, '-c', code, str(docs), str(tmp_path), o]) for o in ('killed','a','b')]:
        o.wait()
    said = (tmp_path/'log').read_text().split()
    assert sorted(said)==['begin']*3+['end']*2
    said.remove('begin') if said[:2]==['begin','begin'] else said.pop(next(i for i,
        o in enumerate(said) if said[i:i+2] in (['begin','begin'], ['begin'])))
    assert said==['begin','end']*2

def test_a_site_is_whole_or_as_it_was(tmp_path):
    import build
    new,place = tmp_path/'new',tmp_path/'html'
    (new/'a').mkdir(parents=True)
    (new/'a'/'page.html').write_text('one')
    build.publish(new, place)
    was = (place/'a'/'page.html').stat().st_ino
    build.publish(new, place) # nothing is new: a reader is not disturbed
    assert (place/'a'/'page.html').stat().st_ino==was
    (new/'a'/'page.html').write_text('two') # as long as before
    with open(place/'a'/'page.html') as reader:
        build.publish(new, place)
        assert reader.read()=='one' and (place/'a'/'page.html').read_text()=='two'
    (new/'a'/'page.html').rename(new/'b.html')
    build.publish(new, place)
    assert [o.name for o in place.rglob('*.html')]==['b.html'] and not list(tmp_path.glob('.html*'))

class Page(HTMLParser):
    "What the tests look at in a page: anchors, links, pictures, whether it is a page of the book"
    def __init__(self, text):
        super().__init__()
        self.ids,self.links,self.imgs,self.loads = set(),[],[],[]
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a[k] for k in ('id','name') if a.get(k)}
        if tag=='a' and 'href' in a: self.links.append(a['href'])
        if tag=='img': self.imgs.append(a)
        if tag in ('img','script','iframe','source') and a.get('src'): self.loads.append(a['src'])
        if tag=='link' and a.get('rel') in ('stylesheet','preload','icon','shortcut icon','preconnect','dns-prefetch'):
            self.loads.append(a['href'])

@pytest.fixture(scope='module')
def pages(built):
    return {str(o.relative_to(built)):Page(o.read_text(encoding='utf8')) for o in sorted(built.rglob('*.html'))
        if not {'_static','live'}&set(o.parts)}

def content(built, name): return (built/f'{name}.html').read_text(encoding='utf8')

# Contents

def toc():
    "Pages in the table of contents"
    text = (docs/'index.md').read_text(encoding='utf8')
    return [l.strip() for o in re.findall(r'```\{toctree\}(.*?)```', text, re.S) for l in o.splitlines() if l.strip()
        and l[0]!=':']

@pytest.mark.parametrize('name', ['generation','classifier','ensemble'])
def test_a_method_is_no_command(name, built):
    "`predict` in a text is the learner's, although the command line and the server have functions of such names"
    assert not re.findall(r'href="(?:cli|serving)\.html#(?:predict|generate|listen)"', content(built, name))

def test_every_notebook_is_in_the_table_of_contents():
    assert not {page_name(o) for o in notebooks()} - set(toc())
    assert len(toc())==len(set(toc()))

def test_the_parts():
    text = (docs/'index.md').read_text(encoding='utf8')
    assert re.findall(r':caption: (.*)', text)==['Read','Do','Workshop','Look up','Why']

chapters = [page_name(o) for o in notebooks('book') if page_name(o)!='imdb'] + [page_name(o)
    for o in notebooks('workshop')]

@pytest.mark.parametrize('name', chapters)
def test_chapters_end_with_questions(name, built):
    n = len(re.findall(r'<details class="[^"]*\bquestion\b', content(built, name)))
    assert 5<=n<=10, f'docs/questions/{name}.md should have five to ten questions, it has {n}'

@pytest.mark.parametrize('name', chapters)
def test_chapters_can_be_run_and_left(name, built):
    text = content(built, name)
    nb = re.search(r'href="(notebooks/[\w]+\.ipynb)"', text)
    assert nb and json.loads((built/nb[1]).read_text())['cells']
    assert 'colab.research.google.com' in text
    assert 'prev-next-area' in text and ('right-next' in text or 'left-prev' in text)

def test_links_to_the_repository(monkeypatch):
    "They have one source, `repository` in settings.ini; unknown, there are none"
    import build
    monkeypatch.setattr(build, 'repository', 'https://github.com/owner/name')
    line = build.run_line(root/'nbs'/'book'/'03_batching.ipynb')
    assert '(https://colab.research.google.com/github/owner/name/blob/main/nbs/book/03_batching.ipynb)' in line
    at = 'https://github.com/owner/name/blob/main/nbs/book/03_batching.ipynb'
    assert f'(https://kaggle.com/kernels/welcome?src={at})' in line
    assert '(https://mybinder.org/v2/gh/owner/name/main?labpath=nbs%2Fbook%2F03_batching.ipynb)' in line
    monkeypatch.setattr(build, 'repository', '')
    assert 'github' not in build.run_line(root/'nbs'/'book'/'03_batching.ipynb') and 'download' in build.run_line(
        root/'nbs'/'book'/'03_batching.ipynb')

# The reference

def names():
    import api
    return [(m,n) for m in api.modules for n in importlib.import_module(f'ulmfit_nb.{m}').__all__]

def entry(text, module, name):
    "The entry of a name on its reference page: everything from its anchor to the next entry of the same depth"
    i = text.find(f'id="ulmfit_nb.{module}.{name}"')
    assert i>=0, f'no entry for {module}.{name}'
    j = text.find('<dt class="sig', i+1)
    return text[i:j if j>0 else None]

def test_every_exported_name_has_an_entry(built):
    missing = [f'{m}.{n}' for m,n in names() if f'id="ulmfit_nb.{m}.{n}"' not in content(built, f'api/{m}')]
    assert not missing

def test_no_entry_without_a_description(built):
    def said(m, n):
        dd = re.search(r'<dd>(.*)', entry(content(built, f'api/{m}'), m, n), re.S)
        text = re.sub(r'<p class="entry">.*?</p>|<table.*?</table>|<p class="returns">.*?</p>', '', dd[1],
            flags=re.S) if dd else ''
        return htmllib.unescape(re.sub(r'<[^>]+>', ' ', text)).strip()
    assert not [f'{m}.{n}' for m,n in names() if len(said(m, n))<10]

def test_every_parameter_is_in_the_table(built):
    import api, inspect
    bad = []
    for m,n in names():
        o = getattr(api.load(m), n)
        if not (inspect.isfunction(o) or inspect.isclass(o)): continue
        rows = api.class_params(o)[0] if inspect.isclass(o) else api.params(o)[0]
        # the signature above it has the names, too
        text = ''.join(re.findall(r'<table.*?</table>', entry(content(built, f'api/{m}'), m, n), re.S))
        first = {htmllib.unescape(re.sub(r'<[^>]+>', '', o)).strip()
            for o in re.findall(r'<tr[^>]*>\s*<td[^>]*>(.*?)</td>', text, re.S)}
        bad += [f'{m}.{n}({p})' for p,_,_,_ in rows if p not in first]
    assert not bad

def test_our_parameters_have_a_meaning():
    "Those that a function of ours states itself; what is passed on to another library is described there"
    import api, inspect
    bad = []
    for m,n in names():
        o = getattr(api.load(m), n)
        f = o if inspect.isfunction(o) else vars(o).get('__init__') if inspect.isclass(o) else None
        if f is None or not api.ours(f): continue
        own = set(inspect.unwrap(f).__code__.co_varnames[:f.__code__.co_argcount+f.__code__.co_kwonlyargcount])
        bad += [f'{m}.{n}({p})' for p,_,_,meant in api.params(o)[0] if p in own and not meant]
    assert not bad

# Model cards

def test_a_card_says_what_the_file_says(tmp_path):
    import cards
    about = dict(name='tiny-fwd', what='A made-up model.', licence='CC BY-SA 3.0', parameters=1234567,
        results={'as stored':{'kept aside':dict(loss=4.25, tokens=123456), 'test':dict(loss=4.5)}},
        samples=[dict(prompt='The film', text='was <b>good</b> | it_costs $5 *now*')])
    meta = dict(kind='language_model', arch='AWD_LSTM', config=dict(emb_sz=160, bidir=False),
        vocab=['xxunk','xxpad','the'], tokenizer=dict(kind='word', special_toks=['xxunk']), sha256='abc')
    for name,m in {'tiny-fwd':dict(meta, card=about), 'bare-fwd':meta}.items():
        (tmp_path/name).mkdir()
        (tmp_path/name/'model.json').write_text(json.dumps(m), encoding='utf8')
    pages = cards.cards(tmp_path)
    assert list(pages)==['bare-fwd','tiny-fwd']
    text = pages['tiny-fwd']
    for o in ('# tiny-fwd','A made-up model.','| licence | CC BY-SA 3.0 |','1,234,567','### As stored','| kept aside | '
        '4.25 | 123,456 |','| test | 4.5 |  |','## Samples','| The film | was \\<b\\>good\\</b\\> \\| it\\_costs \\$5 '
        '\\*now\\* |','| `emb_sz` | 160 |','| `bidir` | no |','| `vocabulary` | 3 |'):
        assert o in text, o
    assert 'no description' in pages['bare-fwd'] and 'AWD' in pages['bare-fwd'] and 'xxunk' not in pages['bare-fwd']
    assert '(models/tiny-fwd.md): A made-up model.' in cards.listing(pages)
    assert 'no pretrained model' in cards.listing(cards.cards(tmp_path/'nowhere'))

def test_every_pretrained_model_has_a_page(built):
    models = [p.parent.name for p in (root/'ulmfit_nb'/'data'/'pretrained').glob('*/model.json')]
    for k in models: assert f'models/{k}.html' in content(built, 'models') and k in content(built, f'models/{k}')
    assert models or 'no pretrained model' in content(built, 'models')

# Links, loads, pictures: in the files themselves

def test_links_and_anchors_resolve(built, pages):
    bad = []
    for name,page in pages.items():
        for link in page.links:
            to = urlsplit(urljoin(f'http://here/{name}', link))
            if to.netloc!='here' or not to.scheme.startswith('http'): continue
            path = unquote(to.path.lstrip('/')) or 'index.html'
            if not (built/path).is_file(): bad.append((name,link))
            elif to.fragment and path in pages and unquote(to.fragment) not in pages[path].ids: bad.append((name,link))
    assert not bad

def test_nothing_is_loaded_from_elsewhere(built, pages):
    assert not [(n,o) for n,p in pages.items() for o in p.loads if urlsplit(o).netloc]
    css = [o for o in built.rglob('*.css')]
    assert css and not [o.name for o in css if re.search(r'(@import\s*|url\()\s*["\']?https?:',
        o.read_text(encoding='utf8'))]

generic = re.compile(r'\W*(plot|figure|image|picture|graph|chart|diagram|logo|_images/\S*|\S+\.(png|svg|jpe?g))?\W*',
    re.I)
def says(text): return len(text.split())>=5 and not generic.fullmatch(text) and not text.startswith('Plot')

@pytest.mark.parametrize('nb', notebooks('book')+notebooks('workshop'), ids=lambda o: o.stem)
def test_nbdev_has_nothing_to_warn_of(nb):
    "Imports are in cells of their own: making the pages runs them"
    from nbdev.processors import _do_eval
    from nbdev.process import NBProcessor
    import warnings
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        for cell in NBProcessor(nb).nb.cells: _do_eval(cell)
    assert not [str(w.message) for w in seen if 'containing imports' in str(w.message)]

@pytest.mark.parametrize('nb', notebooks(), ids=lambda o: o.stem)
def test_figures_of_notebooks_say_what_they_show(nb):
    "In the cell that draws one: `#| fig-alt: what it shows, for those who can't see it`"
    cells = [o for o in json.loads(nb.read_text(encoding='utf8'))['cells']
        if any('image/png' in d.get('data', {}) for d in o.get('outputs', ()))]
    alts = [re.search(r'^#\| fig-alt: (.*)', ''.join(o['source']), re.M) for o in cells]
    assert not [''.join(o['source'])[:80] for o,a in zip(cells, alts) if not (a and says(a[1]))]

def test_pictures_have_alternative_text(built, pages):
    bad = [(n,o) for n,p in pages.items() for o in p.imgs if not says(o.get('alt') or '')]
    for n in pages:
        for head,body in re.findall(r'(<svg\b[^>]*>)(.*?)</svg>', (built/n).read_text(encoding='utf8'), re.S):
            if 'aria-hidden="true"' in head: continue # decoration, as the arrows of folded parts
            words = re.findall(r'<(?:title|desc)[^>]*>([^<]*)<', body) + re.findall(r'aria-label="([^"]*)"', head)
            if 'role="img"' not in head or not says(' '.join(words)): bad.append((n,head))
    assert not bad

def test_machines_find_the_pages(built):
    text = (built/'llms.txt').read_text(encoding='utf8')
    listed = re.findall(r'\]\(([\w/-]+)\.html\.md\)', text)
    assert set(chapters) <= set(listed)
    for o in listed:
        path = built/f'{o}.html.md'
        md = path.read_text(encoding='utf8')
        assert md.startswith('#') and not re.search(r'^\{\.\w+\}$', md, re.M) and (built/f'{o}.html').exists()
        prose = re.sub(r'```.*?```', '', md, flags=re.S)
        assert not [l for l in re.findall(r'\]\((?!https?:|#)([^)\s]+)\)', prose)
            if not (path.parent/l.split('#')[0]).exists()]

def test_machines_are_told_what_a_picture_shows(built):
    n = 0
    for nb in notebooks():
        md = (built/f'{page_name(nb)}.html.md').read_text(encoding='utf8')
        for c in json.loads(nb.read_text(encoding='utf8'))['cells']:
            alt = re.search(r'^#\| fig-alt: (.*)$', ''.join(c['source']), re.M)
            if alt and any('image/png' in o.get('data', ()) for o in c['outputs']):
                n += 1
                assert f'[Picture: {alt[1]}]' in md, (nb, alt[1])
    assert n>20

def test_tables_for_machines_are_whole(built):
    "Each cell of each table that a notebook stores; and no name of an object where something was shown"
    from bs4 import BeautifulSoup
    n = 0
    for nb in notebooks():
        md = (built/f'{page_name(nb)}.html.md').read_text(encoding='utf8')
        assert not re.search(r'^<[\w.]+(Styler|HTML object|Figure.*)>$', md, re.M), nb
        words = ' '.join(md.replace('\\|', '|').split())
        for c in json.loads(nb.read_text(encoding='utf8'))['cells']:
            for o in c.get('outputs', ()):
                for cell in BeautifulSoup(''.join(o.get('data', {}).get('text/html', '')), 'html.parser')(['td','th']):
                    n += 1
                    assert ' '.join(cell.get_text(' ').split()) in words, (nb, cell)
    assert n>1000

def test_a_table_as_markdown():
    "Headings in two lines, cells over two rows and over two columns, and a line between columns in a cell"
    import machines
    from bs4 import BeautifulSoup
    html = ('<table><thead><tr><th></th><th colspan="2">loss</th></tr><tr><th>n</th><th>a</th><th>b</th></tr></thead>'
        '<tbody><tr><th rowspan="2">1</th><td>x|y</td><td>2</td></tr><tr><td>3</td><td>4</td></tr></tbody></table>')
    assert machines.table(BeautifulSoup(html, 'html.parser').table).splitlines()==['| n | loss a | b |',
        '| --- | --- | --- |', '| 1 | x\\|y | 2 |', '|  | 3 | 4 |']

def test_formulas_need_no_script(built):
    text = content(built, 'awd_lstm')
    assert text.count('<math ')>5 and not re.search(r'<script[^>]*(mathjax|katex)', text, re.I)

# In a browser

@pytest.fixture(scope='module')
def tab(built):
    if not browser.find(): pytest.skip('no Chromium here: apt-get install chromium, or set CHROME')
    pytest.importorskip('playwright')
    with browser.serve(built) as url, browser.chromium() as tab:
        tab.url = url
        yield tab

all_width = 'Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)'
# what is printed may be wide; code, commands and signatures not
cut_lines = """[...document.querySelectorAll('pre')].filter(o => !o.closest('.cell_output')
    && o.scrollWidth>o.clientWidth+1).length"""

@pytest.fixture(scope='module')
def toured(tab, pages):
    "What each page does in a browser: opened once, made as narrow as a phone, its folds opened, made wide again"
    res = {}
    for o in pages:
        tab.size(1300)
        tab.open(f'{tab.url}/{o}')
        seen = res[o] = dict(complaints=tab.complaints(), elsewhere=[r for r in tab.requests()
            if not r.startswith((tab.url,'data:','blob:'))])
        if o.startswith('source/'): continue
        tab.size(390, 844)
        seen['width'] = tab.js(all_width)
        tab.js("document.querySelectorAll('details').forEach(o => o.open = true)")
        seen['cut', 390] = tab.js(cut_lines)
        tab.size(1280, 844)
        seen['cut', 1280] = tab.js(cut_lines)
    return res

def test_the_tour_sees_what_is_wrong(tab, tmp_path):
    "What the tests below rely on"
    (tmp_path/'bad.html').write_text('<!doctype html><body style="margin:0"><div style="width:500px;height:9px"></div>'
        '<pre style="width:90px;overflow:auto">'+'long '*40+'</pre>'
        '<img src="http://127.0.0.2:9/a.png" alt=""><script>nothing()</script>')
    with browser.serve(tmp_path) as url:
        tab.size(390, 844)
        tab.open(f'{url}/bad.html')
        assert any('nothing' in o for o in tab.complaints()) and [o for o in tab.requests() if '127.0.0.2' in o]
        assert tab.js(cut_lines)==1 and tab.js(all_width)==500

def test_pages_load_in_silence(toured):
    assert len(toured)>60 and not {o:s for o,s in toured.items() if s['complaints'] or s['elsewhere']}

def test_nothing_overflows_a_phone(toured):
    assert not {o:s['width'] for o,s in toured.items() if s.get('width', 0)>390}

@pytest.mark.parametrize('width', [1280,390])
def test_no_code_is_cut(toured, width):
    "Not in the folds either, once they are open"
    assert not {o:s['cut',width] for o,s in toured.items() if s.get(('cut',width))}

@pytest.mark.parametrize('query,wanted', [('LMDataLoader',('batching.html','api/batching.html')),
    ('gradual unfreezing',('classifier.html',))])
def test_search_finds_the_right_page_first(tab, query, wanted):
    tab.size(1300)
    tab.open(f'{tab.url}/search.html?q={query.replace(" ","+")}')
    first = tab.until("(document.querySelector('#search-results ul.search li a') || {}).href")
    tab.until("!document.querySelector('#search-progress') || "
        "!/Searching|Preparing/.test(document.querySelector('#search-results').innerText)")
    first = tab.js("document.querySelector('#search-results ul.search li a').href")
    assert urlsplit(first).path.lstrip('/') in wanted

def test_dark_mode_toggles(tab):
    tab.size(1300)
    tab.open(f'{tab.url}/awd_lstm.html')
    def choose(mode):
        tab.js("[...document.querySelectorAll('.theme-switch-button')].find(o => o.offsetParent).click()")
        tab.until(f"[...document.querySelectorAll('.theme-change-button[data-mode={mode}]')].some(o => o.offsetParent)")
        tab.js(f"[...document.querySelectorAll('.theme-change-button[data-mode={mode}]')].find(o => "
            "o.offsetParent).click()")
        tab.until(f"document.documentElement.dataset.theme=='{mode}'")
        return tab.js("[getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.querySelector('svg.drawn text')).fill]")
    dark,light = choose('dark'),choose('light')
    assert dark[0]!=light[0] and dark[1]!=light[1]
    choose('dark')
    tab.open(f'{tab.url}/batching.html') # the next page remembers it
    assert tab.js('document.documentElement.dataset.theme')=='dark'
    choose('light')

def test_copy_button_and_folds(tab):
    tab.open(f'{tab.url}/awd_lstm.html')
    assert tab.until("document.querySelectorAll('button.copybtn').length")>10
    folds = tab.js("document.querySelectorAll('details').length")
    assert folds>5 and tab.js("document.querySelectorAll('details.question[open]').length")==0
    tab.js("document.querySelector('details.question summary').click()")
    assert tab.js("document.querySelectorAll('details.question[open]').length")==1

def typed(tab, page, texts):
    "What the box of a page says of each text"
    tab.size(1300)
    tab.open(f'{tab.url}/{page}.html')
    loaded = [o for o in tab.requests() if '/live/classifier' in o]
    assert not loaded, 'megabytes for whoever does not ask for them'
    tab.js("document.querySelectorAll('details.live').forEach(o => o.open = true)")
    tab.js("document.querySelector('iframe.live').scrollIntoView()")
    box = tab.page.frame_locator('iframe.live')
    box.locator('#tokens li').nth(3).wait_for(timeout=60_000)
    frame = next(o for o in tab.page.frames if '/live/' in o.url)
    box.locator('#text').fill(texts[0])
    box.locator('#tokens li', has_text='remembered').wait_for(timeout=60_000)
    res = [frame.evaluate("([t, w]) => ask(t, w)", [o,'answer']) for o in texts]
    assert not tab.complaints() and not [o for o in tab.requests() if not o.startswith((tab.url,'data:','blob:'))]
    return res

def test_readers_can_type(tab, classifier):
    "On four pages; what the boxes say is what Python says"
    from ulmfit_nb.all import load_language_model, load_learner, sentences
    texts = ['It was GREAT &amp; remembered!!!!', *sentences().text.sample(60, random_state=3)]
    lm,learn = load_language_model('wiki-en-compact-fwd'),load_learner(classifier)
    toks = [list(lm.dls.train_ds.tokenizer(o)) for o in texts]
    ids = [lm.dls.train_ds.numericalize(o).tolist() for o in toks]
    for page in 'rules','tokenization':
        got = typed(tab, page, texts)
        assert [o['tokens'] for o in got]==toks and [o['ids'] for o in got]==ids
    frame = next(o for o in tab.page.frames if '/live/' in o.url)
    for mode in 'dark','light': # a box has the page's colours
        tab.js(f"document.documentElement.dataset.theme = '{mode}'")
        tab.until(f"document.querySelector('iframe.live').contentDocument.documentElement.dataset.theme=='{mode}'")
        assert frame.evaluate("getComputedStyle(document.documentElement).colorScheme")==mode
    want = learn.predict_proba(texts, progress=False)
    assert want[:,0].std()>.001
    for page in 'index','interpret':
        got = [o['probabilities'] for o in typed(tab, page, texts)]
        assert abs(want-want.new_tensor(got)).max()<.003

def test_boxes_without_scripts(tab):
    "A table stands where one could type"
    page = tab.page.context.browser.new_page(java_script_enabled=False)
    page.goto(f'{tab.url}/rules.html')
    assert page.locator('table.live', has_text='replace_rep').is_visible()
    assert not page.locator('iframe.live').is_visible()
    page.close()

def test_a_site_without_a_classifier(tmp_path):
    "Has no box for one, and no link that leads nowhere"
    import live
    (tmp_path/'classifier.html').touch() # of an earlier build
    boxes = live.make(tmp_path, tmp_path/'nothing')
    assert boxes['classifier']=='' and 'words.html' in boxes['words']
    assert [o.name for o in tmp_path.iterdir()]==['words.html']

def test_the_slider_says_what_the_model_says(tab):
    "The probabilities of words at the temperature that is shown, as `next_probs` gives them"
    import torch
    from ulmfit_nb.all import load_language_model, next_probs
    lm = load_language_model('wiki-en-compact-fwd')
    lm.model.eval().reset()
    ds = lm.dls.train_ds
    with torch.no_grad(): logits = lm.model(torch.as_tensor(ds.numericalize(ds.tokenizer('The food was')))[None])[0]
    marks = torch.tensor([o.startswith('xx') for o in lm.vocab])
    tab.open(f'{tab.url}/generation.html')
    for step in 0,16,36:
        tab.js(f"(() => {{ const o = document.querySelector('figure.slider input'); o.value = {step};"
            "o.dispatchEvent(new Event('input')) })()")
        rows = tab.js("[...document.querySelectorAll('figure.slider tr')].map(o => o.innerText.split('\t'))")
        p = next_probs(logits[:,-1], temperature=float(tab.js("document.querySelector('figure.slider output').value")),
            banned=marks)[0]
        best = p.topk(10)
        assert [o[0] for o in rows[:-1]]==[lm.vocab[i] for i in best.indices]
        want = [*best.values.tolist(), 1-best.values.sum().item()]
        assert [float(o[1][:-1])/100 for o in rows]==pytest.approx(want, abs=.0006)

def test_formulas_are_drawn(tab):
    tab.open(f'{tab.url}/awd_lstm.html')
    heights = tab.js("[...document.querySelectorAll('math')].map(o => o.getBoundingClientRect().height)")
    assert heights and min(heights)>5

def test_contents_on_the_right_hand(tab):
    tab.size(1400)
    tab.open(f'{tab.url}/batching.html')
    assert 'LMDataLoader' in tab.js("document.querySelector('.bd-sidebar-secondary').innerText")

# Accessible: what axe calls serious or critical, light and dark, on a desk and on a phone

def serious(tab, site, pages, rules=''):
    "What axe finds on each page, by all its rules or by the one that is named"
    axe = pytest.importorskip('axe_playwright_python', reason="no axe-playwright-python: install the extra 'dev'")
    code = (Path(axe.__file__).parent/'axe.min.js').read_text(encoding='utf8')
    only = f", runOnly:['{rules}']" if rules else ''
    found = f"axe.run({{resultTypes:['violations'], iframes:false{only}}})" """.then(o => o.violations.filter(v =>
        ['serious','critical'].includes(v.impact)).map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200)]))"""
    bad = []
    for o in pages:
        tab.size(1300)
        tab.open(f'{site}/{o}')
        tab.js(code)
        for w in 1300,390:
            tab.size(w, 844)
            tab.js('new Promise(r => setTimeout(r, 600))') # the theme waits until a window keeps its size
            bad += [(o,w,*v) for v in tab.js(found)]
    return bad

kinds_of_pages = 'index.html','rules.html','api/rules.html','models/wiki-en-compact-fwd.html','search.html'
def every_page(built):
    all_of_them = (o.relative_to(built) for o in sorted(built.rglob('*.html')))
    return [str(o) for o in all_of_them if not {'_static','source'}&set(o.parts)]

@pytest.mark.parametrize('mode', ['light','dark'])
@pytest.mark.parametrize('which', ['some', pytest.param('all', marks=pytest.mark.slow)])
def test_accessible(tab, built, mode, which):
    tab.page.emulate_media(color_scheme=mode)
    some = [*kinds_of_pages, 'live/words.html', 'live/classifier.html']
    rules = 'color-contrast' if (mode,which)==('dark','some') else '' # nothing else differs
    try: assert not serious(tab, tab.url, every_page(built) if which=='all' else some, rules)
    finally: tab.page.emulate_media(color_scheme='light')

def test_axe_sees_what_is_wrong(tab, tmp_path):
    (tmp_path/'bad.html').write_text('<!doctype html><title>x</title><img src="a.png"><p style="color:#ccc">pale</p>')
    with browser.serve(tmp_path) as url:
        assert {o[2] for o in serious(tab, url, ['bad.html'])} >= {'image-alt','color-contrast','html-has-lang'}
