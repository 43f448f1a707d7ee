"""Builds the site: notebooks through nbdev, then pages for Sphinx, then HTML in docs/_build/html. Run it with `make
docs`.

nbdev's own site is made by Quarto, a program that pip does not install. MyST-NB makes pages of notebooks without it,
but does not know what `#| export` or `show_doc` mean, so nbdev's processors go first and this file carries over what
they leave. Two builds must not hurt each other, which Sphinx leaves to whoever calls it: `alone` and `publish`."""
import argparse, ast, base64, draw, filecmp, json, live, os, re, shutil, subprocess, sys
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

here = Path(__file__).resolve().parent
root,out = here.parent,here/'_build'
src,staged,fresh,html = out/'src',out/'nbs',out/'fresh',out/'html' # `html` is what was complete last
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf8')
cfg = ini['DEFAULT']

# Where the repository is: settings.ini says it, else the machine that builds there. Unknown, the site has no links to
# it
repository = cfg['repository'] or (f"https://github.com/{os.environ['GITHUB_REPOSITORY']}"
    if os.getenv('GITHUB_REPOSITORY') else '')

def slug(title):
    "The anchor of a heading: as GitHub makes them, but dots of qualified names stay"
    return re.sub(r'[^\w\-. ]', '', title.strip().lower()).strip('. ').replace(' ', '-')

def page_name(path):
    "`03_batching.ipynb` is the page `batching`; the first notebook is the page `start`"
    name = re.sub(r'^\d+[a-z]?_', '', Path(path).stem)
    return 'start' if name=='index' else name

def write(path, text):
    "Write `text` only where it differs, so that Sphinx reads anew only what changed"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding='utf8')!=text: path.write_text(text, encoding='utf8')

# One build at a time, and no half of one

@contextmanager
def alone(lock):
    "Wait until no other build holds the file `lock`; it is free again when this process ends, however it ends"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, 'w') as f:
        try: import fcntl
        except ImportError: pass # no such locks on Windows
        else: fcntl.flock(f, fcntl.LOCK_EX)
        yield

def same(a, b):
    "Do two folders hold the same?"
    cmp = filecmp.dircmp(a, b, ignore=[])
    if cmp.left_only or cmp.right_only or cmp.funny_files: return False
    return not filecmp.cmpfiles(a, b, cmp.common_files, shallow=False)[1] and all(same(a/o, b/o)
        for o in cmp.common_dirs)

def publish(new, place):
    """Put a copy of the folder `new` in the place of the folder `place`, unless that holds the same: who reads there is
    not disturbed"""
    if place.is_dir() and same(new, place): return
    part,old = (place.with_name(f'.{place.name}.{o}') for o in ('part','old'))
    for o in (part,old): shutil.rmtree(o, ignore_errors=True)
    shutil.copytree(new, part)
    if place.exists(): place.rename(old)
    part.rename(place)
    shutil.rmtree(old, ignore_errors=True)

# Notebooks through nbdev

def notebooks(root=root):
    "The notebooks of all parts: book, workshop, guides, and the first page"
    return sorted(o for o in (root/'nbs').rglob('*.ipynb')
        if not any(part[0] in '._' for part in o.relative_to(root).parts))

def stage():
    "Copy notebooks, with `export` as `exports`: a book shows the code that it explains"
    for p in notebooks():
        text = re.sub(r'"#\| ?export(\\n)?"', r'"#| exports\1"', p.read_text(encoding='utf8'))
        write(staged/p.name, text)
    for p in staged.glob('*.ipynb'):
        if p.name not in {o.name for o in notebooks()}: p.unlink()

def processed():
    "Notebooks as nbdev's documentation processors leave them, by file name"
    from nbdev.serve import proc_nbs
    stage()
    cache = proc_nbs(str(staged), n_workers=os.cpu_count())
    return {p.name:json.loads(p.read_text(encoding='utf8')) for p in sorted(cache.glob('*.ipynb'))}

# Pages: what MyST-NB is given

def md(text, **meta): return dict(cell_type='markdown', metadata=meta, source=text)

