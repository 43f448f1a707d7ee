"Every notebook runs, is clean, shows its results, and exports to the modules that are there"
import json, os, re, shutil, subprocess, sys
from pathlib import Path
import pytest
from conftest import find_data, notebooks, root
from forks import forked

nbs = notebooks()
skip_flags = ['slow', 'data', 'cuda']

def run_nb(path, skip=skip_flags, seconds=1200, **more):
    "Exit status of a process that ran `path` in the notebook's folder, and what it said"
    # the environment isn't activated: a kernel's PATH need not have its commands
    commands = os.path.realpath(os.path.dirname(sys.executable))
    places = [o for o in os.environ['PATH'].split(os.pathsep) if os.path.realpath(o)!=commands]
    env = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg', PATH=os.pathsep.join(places))
    if imdb := find_data('imdb'):
        env.setdefault('ULMFIT_IMDB', str(imdb)) # pages that use real reviews take them where they are found
    return forked(dict(path=str(path.absolute()), skip=skip, env=env|more), seconds)

each = pytest.mark.parametrize('path', nbs, ids=lambda o: o.stem)

@each
def test_runs(path):
    status,said = run_nb(path)
    assert status==0, f'{path.name} fails:\n{said[-10000:]}'

@pytest.mark.slow
def test_benchmarks_measure(tmp_path):
    "All of the page, on bundled sentences, and it writes what it measured"
    path = next(o for o in nbs if o.stem=='benchmarks')
    status,said = run_nb(path, ['slow','cuda'], ULMFIT_IMDB='', ULMFIT_BENCHMARKS_OUT=str(tmp_path/'out.jsonl'))
    assert status==0, said[-10000:]
    rows = [json.loads(o) for o in (tmp_path/'out.jsonl').read_text().splitlines()]
    assert len(rows)==7 and all(o['times']>0 for o in rows)

def test_a_notebook_that_fails_is_seen(tmp_path):
    "What `test_runs` relies on: an assertion that fails, fails; a cell with a flag is not run; a page may not hang"
    meta = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    def cell(src): return dict(cell_type='code', metadata={}, outputs=[], execution_count=None, source=src)
    def nb(*srcs): return dict(cells=[cell(o) for o in srcs], metadata=meta, nbformat=4, nbformat_minor=4)
    for name,n,want in (('bad',1,1),('good',2,0)):
        (tmp_path/f'{name}.ipynb').write_text(json.dumps(nb('a = 2', f'assert a=={n}', '#| slow\nassert False')))
        assert run_nb(tmp_path/f'{name}.ipynb')[0]==want
    (tmp_path/'long.ipynb').write_text(json.dumps(nb('import time', 'time.sleep(99)')))
    assert 'still running' in run_nb(tmp_path/'long.ipynb', seconds=1)[0]
    assert run_nb(tmp_path/'good.ipynb')[0]==0

@each
def test_leads_with_a_result(path):
    "An output, a table or a drawing comes before much is explained, and before a function is defined"
    said = 0
    for c in json.loads(path.read_text(encoding='utf8'))['cells']:
        text = ''.join(c['source'])
        if c['cell_type']=='markdown':
            if '|---' in text or '<svg' in text: break
            said += 0 if text.startswith('# ') else len(text)
        elif '#| export' in text:
            assert not re.search(r'^(class|def) ', text, re.M), f'defines before it shows: {text[:80]}'
        elif c['outputs'] and '#| hide' not in text: break
    else: raise AssertionError('shows nothing')
    assert said<=850, f'{said} characters of explanation come before the first result'

@each
def test_shows_results(path):
    nb = json.loads(path.read_text(encoding='utf8'))
    assert all(''.join(c['source']).strip() for c in nb['cells']), f'{path.name} has an empty cell'
    code = [c for c in nb['cells'] if c['cell_type']=='code']
    outs = [o for c in code for o in c['outputs']]
    n,shows = len(code),bool(outs)
    assert shows or n==0, f'{path.name} has {n} code cells and no stored output: make nbs NB={path.stem}'
    assert not [o for o in outs if o['output_type']=='error'], f'{path.name} stores an error'
    shown = json.dumps([o for o in outs])
    for word in ('Traceback (most recent', 'Warning: ', 'site-packages', '/tmp/', '/home/'):
        assert word not in shown, f'{path.name} shows {word!r}'

@pytest.fixture(scope='session')
def copy(tmp_path_factory):
    "A copy of what nbdev reads and writes"
    to = tmp_path_factory.mktemp('copy')
    for o in ('pyproject.toml', 'settings.ini', 'nbs', 'ulmfit_nb'):
        if (root/o).is_dir(): shutil.copytree(root/o, to/o, ignore=shutil.ignore_patterns('__pycache__', '.*'))
        else: shutil.copy(root/o, to/o)
    return to

def nbdev(module, cmd, cwd):
    r = subprocess.run([sys.executable, '-c', f'from nbdev.{module} import {cmd} as f; f()'], cwd=cwd,
        capture_output=True, text=True)
    assert r.returncode==0, r.stderr

def test_clean(copy):
    nbdev('clean', 'nbdev_clean', copy)
    assert not [o.name for o in nbs
        if o.read_bytes()!=(copy/o.relative_to(root)).read_bytes()], 'not clean: run nbdev-clean'

def test_export_is_current(copy):
    def modules(at): return {o.name:o.read_text(encoding='utf8') for o in sorted((at/'ulmfit_nb').glob('*.py'))}
    for o,text in modules(copy).items():
        if 'autogenerated' in text[:500].lower():
            (copy/'ulmfit_nb'/o).unlink() # one that no notebook makes is found too
    nbdev('doclinks', 'nbdev_export', copy)
    here,made = modules(root),modules(copy)
    differ = sorted(o for o in here.keys()|made.keys() if here.get(o)!=made.get(o))
    assert not differ, 'not what the notebooks export: run make export'
