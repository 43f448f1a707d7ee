"""What happens to a computer, and what strangers send: processes are killed anywhere, bits flip in every kind of file,
disks are full, and folders are made to do harm. By default a few of each; with `--slow` all of `experiments/faults.py`:
200 kills, 1,000 flips, 300 hostile folders"""
import json, os, random, shutil, signal, subprocess, sys, time, warnings
from importlib.util import find_spec
from pathlib import Path
import pytest
from conftest import root, script
from hostile import flips, hostile, make_cases, same, try_hostile, verdict
from ulmfit_nb.all import default_pretrained, find_pretrained, sentences
from ulmfit_nb.files import read_json

def env(): return os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(root), MPLBACKEND='Agg', COLUMNS='120')

# ---- kills

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='kills forked processes')
def test_kills(tmp_path):
    "A save leaves the old or the new, a training goes on; nothing is left behind"
    args = 5,1,tmp_path,'any','train','save','export','tokenize','predict'
    r = subprocess.run([sys.executable, str(root/'tests'/'faulty.py'), *map(str, args)], capture_output=True, text=True,
        env=env())
    assert r.returncode==0, r.stderr[-3000:]
    for k,v in json.loads(r.stdout.splitlines()[-1]).items():
        assert v['died'] and not any(v[o] for o in ('stuck','different','lost','left')), (k,v,r.stderr[-3000:])

def runs(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]!='Z'
    except OSError: return False

@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='looks at processes as Linux shows them')
def test_workers_end_with_who_started_them(tmp_path):
    "They would wait for work without end, and keep their memory"
    (tmp_path/'spacy.py').touch() # they import it first
    (tmp_path/'a.py').write_text('''
import multiprocessing, time
from ulmfit_nb.parallel import run_chunks
def texts():
    yield from 'abc'
    print(*[o.pid for o in multiprocessing.active_children()], flush=True)
    time.sleep(600)
if __name__=='__main__': list(run_chunks(len, texts(), 2, chunk_sz=1))
''')
    more = dict(PYTHONPATH=f'{root}{os.pathsep}{tmp_path}')
    with subprocess.Popen([sys.executable, str(tmp_path/'a.py')], stdout=subprocess.PIPE, text=True,
            env=env() | more) as p:
        workers = [int(o) for o in p.stdout.readline().split()]
        assert len(workers)==2 and all(map(runs, workers))
        p.kill()
    for _ in range(600):
        if not any(map(runs, workers)): return
        time.sleep(.1)
    for o in filter(runs, workers): os.kill(o, signal.SIGKILL)
    assert not workers

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_a_disk_that_is_full(tmp_path):
    "A line says so, what was there stays, and with space it goes on"
    code = 'import json; from full_disk import *\nwith small_disk(Path(sys.argv[1])/"disk") as d: ' \
        'print(json.dumps(fill_up("predict", 1, d)))'
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, str(tmp_path)], capture_output=True, text=True,
        env=env() | dict(PYTHONPATH=f"{root}{os.pathsep}{root/'tests'}"))
    if 'PermissionError: no disk' in r.stderr: pytest.skip('no disk can be mounted')
    assert r.returncode==0, r.stderr[-3000:]
    o = json.loads(r.stdout.splitlines()[-1])
    assert o['full'] and not any(o[k] for k in ('unclear','lost','different','stuck','left')), (o,r.stderr[-3000:])

@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='kills forked processes')
def test_the_long_harness(tmp_path):
    "All of `experiments/faults.py`; no figure of a failure is above 0"
    script('faults').main(['--out', str(tmp_path/'log.jsonl')])
    rows = [json.loads(o) for o in (tmp_path/'log.jsonl').read_text().splitlines()]
    total = {k:sum(o.get(k, 0) for o in rows) for k in ('died','flips','folders','forks')}
    assert total['died']>=200 and total['flips']>=1000 and total['folders']>=300 and total['forks']>=60
    bad = 'stuck','different','lost','wrong','code_run','unclear','slow','hung'
    assert not [o for o in rows if any(o.get(k) for k in bad)]
    assert all(o['ratio']<=12 and False not in o['same'] for o in rows if o['part']=='words')
    assert all(o['same'] and o['memory_mb']<1000 for o in rows if o['part']=='text')

@pytest.fixture(scope='module')
def cases(tmp_path_factory): return make_cases(tmp_path_factory.mktemp('cases'))

def test_a_copy_answers_the_same(cases, tmp_path):
    "What the others change is good before"
    for k,case in cases.items():
        shutil.copytree(case.folder, tmp_path/k)
        assert verdict(case, tmp_path/k)=='equal', k

@pytest.mark.filterwarnings('ignore')
def test_flips(cases, tmp_path):
    res = flips(cases, 60, 1, tmp_path)
    assert not res['wrong'] and res['refused']>30, res

@pytest.mark.filterwarnings('ignore')
def test_hostile_folders(cases, tmp_path):
    whole,more = hostile(cases)
    res,_ = try_hostile(cases, whole + random.Random(1).sample(more, 40), tmp_path)
    assert not res['code run'] and not res['unclear'] and res['refused']>=len(whole)-2, res