def directives(source):
    "The `#|` lines that open a cell, as a dict, and the code below them"
    lines = source.splitlines()
    n = next((i for i,l in enumerate(lines) if l.strip() and not l.startswith('#|')), len(lines))
    pairs = (l[2:].strip().partition(':') for l in lines[:n] if l.strip())
    return {k.strip():v.strip() for k,_,v in pairs},'\n'.join(lines[n:]).strip('\n')

most_lines = 15 # of code that a page shows without a click

def hidden(cell):
    "Does the page leave out the code of `cell`?"
    flags,code = directives(''.join(cell['source']))
    if cell['cell_type']!='code' or not code or code.startswith('show_doc('): return True
    return 'hide' in flags or 'hide_input' in flags or flags.get('include')=='false' or flags.get('echo')=='false' or (
        'export' in flags or 'exports' in flags) and only_imports(code)

def folded(cell):
    "Does the page show the code of `cell` only when a reader asks for it?"
    flags,code = directives(''.join(cell['source']))
    if 'code-fold' in flags: return flags['code-fold']=='true'
    if only_imports(code): return 'ulmfit_nb.all' not in code # a page opens with its reason
    if 'exports' in flags or 'export' in flags: return len(code.splitlines())>most_lines or len(names_of(code))>1
    return len(code.splitlines())>24

def names_of(code):
    "Functions and classes that `code` defines"
    return [o.name for o in ast.parse(code).body if isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef,ast.ClassDef))]

def defined(code):
    "The names that nbdev documents in an exported cell, `Class.method` for what is patched in"
    from nbdev.showdoc import showdoc_nm
    names = [showdoc_nm(o) for o in ast.parse(code).body
        if isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef,ast.ClassDef))]
    return [n for o in names for n in (o if isinstance(o, (list,tuple)) else [o])]

def header(code, name, sig):
    "The signature `sig`, as the source has it where a default has no readable form"
    fun = next((o for o in ast.parse(code).body if isinstance(o, ast.FunctionDef) and o.name==name), None)
    return '\n'.join(code.splitlines()[fun.lineno-1:fun.body[0].lineno-1]) if fun and ' object at 0x' in sig else sig

def only_imports(code):
    try: body = ast.parse(code).body
    except SyntaxError: return False
    def imports(o):
        return isinstance(o, (ast.Import,ast.ImportFrom)) or (isinstance(o, ast.Try)
            and all(map(imports, [*o.body, *(s for h in o.handlers for s in h.body)])))
    return bool(body) and all(map(imports, body))

def entry(text, module, names):
    "nbdev's `show_doc` as heading, links and signature: `(markdown, signature)`"
    name = re.search(r'^### (.*)$', text, re.M)[1].strip()
    title = name.replace('__', r'\_\_')
    sig = re.search(r'```python\n(.*?)\n```', text, re.S)
    doc = text[sig.end():].strip() if sig else ''
    sig = sig[1].replace(':NoneType=', '=').replace('__main__.', '') if sig else ''
    sig = re.sub(r'\n(?![ )@#]|def |class |async )', '\n# ', sig) # what a comment on two lines goes on with
    doc = re.sub(r'\A\*(.+)\*\n((?:\S.*\n?)+)', lambda m: f"*{m[1]} {' '.join(m[2].split())}*\n", doc) # so a docstring
    links = [f'[reference](#ulmfit_nb.{module}.{name})'] if name in names else []
    if line := source_line(module, name): links.append(f'<a href="source/{module}.html#L-{line}">source</a>')
    return name,f'### {title}\n\n{{.entry}}\n{" · ".join(links)}\n',doc,sig

def source_line(module, name):
    "The line of the module at which `name` is defined; `None` where it isn't"
    from nbdev.doclinks import _get_exps
    return _get_exps(f'ulmfit_nb/{module}.py').get(name) if module else None

