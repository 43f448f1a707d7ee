"""Every notebook alone: in an empty folder, in a new environment that has a wheel of the package and nothing else of
this repository.

    python experiments/run_alone.py WHEEL --out nbs/logs/alone.jsonl

The environment is made in a temporary folder, unless --env names one that exists; PyTorch is installed as
constraints.txt has it. All cells run, the slow ones too, as in Jupyter. A notebook that failed is a line with its
error. Two runs with the same log and --env share the notebooks."""
import json, os, shutil, subprocess, sys, tempfile, time, venv
from functools import partial
from pathlib import Path
from runs import Log, parser

run = '''import sys, nbformat
from nbclient import NotebookClient
nb = nbformat.read(sys.argv[1], 4)
NotebookClient(nb, timeout=None, kernel_name='python3').execute()'''

def root(): return Path(__file__).resolve().parent.parent

def environment(folder, wheel):
    "A new environment with the wheel, its extras and what runs notebooks; returns its Python"
    py = folder/'bin'/'python'
    if py.exists(): return py
    venv.create(folder, with_pip=True)
    pip = [py, '-m', 'pip', 'install', '-q', '-c', root()/'constraints.txt']
    ours = f'{wheel.resolve()}[parquet,datasets,dask,onnx,serve,hub]'
    for what in (['torch','torchvision'], [ours, 'nbclient', 'ipykernel', 'hypothesis']):
        subprocess.run(list(map(str, [*pip, *what])), check=True)
    return py

def alone(py, notebook):
    "Seconds that `notebook` takes in an empty folder, and its error if it has one"
    with tempfile.TemporaryDirectory() as d:
        shutil.copy(notebook, d)
        env = {k:v for k,v in os.environ.items() if k!='PYTHONPATH'}
        t = time.perf_counter()
        r = subprocess.run([py, '-W', 'ignore', '-c', run, notebook.name], cwd=d, env=dict(env, OMP_NUM_THREADS='1'),
            capture_output=True, text=True)
        took = round(time.perf_counter()-t, 1)
        return dict(took=took, ok=r.returncode==0, error=r.stderr.strip()[-600:] if r.returncode else '')

def forget_failures(log):
    "A notebook that failed runs again"
    lines = log.read_text(encoding='utf8').splitlines() if log.exists() else []
    good = [o for o in lines if json.loads(o)['ok']]
    if len(good)<len(lines): log.write_text(''.join(o+'\n' for o in good), encoding='utf8')

def main(args=None):
    p = parser(__doc__, folder=False, out='nbs/logs/alone.jsonl')
    p.add_argument('wheel', type=Path)
    p.add_argument('--env', type=Path, help='Folder of the environment; made if it is not there')
    p.add_argument('--only', nargs='*', help='Names of notebooks, such as book/00_texts')
    a = p.parse_args(args)
    with tempfile.TemporaryDirectory() as d:
        py = environment(a.env or Path(d), a.wheel)
        files = {f.relative_to(root()/'nbs').with_suffix('').as_posix():f
            for f in sorted((root()/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in f.parts}
        forget_failures(a.out)
        rows = Log(a.out).run_all([(partial(alone, py, f), dict(notebook=k)) for k,f in files.items()
            if not a.only or k in a.only])
    for o in rows: print(f"{o['took']:7.1f} s  {o['notebook']}  {o['error'][-200:]}")
    return int(not all(o['ok'] for o in rows))

if __name__=='__main__': sys.exit(main())