@pytest.mark.filterwarnings('ignore')
def test_two_words_in_each_others_place(cases, tmp_path):
    "Whatever holds a vocabulary, no other one is taken for it"
    seen = set()
    for k,case in cases.items():
        shutil.copytree(case.folder, tmp_path/k)
        for f in (tmp_path/k).rglob('*.json'):
            meta = json.loads(f.read_text(encoding='utf8'))
            if not isinstance(vocab := meta.get('vocab'), list): continue
            vocab[9],vocab[10] = vocab[10],vocab[9] # two words; the last ones may be fillers
            f.write_text(json.dumps(meta), encoding='utf8')
            seen.add(k)
        if k in seen: assert verdict(case, tmp_path/k)=='refused', k
    assert seen>={'export','corpus','estimator','lm'}

# ---- old folders

def test_a_folder_without_checksums_says_so_once(cases, tmp_path):
    "As 0.1.0 wrote it"
    shutil.copytree(cases['export'].folder, tmp_path/'old')
    meta = read_json(tmp_path/'old'/'model.json')
    meta = {k:v for k,v in meta.items() if k not in ('signed','contents')}
    (tmp_path/'old'/'model.json').write_text(json.dumps(meta))
    with pytest.warns(UserWarning, match='without a checksum of its own'):
        assert same(cases['export'].use(tmp_path/'old'), cases['export'].want)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        cases['export'].use(tmp_path/'old')

def test_bundled_models_are_signed():
    for b in (False,True):
        folder = find_pretrained(default_pretrained, b)
        assert read_json(folder/'model.json')['signed'] and read_json(folder/'model.json')['contents']

# ---- the command

def ulmfit(*args, **more):
    return subprocess.run([sys.executable, '-m', 'ulmfit_nb', *map(str, args)], capture_output=True, text=True,
        env=env() | more.pop('env', {}), **more)

def test_faults_of_the_command(cases, tmp_path, monkeypatch, capsys):
    "In this process, to save time: each is one line, and exit code 1"
    from ulmfit_nb import cli, cold_start
    def says(words, *args):
        with pytest.raises(SystemExit) as e: cli.main([*map(str, args)])
        err = capsys.readouterr().err.strip().splitlines()
        assert e.value.code==1 and err[-1].startswith('ulmfit: ') and words in err[-1] and 'Traceback' not in err, err
    import gzip, lzma
    text = sentences().head(100).to_csv(index=False).encode()
    for end,pack in dict(gz=gzip.compress, xz=lzma.compress).items():
        (tmp_path/f'd.csv.{end}').write_bytes(pack(text)[:-200])
        says('cut off', 'train', tmp_path/f'd.csv.{end}', '--out', tmp_path/'o')
    if find_spec('pyarrow'):
        sentences().head(100).to_parquet(tmp_path/'d.parquet')
        (tmp_path/'d.parquet').write_bytes((tmp_path/'d.parquet').read_bytes()[:-50])
        says('d.parquet', 'train', tmp_path/'d.parquet', '--out', tmp_path/'o')
    shutil.copytree(cases['estimator'].folder, tmp_path/'m')
    (tmp_path/'m'/'estimator.json').write_text('{"format":')
    says('estimator.json is damaged', 'predict', tmp_path/'m', 'A text')
    says('estimator.json is damaged', 'info', tmp_path/'m')
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    from ulmfit_nb import checkpoint
    sentences().groupby('label').head(20).to_csv(tmp_path/'d.csv', index=False)
    monkeypatch.setattr(checkpoint, 'save_file', full)
    how = '--pretrained','none','--size','tiny','--lm-epochs',1,'--clas-epochs','1,0,0,1','--bs',8,'--seq-len',16
    says('the disk is full', 'train', tmp_path/'d.csv', '--out', tmp_path/'o', '--text-col', 'text', *how)
    def unforeseen(*args, **kwargs): raise KeyError('weights')
    monkeypatch.setattr(cold_start, 'quick_classifier', unforeseen)
    says("KeyError: 'weights' (ULMFIT_DEBUG=1 shows where)", 'predict', tmp_path/'m', 'A text')

@pytest.mark.skipif(os.name!='posix', reason='locales of this kind')
def test_a_locale_without_umlauts(cases):
    "A text arrives as it was typed, and the answer can be printed"
    c = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    r = ulmfit('predict', cases['export'].folder, 'Schön – „gut“', '--json', env=c)
    assert r.returncode==0 and json.loads(r.stdout)[0]['text']=='Schön – „gut“', r.stderr

def test_a_full_disk(tmp_path):
    "What was there stays, and the error says what to do"
    resource = pytest.importorskip('resource')
    code = f'''
import resource
from ulmfit_nb.files import *
from pathlib import Path
import torch
f = Path({str(tmp_path/'w.safetensors')!r})
save_weights(f, dict(w=torch.ones(10)), dict(n=1))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try: save_weights(f, dict(w=torch.ones(100_000)), dict(n=2))
except OSError as e: print(type(e).__name__, e)
print(load_weights(f)[1]['n'], [o.name for o in f.parent.iterdir() if o.suffix in ('.part','.lock')])
'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env())
    assert r.returncode==0 and 'could not be written' in r.stdout and r.stdout.endswith('1 []\n'), r.stdout+r.stderr