def local_links(text, names):
    "Links to notebooks, to files of the repository, and those that nbdev made, as links to pages of the site"
    def symbol(m):
        page,name = m[2],re.sub(r'\W+$', '', m[1])
        heading = f'{page}.ipynb#{slug(name)}' if name in names.get(page, ()) else ''
        return f'[`{m[1]}`]({heading})' if heading else f'`{m[1]}`'
    # nbdev makes links of names that stand in a link already
    text = re.sub(r'\[\[(`[^`]+`)\]\([^)]*\)\]', r'[\1]', text)
    # and of those in headings
    text = re.sub(r'^#+ .*', lambda m: re.sub(r'\[(`[^`]+`)\]\([^)]*\)', r'\1', m[0]), text, flags=re.M)
    text = re.sub(r'\[`([^`]+)`\]\(/*(?:\w+/)*(\w+)\.html#[\w.]*\)', symbol, text)
    text = re.sub(r'\]\((?:[\w./]*/)?([\w-]+)\.ipynb(#[\w.-]*)?\)', lambda m: f']({page_name(m[1])}.ipynb{m[2] or ""})',
        text)
    return re.sub(r'!\[([^]]*)\]\([./]*docs/ulmfit\.svg\)', lambda m: draw.figure(draw.stages, ''), text)

measured_on = dict(sst2='film reviews, a sentence each', sentences='reviews, a sentence each',
    products='product reviews, a sentence each', editorials='editorials, a sentence each', tweets='tweets, their mood',
    trec='questions', sms='text messages, spam or not', spam='mails, spam or not', imdb='long film reviews',
    germeval='German tweets', nsmc='Korean film reviews', chinese='Chinese reviews')

def results():
    "A table of what was measured with few labels, where it wins and where not, and a sentence that counts"
    import pandas as pd
    from ulmfit_nb.measurements import beside_rival, measured
    won = pd.concat([beside_rival(measured(o)) for o in ('second_opinion','elsewhere')])
    def cell(at):
        if at not in won.index: return ''
        a,b = (f'{won.loc[at, o]:.1f}' for o in ('rival','default'))
        return f'**{a}** · {b}' if float(a)>float(b) else f'{a} · **{b}**' if a!=b else f'{a} · {b}'
    ns = sorted(won.index.unique('n'))
    lines = [f"| texts | {' | '.join(f'{n:,} labels' for n in ns)} |", '|---'*(1+len(ns))+'|',
        *(f"| {name} | {' | '.join(cell((k,n)) for n in ns)} |" for k,name in measured_on.items())]
    said = (f'{len(won)} comparisons: {won.gain.mean():+.1f} points on average, ahead in {(won.gain>0).sum()}, '
        f'the worst {won.gain.min():+.1f}.').replace('-', '−')
    return '\n'.join([said, '', *lines])

def run_line(path):
    "How to run the notebook `path`"
    at,where = path.relative_to(root).as_posix(),'[upload it to Colab](https://colab.research.google.com/#upload)'
    if repository:
        name = repository.removeprefix('https://github.com/')
        where = (f'open it in [Colab](https://colab.research.google.com/github/{name}/blob/main/{at}), '
            f'[Kaggle](https://kaggle.com/kernels/welcome?src={repository}/blob/main/{at}) or '
            f'[Binder](https://mybinder.org/v2/gh/{name}/main?labpath={quote(at, safe="")})')
    return (f'{{.run}}\n**Run this notebook:** <a href="notebooks/{path.name}" download>download it</a>, {where}, or '
        '[read how](run.md).\n')

def is_show(cell):
    return cell['cell_type']=='code' and directives(''.join(cell['source']))[1].startswith('show_doc(') and cell[
        'outputs']

def show_name(cell): return ''.join(cell['outputs'][0]['data']['text/markdown'])

def fold(cell, label):
    return dict(cell, metadata=dict(cell['metadata'], tags=['hide-input'],
        mystnb=dict(code_prompt_show=label, code_prompt_hide=label)))

