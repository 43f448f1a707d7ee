"Every block of code on README, the landing page and the site's own pages runs, and prints what the page shows"
import json, os, re, subprocess, sys
import pytest
from conftest import root

pages = [root/'README.md', *sorted((root/'docs').glob('*.md'))]

def blocks(path):
    "`(language, text)` of each fenced block of a page; those of Sphinx have a directive in braces"
    return re.findall(r'^```([^\n`]*)\n(.*?)^```$', path.read_text(encoding='utf8'), re.M|re.S)

def with_code(lang): return [o for o in pages if any(l==lang for l,_ in blocks(o))]

def test_no_other_kinds_of_blocks():
    "A new language of code would be run by nothing here"
    for path in pages:
        kinds = [l for l,_ in blocks(path)]
        assert {o for o in kinds if not o.startswith('{')} <= {'python','bash',''}, path
        assert all(i and kinds[i-1] in ('python','bash') for i,
            o in enumerate(kinds) if o==''), f'{path}: output without code'

# What a page shows is what was printed

def line_matches(want, got, tol=.06):
    "The same words, whole numbers and times of day apart from the clock; other numbers as near as another processor's"
    number = r'-?\d+\.\d+(?:e[+-]?\d+)?'
    a,b = (re.sub(r'\b\d\d:\d\d\b', '00:00', re.sub(number, '#', o)).split() for o in (want,got))
    return a==b and all(abs(float(x)-float(y))<=tol for x,y in zip(re.findall(number, want), re.findall(number, got)))

def differs(shown, printed):
    "The first line of `shown` that isn't in `printed`, in this order; `…` stands for lines that are left out"
    rest = iter(printed.splitlines())
    return next((o for o in shown.splitlines() if o.strip() not in ('','…')
        and not any(line_matches(o, p) for p in rest)), None)

def test_differences_are_seen():
    shown = 'epoch  loss\n…\n4  0.20  00:16\n(\'positive\', tensor([0.28, 0.72]))\n'
    assert differs("tensor([9.9e-05, 0.9999])", "tensor([1.3e-04, 0.9998])") is None
    assert differs("tensor([9.9e-05, 0.9999])", "tensor([1.3e-01, 0.8700])")
    assert differs(shown, 'epoch loss\n3 0.3 00:15\n4 0.21 00:17\n(\'positive\', tensor([0.30, 0.70]))\n') is None
    for a,b in (('positive','negative'), ('0.72','0.92'), ('4  ','5  '), ('epoch','epochs')):
        assert differs(shown, shown.replace(a, b, 1))

# Python: a page's blocks are one session, as in a notebook

session = r'''
import ast, contextlib, io, json, re, sys
from IPython.lib.pretty import pretty
space,res = {'__name__':'page'},[]
for code in json.load(open(sys.argv[1])):
    pip = r'import subprocess; subprocess.run(["pip", *"\1".split()], check=True)'
    code = re.sub(r'^%pip (.*)$', pip, code, flags=re.M)
    body,out = ast.parse(code).body,io.StringIO()
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(out):
        exec(compile(ast.Module(body, []), 'page', 'exec'), space)
        shown = last and eval(compile(ast.Expression(last.value), 'page', 'eval'), space)
        if shown is not None: print(pretty(shown))
    res.append(out.getvalue())
json.dump(res, open(sys.argv[2], 'w'))
'''

@pytest.mark.parametrize('path', with_code('python'), ids=lambda o: o.name)
def test_python_prints_what_the_page_shows(path, tmp_path, shell):
    code,shown = [],[]
    for lang,text in blocks(path):
        if lang=='python': code.append(text); shown.append('')
        elif lang=='' and code: shown[-1] = text
    (tmp_path/'code.json').write_text(json.dumps(code))
    r = subprocess.run([sys.executable, '-c', session, 'code.json', 'out.json'], cwd=tmp_path, env=shell,
        capture_output=True, text=True)
    assert r.returncode==0, r.stderr[-3000:]
    for c,want,got in zip(code, shown, json.loads((tmp_path/'out.json').read_text())):
        if 'lm.predict(' in c: # another processor's rounding makes other words of it
            assert want.split()[:3]==got.split()[:3]=='The food was'.split() and 8<len(got.split())<40
        else: assert not (o := differs(want, got)), f'{path.name} shows {o!r}, but here came\n{got}'

# The shell: with the reader's files, but without a network, an environment to make, or hours of time. What the demo
# does is looked at by tests/test_cli.py

stand_ins = {
    'make': 'exec /usr/bin/env -S PATH="$REAL_PATH" make -n -C "$ROOT" VENV="$PWD/.venv" "$@"', # are the targets there?
    'python3': 'test "$1 $2 $3" = "-m venv .venv" && mkdir -p .venv/bin && touch .venv/bin/activate',
    'pip': 'test "$1" = install; for o in "$@"; do case "$o" in *.txt) test -f "$o";; .) test -f setup.py;; esac; '
    'done; echo "pip $*"',
    'jupyter': 'test -d "$2"',
    'ulmfit': 'case "$1" in demo) set -- demo --help;; train) set -- "$@" --size tiny --pretrained '
    'none --lm-epochs 1 --clas-epochs 1,0,0,1 --bs 16;; esac; exec "$PYTHON" -m ulmfit_nb "$@"'}

@pytest.fixture
def shell(tmp_path):
    "The environment in which the pages' commands are found, in a folder that looks like a checkout"
    import pandas as pd
    from ulmfit_nb.texts import sentences
    df = sentences().sample(80, random_state=0)
    pd.DataFrame({'review':df.text, 'stars':(df.label=='positive')*4+1}).to_csv(tmp_path/'reviews.csv', index=False)
    for o in ('constraints.txt','setup.py','nbs'): (tmp_path/o).symlink_to(root/o)
    for folder in (tmp_path/'bin', tmp_path/'.venv'/'bin'):
        folder.mkdir(parents=True)
        for name,code in stand_ins.items():
            (folder/name).write_text(f'#!/bin/sh\nset -e\n{code}\n')
            (folder/name).chmod(0o755)
    return os.environ | dict(PATH=f"{tmp_path/'bin'}:{os.environ['PATH']}", REAL_PATH=os.environ['PATH'],
        ROOT=str(root), PYTHON=sys.executable, PYTHONPATH=str(root), OMP_NUM_THREADS='1')

@pytest.mark.parametrize('path', with_code('bash'), ids=lambda o: o.name)
def test_commands_run(path, tmp_path, shell):
    page = blocks(path)
    for i,(lang,text) in enumerate(page):
        if lang!='bash': continue
        r = subprocess.run(['bash', '-e', '-o', 'pipefail', '-c', text], cwd=tmp_path, env=shell, capture_output=True,
            text=True)
        assert r.returncode==0, f'{text}\n{r.stdout[-1500:]}\n{r.stderr[-3000:]}'
        if 'ulmfit predict' in text:
            assert re.fullmatch(r'[15]\t[01]\.\d{4}\tIt was worth every minute\.', r.stdout.strip().splitlines()[-1])
        if i+1<len(page) and page[i+1][0]=='': assert not differs(page[i+1][1], r.stdout)
