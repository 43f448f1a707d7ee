"The wheel that people install holds every module, the data, the requirements and the command"
import email, json, os, shutil, subprocess, sys, tarfile, zipfile
import pytest
from packaging.requirements import Requirement
from conftest import root
from test_project import settings

@pytest.fixture(scope='module')
def src(tmp_path_factory):
    "A copy of the project, in which a measurement has left a model and its locks beside its log"
    src = tmp_path_factory.mktemp('src')/'ulmfit-nb'
    left_out = shutil.ignore_patterns('.git', '.venv*', '.whl*', 'build', '_build', '_proc', 'dist',
        '*.egg-info', '__pycache__', '.pytest_cache', '.hypothesis', 'models')
    shutil.copytree(root, src, ignore=left_out)
    for o in ('a_run','a_run.locks'): (src/'nbs'/'logs'/o).mkdir()
    (src/'nbs'/'logs'/'a_run'/'weights.safetensors').write_bytes(b'many')
    return src

def sh(*args, **kw):
    r = subprocess.run(args, capture_output=True, text=True, **kw)
    assert r.returncode==0, f"{' '.join(map(str,args))}\n{r.stdout[-3000:]}\n{r.stderr[-3000:]}"
    return r.stdout

@pytest.fixture(scope='module')
def dist(src, tmp_path_factory):
    "A folder with the sdist, and the wheel that is built from it"
    out = tmp_path_factory.mktemp('dist')
    sh(sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, src)
    return out

@pytest.fixture(scope='module')
def wheel(dist):
    whl, = dist.glob('*.whl')
    return whl

def read(wheel, name):
    with zipfile.ZipFile(wheel) as z:
        return next(z.read(o).decode() for o in z.namelist() if o.endswith(f'.dist-info/{name}'))

def test_metadata(wheel):
    cfg,meta = settings(),email.message_from_string(read(wheel, 'METADATA'))
    want = {(str(Requirement(o)),None) for o in cfg['requirements'].split()}
    extras = {k.removesuffix('_requirements') for k in cfg if k.endswith('_requirements')}
    for e in extras: want |= {(str(Requirement(o)),f'extra == "{e}"') for o in cfg[f'{e}_requirements'].split()}
    got = [Requirement(o) for o in meta.get_all('Requires-Dist')]
    def plain(r):
        marker,r.marker = r.marker,None
        return str(r),str(marker) if marker else None
    assert {plain(o) for o in got}==want
    assert set(meta.get_all('Provides-Extra'))==extras
    assert meta['Name']==cfg['lib_name'] and meta['Version']==cfg['version'] and meta['Summary']==cfg['description']
    assert meta['License-Expression']=='Apache-2.0' and set(meta.get_all('License-File'))=={'LICENSE','NOTICE'}
    assert meta['Requires-Python']==f">={cfg['min_python']}"
    assert meta['Description-Content-Type'].startswith('text/markdown')
    assert meta.get_payload().strip()==(root/'README.md').read_text(encoding='utf8').strip()

def test_entry_points(wheel):
    lines = read(wheel, 'entry_points.txt').split('\n')
    assert 'ulmfit = ulmfit_nb.cli:main' in lines
    assert 'ulmfit_nb = ulmfit_nb._modidx:d' in lines

def test_wheel_holds_the_package_alone(wheel):
    with zipfile.ZipFile(wheel) as z: names = {o for o in z.namelist() if '.dist-info/' not in o}
    here = {o.relative_to(root).as_posix() for o in (root/'ulmfit_nb').rglob('*') if o.is_file()
        and '__pycache__' not in o.parts}
    logs = {f"ulmfit_nb/data/logs/{o.relative_to(root/'nbs'/'logs').as_posix()}" for o in
        (root/'nbs'/'logs').rglob('*.jsonl')}
    assert names==here|logs and len(logs)>5
    assert 'ulmfit_nb/data/sentences.jsonl.xz' in names