def page(path, nb, names, heads, boxes):
    "The notebook `path`, processed to `nb`, as the notebook that MyST-NB reads"
    front,*cells = nb['cells']
    front = ''.join(front['source'])
    import yaml
    meta = yaml.safe_load(front.strip().strip('-'))
    name = page_name(path)
    module = name if (root/'ulmfit_nb'/f'{name}.py').exists() else None
    title = 'First steps' if name=='start' else meta['title']
    new = [md(f"# {title}\n\n{{.lead}}\n{meta.get('description','')}\n\n{run_line(path)}")]
    def drawn(source):
        return [md(draw.figure(f, t)) for f,t,h in draw.pictures.get(name, ())
            if (source.startswith(f'## {h}\n') if h else source=='')]
    new += drawn('')
    if name in live.places and (box := boxes[live.places[name]]): new.append(md(live.raw(box)))
    shows = [entry(show_name(c), module, names) for c in cells if is_show(c)]
    shows = {o[0]:o[1:] for o in shows if o[0][0]!='_'}
    for c in cells:
        source = ''.join(c['source'])
        if c['cell_type']!='code':
            if source.startswith('<!-- WARNING'): continue
            new += [md(local_links(source, heads)), *drawn(source)]
            continue
        flags,code = directives(source)
        if is_show(c): continue
        cell = dict(cell_type='code', metadata={}, source=code, outputs=c['outputs'], execution_count=None, id=c['id'])
        if 'exports' in flags:
            if only_imports(code): continue
            n,docs = len(code.splitlines()),[(h,d,header(code, o, s)) for o in defined(code) if o in shows for h,d,
                s in [shows[o]]]
            if len(docs)==1 and not folded(c): new.append(md(docs[0][0]))
            else: new += [md(f'{h}\n{local_links(d, heads)}\n\n```python\n{s}\n```') for h,d,s in docs]
        if folded(c):
            picture = any('image/png' in o.get('data', {}) for o in c['outputs']) and 'exports' not in flags
            cell = fold(cell, 'The code of this picture' if picture else 'The imports' if only_imports(code)
                else f'The code, {len(code.splitlines())} lines')
        if flags.get('echo')=='false': cell['metadata']['tags'] = ['remove-input']
        # figures are stored at twice their size, for sharp screens
        if pngs := [''.join(p) for o in c['outputs'] if (p := o.get('data', {}).get('image/png'))]:
            width = int.from_bytes(base64.b64decode(pngs[0][:32])[16:20])//2
            cell['metadata'].setdefault('mystnb', {})['image'] = dict(alt=flags.get('fig-alt', ''), width=f'{width}px')
        new.append(cell)
    new += around(name)
    for i,c in enumerate(new): c['id'] = f'c{i}'
    return dict(nb, cells=new, metadata=dict(kernelspec=nb['metadata']['kernelspec']), nbformat=4, nbformat_minor=5)

def around(name):
    "What the site adds to a chapter: questions with folded answers (a line, then one that begins with a colon)"
    path = here/'questions'/f'{name}.md'
    if not path.exists(): return []
    folded = re.sub(r'^(.+)\n: (.+)$', r':::{dropdown} \1\n:class-container: question\n\n\2\n:::',
        path.read_text(encoding='utf8'), flags=re.M)
    return [md(f'## Questions\n\nTry to answer before you look.\n\n{folded}')]

def headings(nb):
    "The names that a processed notebook has an entry for"
    return {entry(show_name(c), None, ())[0] for c in nb['cells'] if is_show(c)}

def sources():
    """A page per module with its highlighted source, a target at every line (Sphinx's viewcode knows no methods that
    `@patch` adds, and we have many)"""
    from pygments import highlight
    from pygments.lexers import PythonLexer
    from pygments.formatters import HtmlFormatter
    fmt = HtmlFormatter(lineanchors='L', linenos='inline', anchorlinenos=True, wrapcode=True)
    for p in sorted((root/'ulmfit_nb').glob('[!_]*.py')):
        code = highlight(p.read_text(encoding='utf8'), PythonLexer(), fmt)
        write(src/'source'/f'{p.stem}.md', '---\norphan: true\nno-search: true\n---\n# Source of '
            f'`ulmfit_nb.{p.stem}`\n\n````{{raw}} html\n{code}````\n')

