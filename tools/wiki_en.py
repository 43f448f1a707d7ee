"""wiki-en: the full-size pretrained model, made on a GPU host that has no network and takes a few files at a time.

    # here: tokenize once, cut the ids into shards of some 15 MB
    python tools/wiki_en.py prepare wiki/*.jsonl.xz --out wiki-en
    # there, after each transfer: keeps what came; says what is missing
    python tools/wiki_en.py unpack wiki-en/shards --to /scratch/wiki-en
    # there, until it says that it is done
    python tools/wiki_en.py train /scratch/wiki-en --out /scratch/fwd --minutes 9 --max-time 25 [--backwards]
    # there: int8 weights, in pieces of at most 15 MiB
    python tools/wiki_en.py pack /scratch/fwd --out pieces
    python tools/wiki_en.py join pieces --to models/wiki-en-fwd             # here
    # here: ulmfit-wiki-en, a package that holds nothing but the models
    python tools/wiki_en.py package models --out dist

Every step can be repeated. What is damaged is named and not used. `train` is `ulmfit pretrain` with a time limit:
it stops between two checkpoints, and goes on from the last one when called again; `--max-time` is the time of all
calls together, over which the learning rate makes its one cycle."""
import argparse, hashlib, json, lzma, re, shutil, signal, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
from ulmfit_nb.files import atomic_path, load_weights, quantize_weights, read_meta
from ulmfit_nb.numericalization import Corpus
from ulmfit_nb.pretraining import prepare_corpus

def sha256(b): return hashlib.sha256(b).hexdigest()
def write_json(file, o):
    with atomic_path(file) as tmp: tmp.write_text(json.dumps(o, ensure_ascii=False, indent=1), encoding='utf8')
def read_json(file): return json.loads(Path(file).read_text(encoding='utf8'))

def prepare(sources, out, vocab_sz=30000, min_freq=3, shard=12_000_000, n_workers=2):
    "The corpus of `sources` in `out/corpus`, and as shards of `shard` uint16 ids each in `out/shards`"
    corpus = prepare_corpus(sources, out/'corpus', vocab_sz=vocab_sz, min_freq=min_freq, n_workers=n_workers)
    if len(corpus.vocab)>2**16:
        raise SystemExit(f'a vocabulary of {len(corpus.vocab):,} does not fit into 16 bits: --vocab-sz 65536 at most')
    with atomic_path(out/'shards') as d:
        d.mkdir()
        starts = range(0, corpus.n_tokens, shard)
        parts = {f'{i:03}.xz':corpus.ids[k:k+shard].astype('<u2') for i,k in enumerate(starts)}
        parts['offsets.xz'] = np.asarray(corpus.offsets, '<i8')
        sums = {}
        for name,o in parts.items():
            b = lzma.compress(o.tobytes())
            sums[name] = sha256(b)
            (d/name).write_bytes(b)
        write_json(d/'shards.json', dict(files=sums, corpus=read_json(corpus.path/'corpus.json')))
    print(f'{corpus!r}; {len(sums)} files of at most '
        f'{max(f.stat().st_size for f in (out/"shards").iterdir())/2**20:.1f} MiB in {out/"shards"}')

def unpack(folder, to):
    "Keep the shards that have come, in `to/shards`; make `to/corpus` when all have. The names of those missing"
    kept = to/'shards'
    kept.mkdir(parents=True, exist_ok=True)
    for f in Path(folder).iterdir():
        with atomic_path(kept/f.name) as tmp: shutil.copyfile(f, tmp)
    if not (kept/'shards.json').exists():
        raise SystemExit(f'shards.json is missing in {folder}: send it with the first shards')
    meta = read_json(kept/'shards.json')
    for f in kept.iterdir():
        if f.name in meta['files'] and sha256(f.read_bytes())!=meta['files'][f.name]:
            f.unlink()
            raise SystemExit(f'{f.name} is damaged: send it again')
    missing = [o for o in meta['files'] if not (kept/o).exists()]
    if not missing and not (to/'corpus'/'corpus.json').exists():
        def read(name, dtype): return np.frombuffer(lzma.decompress((kept/name).read_bytes()), dtype)
        c = meta['corpus']
        ids = np.concatenate([read(o, '<u2') for o in sorted(meta['files']) if o!='offsets.xz']).astype(np.int32)
        Corpus(ids, read('offsets.xz', '<i8'), c['vocab'], np.array(c['counts']), c['tokenizer'], c['files'],
            c['fingerprint']).save(to/'corpus')
    print('missing: '+', '.join(missing) if missing else repr(Corpus.open(to/'corpus')))
    return missing

def unsaid(more):
    "`more` with what it leaves open: full size, 256 rows, and where a time is set, as many passes as fit into it"
    given = {o.split('=')[0] for o in more}
    own = {'--size':'full', '--bs':'256', **({'--epochs':'1000'} if '--max-time' in given else {})}
    return [*more, *(o for k,v in own.items() if k not in given for o in (k,v))]