def test_only_logs_come_from_beside_the_notebooks(dist, src, tmp_path):
    "Built from a checkout directly, as `pip install .` does: a sdist leaves them out beforehand"
    sh(sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', tmp_path, cwd=src)
    got = {o.relative_to(tmp_path/'ulmfit_nb'/'data'/'logs') for o in (tmp_path/'ulmfit_nb'/'data'/'logs').rglob('*')}
    logs = root/'nbs'/'logs'
    assert {o for o in got if o.suffix}=={o.relative_to(logs) for o in logs.rglob('*.jsonl')}

def test_sdist_can_be_tested(dist):
    sdist, = dist.glob('*.tar.gz')
    with tarfile.open(sdist) as t: names = {o.split('/',1)[1] for o in t.getnames() if '/' in o}
    for o in ('settings.ini','setup.py','constraints.txt','Makefile','LICENSE','NOTICE','nbs/book/00_texts.ipynb',
        'tests/conftest.py','tests/test_texts.py','tools/readme.py','tools/check.py','experiments/runs.py',
        'experiments/README.md','nbs/logs/few_labels.jsonl','.github/workflows/test.yaml',
        '.github/ISSUE_TEMPLATE/bug.yml','.github/pull_request_template.md','.pre-commit-config.yaml',
        'environment.yml','docs/releasing.md'):
        assert o in names, o

use = '''
import importlib, pkgutil, sys
from pathlib import Path
here = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(here))
import ulmfit_nb
names = [o.name for o in pkgutil.walk_packages(ulmfit_nb.__path__, 'ulmfit_nb.')]
for o in names:
    if o.endswith('.__main__'): continue # to import it is to run it
    m = importlib.import_module(o)
    assert Path(m.__file__).resolve().is_relative_to(here), m.__file__
from ulmfit_nb.texts import sentences
assert len(sentences())==3000
from ulmfit_nb.measurements import measured
assert len(measured('few_labels'))>50 and (here/'ulmfit_nb'/'data'/'logs'/'few_labels.jsonl').exists()
print(*names)
'''

def test_installed_wheel_works_elsewhere(wheel, tmp_path):
    site,cwd = tmp_path/'site',tmp_path/'elsewhere'
    cwd.mkdir()
    sh(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', site, wheel)
    env = {k:v for k,v in os.environ.items() if k!='PYTHONPATH'}
    names = sh(sys.executable, '-c', use, site, cwd=cwd, env=env).split()
    assert {o.split('.')[1] for o in names}=={o.stem for o in (root/'ulmfit_nb').glob('*.py')}-{'__init__'}
    assert (site/'bin'/'ulmfit').exists() or (site/'Scripts'/'ulmfit.exe').exists()

def test_pretrained_pair_is_small(wheel):
    "Forwards and backwards together take 12 MB of the wheel at most, and each has its card"
    with zipfile.ZipFile(wheel) as z:
        files = [o for o in z.infolist() if '/pretrained/' in o.filename]
        cards = [json.loads(z.read(o))['card'] for o in files if o.filename.endswith('model.json')]
    assert sum(o.compress_size for o in files)<=12_000_000
    assert sorted(o['direction'] for o in cards)==['backwards',
        'forwards'] and all(o['licence'] and o['data'] and len(o['samples'])>1 for o in cards)
    losses = [o['results']['as stored'][k]['loss'] for k in ('articles kept aside','WikiText-103 valid','WikiText-103 '
        'test') for o in cards]
    assert max(losses)<4.5, losses
    read = [o['pretraining']['tokens'] for o in cards]
    if max(read)<1.1*min(read): # the two directions guess about equally well, if they have read as much
        assert all(abs(a-b)<.1 for a,b in zip(losses[::2], losses[1::2])), losses

offline = '''
import socket, sys
def no(*a, **k): raise OSError('no network here')
socket.socket.connect = socket.create_connection = socket.getaddrinfo = no
sys.path.insert(0, sys.argv[1])
from ulmfit_nb.all import *
from pathlib import Path
df = sentences().sample(300, random_state=1).reset_index(drop=True)
for back in (False, True):
    how = dict(text_col='text', valid_pct=.2, bs=4, seed=1, backwards=back)
    dls = TextDataLoaders.from_df(df, is_lm=True, seq_len=10, **how)
    learn = language_model_learner(dls, AWD_LSTM)
    blank = language_model_learner(dls, AWD_LSTM, config=learn.spec['config'], pretrained=False)
    assert Path(find_pretrained(default_pretrained, back)).is_relative_to(Path(sys.argv[1]).resolve())
    with learn.no_bar(), blank.no_bar(): print(learn.validate()[0], blank.validate()[0])
    clas = text_classifier_learner(TextDataLoaders.from_df(df, label_col='label', **how), AWD_LSTM)
    row = clas.encoder.encoder.weight[clas.vocab.index('food')]
    want = learn.encoder.encoder.weight[learn.vocab.index('food')]
    assert torch.equal(row, want)
'''

def test_default_model_of_the_installed_wheel(wheel, tmp_path):
    "Without a network, and with no model anywhere else, learners of both directions start from the model in the wheel"
    site,cwd = tmp_path/'site',tmp_path/'elsewhere'
    cwd.mkdir()
    sh(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', site, wheel)
    env = {k:v for k,v in os.environ.items() if k!='PYTHONPATH'} | dict(ULMFIT_HOME=str(tmp_path/'home'))
    out = sh(sys.executable, '-W', 'ignore', '-c', offline, site, cwd=cwd, env=env).split('\n')
    losses = [tuple(map(float, o.split())) for o in out if o.strip()]
    assert len(losses)==2 and all(a<b-1 for a,b in losses), losses