def build_pages(model):
    import api, cards
    boxes = live.make(out/'extra'/'live', model)
    nbs = processed()
    names = {k:set(api.entries(k)) for k in api.modules}
    # `predict` in a text is a learner's method, which nbdev takes for the command of that name
    methods = {o.split('.')[1] for k in names.values() for o in k if '.' in o}
    heads = {page_name(k):headings(nb)-methods for k,nb in nbs.items()}
    made,at = {'index.md'},{o.name:o for o in notebooks()}
    for name,nb in nbs.items():
        made_of = page(at[name], nb, names.get(page_name(name), ()), heads, boxes)
        write(src/f'{page_name(name)}.ipynb', json.dumps(made_of, ensure_ascii=False, indent=1))
        made.add(f'{page_name(name)}.ipynb')
        write(out/'extra'/'notebooks'/name, at[name].read_text(encoding='utf8'))
    for k in api.modules: write(src/'api'/f'{k}.md', api.page(k))
    sources()
    for p in here.glob('[!im]*.md'):
        write(src/p.name, p.read_text(encoding='utf8').replace('https://github.com/OWNER/REPOSITORY',
            repository or 'https://github.com/OWNER/REPOSITORY'))
    index = (here/'index.md').read_text(encoding='utf8')
    index = index.replace('<!-- stages -->', draw.figure(draw.stages, 'The road in one picture.'))
    shown = (''.join(o.get('data', {}).get('text/html', '')) for c in nbs.get('09_interpret.ipynb', {}).get('cells', ())
        for o in c.get('outputs', ()))
    # the first coloured sentence of that chapter
    share = next((o for o in shown if o.startswith('<div style="color:#111')), '')
    index = index.replace('<!-- attribution -->', f'```{{raw}} html\n{share}\n```' if share else '')
    index = index.replace('<!-- live -->', live.raw(boxes['classifier'])).replace('<!-- results -->', results())
    models = cards.cards(root/'ulmfit_nb'/'data'/'pretrained')
    for k,v in models.items(): write(src/'models'/f'{k}.md', v)
    write(src/'models.md', (here/'models.md').read_text(encoding='utf8').replace('<!-- models -->',
        cards.listing(models)))
    lists = {'api':api.modules, 'models':list(models)}
    # in the front page `api/*` stands for the reference pages, `models/*` for the model cards
    for d,pages in lists.items():
        # by a name that is short enough for the list
        index = index.replace(f'{d}/*', '\n'.join(f'{k} <{d}/{k}>' for k in pages))
        for p in (src/d).glob('*.md'):
            if p.stem not in pages: p.unlink()
    there = {'genindex','changelog',*(o.partition('.')[0] for o in made),*(o.stem for o in here.glob('*.md')),
        *(f'{d}/{k}' for d,ks in lists.items() for k in ks)}
    def listed(m):
        # a notebook may be announced before it is written
        return '\n'.join(l for l in m[0].splitlines() if not re.fullmatch(r'[\w/]+', l) or l in there)
    write(src/'index.md', re.sub(r'```\{toctree\}.*?```', listed, index, flags=re.S))
    write(src/'changelog.md', (root/'CHANGELOG.md').read_text(encoding='utf8'))
    kept = made | {p.name for p in here.glob('*.md')} | {'changelog.md'}
    for p in src.glob('*.*'):
        if p.name not in kept: p.unlink()

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--clean', action='store_true', help='Forget what an earlier build made')
    p.add_argument('--live', default='imdb-sentiment', help='A classifier for the boxes in which readers type, by '
        'default the one that comes with the package; a page without one has a picture there')
    args = p.parse_args()
    os.chdir(root)
    sys.path.insert(0, str(root))
    with alone(here/'.build.lock'): build(args)

def build(args):
    if args.clean: shutil.rmtree(out, ignore_errors=True); shutil.rmtree(root/'_proc', ignore_errors=True)
    src.mkdir(parents=True, exist_ok=True)
    build_pages(args.live)
    r = subprocess.run([sys.executable,'-m','sphinx','-W','--keep-going','-q','-j','auto','-b','html','-c',str(here),
        '-d',str(out/'doctrees'),str(src),str(fresh)])
    if r.returncode: sys.exit(r.returncode)
    pages = {o.relative_to(src).with_suffix('').as_posix() for o in src.rglob('*.*')} | {'genindex','search'}
    for o in fresh.rglob('*.html*'): # what an earlier build made of a page that is gone
        gone = o.relative_to(fresh).as_posix().split('.html')[0] not in pages
        if gone and not {'_static','live'}&set(o.parts): o.unlink()
    import machines
    machines.main(src, fresh)
    publish(fresh, html)
    print(f'{len(list(html.rglob("*.html")))} pages in {html.relative_to(root)}: open index.html')

if __name__=='__main__': main()