def train(to, out, minutes, backwards=False, more=()):
    "Train for `minutes` at most. Is it done?"
    args = [sys.executable, '-m', 'ulmfit_nb', 'pretrain', str(to/'corpus'), '--out', str(out), '--checkpoint', '30',
        *['--backwards']*backwards, *more]
    p = subprocess.Popen(args)
    try: code = p.wait(minutes*60)
    except subprocess.TimeoutExpired:
        p.send_signal(signal.SIGINT)
        try: p.wait(20)
        except subprocess.TimeoutExpired: p.kill()
        print(f'{minutes} minutes are over: call again to go on')
        return False
    if code: raise SystemExit(code)
    return True

def pack(run, out, dtype='int8', piece=15*2**20):
    "The finished model of `run`, smaller, in pieces of at most `piece` bytes"
    with tempfile.TemporaryDirectory() as d:
        model = quantize_weights(run/'model', Path(d)/'model', dtype)
        w = (model/'weights.safetensors').read_bytes()
        with atomic_path(out) as tmp:
            tmp.mkdir()
            for i,k in enumerate(range(0, len(w), piece)): (tmp/f'weights.{i:02}').write_bytes(w[k:k+piece])
            shutil.copyfile(model/'model.json', tmp/'model.json')
            if (run/'log.jsonl').exists(): shutil.copyfile(run/'log.jsonl', tmp/'log.jsonl')
    print(f'{len(w)/1e6:.1f} MB of weights in {i+1} pieces: {out}')

def join(pieces, to):
    "The model's folder from its pieces"
    with atomic_path(to) as tmp:
        tmp.mkdir()
        with open(tmp/'weights.safetensors', 'wb') as f:
            for o in sorted(pieces.glob('weights.*')): f.write(o.read_bytes())
        for o in ('model.json','log.jsonl'):
            if (pieces/o).exists(): shutil.copyfile(pieces/o, tmp/o)
        load_weights(tmp/'weights.safetensors', tmp/'model.json') # raises where a piece is missing or damaged
    print(to)

setup = """from setuptools import setup
setup(name={dist!r}, version={version!r}, description='Pretrained language models for ulmfit_nb: {names}',
    license='CC-BY-SA-3.0', python_requires='>=3.11', packages=[{module!r}], package_data={{{module!r}:['*/*']}},
    zip_safe=False, entry_points={{'ulmfit_nb.models':['{dist} = {module}']}})
"""
pyproject = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""

def package(models, out, dist='ulmfit-wiki-en', version='0.1.0'):
    "A wheel that holds the models of the folder `models`; where it is installed, they are found by their names"
    module,found = dist.replace('-', '_'),sorted(o.parent for o in Path(models).glob('*/model.json'))
    if not found: raise SystemExit(f'no folder of a model in {models}')
    for o in found:
        if not re.search('-(fwd|bwd)$', o.name): raise SystemExit(f"{o}: its name must end with -fwd or -bwd")
        if read_meta(o/'model.json')['backwards']!=o.name.endswith('-bwd'):
            raise SystemExit(f'{o} reads in the other direction than its name says')
        load_weights(o/'weights.safetensors', o/'model.json')
    names = ', '.join(o.name for o in found)
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        (d/module).mkdir()
        (d/module/'__init__.py').write_text(f'"Pretrained language models for ulmfit_nb: {names}"\n', encoding='utf8')
        for o in found:
            shutil.copytree(o, d/module/o.name, copy_function=shutil.copyfile)
        (d/'setup.py').write_text(setup.format(dist=dist, version=version, names=names, module=module), encoding='utf8')
        (d/'pyproject.toml').write_text(pyproject, encoding='utf8')
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '--wheel', '--outdir', str(out.absolute()),
            str(d)], check=True, stdout=subprocess.DEVNULL)
    wheel, = out.glob(f'{module}-{version}-*.whl')
    print(f'{wheel}: {wheel.stat().st_size/1e6:.1f} MB')
    return wheel

def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest='step', required=True)
    def step(name, **paths):
        s = sub.add_parser(name, description=globals()[name].__doc__)
        for k,first in paths.items():
            s.add_argument(k if first else f'--{k}', type=Path, **({} if first else dict(required=True)))
        return s
    s = step('prepare', out=False)
    s.add_argument('sources', nargs='+', type=Path)
    for k,v in dict(vocab_sz=30000, min_freq=3, shard=12_000_000, n_workers=2).items():
        s.add_argument('--'+k.replace('_','-'), type=int, default=v)
    step('unpack', folder=True, to=False)
    s = step('train', to=True, out=False)
    s.add_argument('--minutes', type=float, required=True)
    s.add_argument('--backwards', action='store_true')
    s = step('pack', run=True, out=False)
    s.add_argument('--dtype', default='int8')
    s.add_argument('--piece', type=int, default=15*2**20)
    step('join', pieces=True, to=False)
    s = step('package', models=True, out=False)
    s.add_argument('--dist', default='ulmfit-wiki-en')
    s.add_argument('--version', default='0.1.0')
    a,more = p.parse_known_args(args)
    if more and a.step!='train': p.error(f"unknown: {' '.join(more)}")
    kw = {k:v for k,v in vars(a).items() if k!='step'}
    if a.step=='train':
        done = train(**kw, more=unsaid(more))
        raise SystemExit(0 if done else 3)
    globals()[a.step](**kw)

if __name__=='__main__': main()
