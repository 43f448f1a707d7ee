"""What much text takes: memory of `ulmfit tokenize` and `ulmfit predict` while they read gigabytes, and what Dask costs
on one machine.

    python experiments/large_input.py FOLDER --out nbs/logs/large_input.jsonl

FOLDER holds JSON lines with a text in each; where they don't suffice, they are read again. Memory is that of the
command's process and of those that it starts, without pages of files, which the system takes back when it wants to. It
is looked at five times a second, on Linux."""
import itertools, json, subprocess, sys, tempfile, time
from pathlib import Path
from runs import Log, parser, texts, use_threads

command = [sys.executable, '-W', 'ignore', '-m', 'ulmfit_nb']

def anonymous(pid):
    "MB of memory of a process and of those that it started which belong to no file"
    res = 0
    try:
        lines = open(f'/proc/{pid}/smaps_rollup')
        res = next(int(l.split()[1]) for l in lines if l.startswith('Anonymous:'))/1024
        for p in Path(f'/proc/{pid}/task').glob('*/children'): res += sum(map(anonymous, p.read_text().split()))
    except (OSError,StopIteration): pass # it has just ended
    return res

def watched(*args):
    "Runs a command of `ulmfit`; its memory, in MB, at the highest, and on the average of each fifth of its time"
    seen = []
    p = subprocess.Popen([*command, *map(str, args), '--quiet'], stdout=subprocess.DEVNULL)
    while p.poll() is None:
        seen.append(anonymous(p.pid))
        time.sleep(.2)
    if p.returncode: raise RuntimeError(f'ulmfit {args[0]} ended with {p.returncode}')
    fifth = max(1, len(seen)//5)
    return dict(peak_mb=round(max(seen)), course_mb=[round(sum(o)/len(o)) for o in (seen[i:i+fifth]
        for i in range(0, 5*fifth, fifth)) if o])

def again(folder):
    while True: yield from texts(folder)

def short(folder):
    "Pieces of 15 words, one after the other"
    for t in again(folder):
        words = t.split()
        for i in range(0, len(words), 15): yield ' '.join(words[i:i+15])

def write(some, file):
    "JSON lines; how many bytes the texts have"
    n = 0
    with open(file, 'w', encoding='utf8') as f:
        for t in some:
            f.write(json.dumps(dict(text=t))+'\n')
            n += len(t.encode())
    return n

def up_to(some, mb):
    n = 0
    for t in some:
        if n>=mb*1e6: return
        n += len(t.encode())
        yield t

def tokenizing(folder, mb, file_mb=50):
    with tempfile.TemporaryDirectory() as tmp:
        tmp,source,size = Path(tmp),again(folder),0
        (tmp/'in').mkdir()
        for i in range(n := -(-mb//file_mb)): size += write(up_to(source, mb/n), tmp/'in'/f'{i:04}.jsonl')
        res = watched('tokenize', tmp/'in', '--out', tmp/'corpus')
        about = json.loads((tmp/'corpus'/'corpus.json').read_text(encoding='utf8'))
        return dict(res, text_bytes=size, tokens=about['n_tokens'])

def model(tmp):
    "A compact classifier that knows nothing: what it costs doesn't depend on that"
    from ulmfit_nb.all import AWD_LSTM, TextDataLoaders, sentences, set_seed, text_classifier_learner
    set_seed(1)
    dls = TextDataLoaders.from_df(sentences().head(200), text_col='text', label_col='label', bs=32, seed=1)
    learn = text_classifier_learner(dls, AWD_LSTM)
    with learn.no_bar(): learn.export(tmp/'model')
    return tmp/'model'

def labelling(folder, n):
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        write(itertools.islice(short(folder), n), tmp/'t.jsonl')
        res = watched('predict', model(tmp), '--file', tmp/'t.jsonl', '--out', tmp/'labels.jsonl')
        with open(tmp/'labels.jsonl', encoding='utf8') as f: res['labels'] = sum(1 for _ in f)
        return res

def with_and_without(f, make, n, rounds):
    "Seconds of `f(files, out, **who)`, without Dask and with one worker that is there already, in turn"
    from ulmfit_nb.distributed import dask_client
    with tempfile.TemporaryDirectory() as tmp, dask_client('local:1') as client:
        tmp,took = Path(tmp),{'alone':[], 'dask':[]}
        (tmp/'in').mkdir()
        for i in range(8): write(itertools.islice(make, n//8), tmp/'in'/f'{i}.jsonl')
        address = client.scheduler.address
        (tmp/'few').mkdir()
        for i in range(2): write(['A text.']*10, tmp/'few'/f'{i}.jsonl') # everybody has loaded everything
        for name,who in (('alone',{}), ('dask',dict(scheduler=address))): f(tmp, tmp/'few', tmp/f'few_{name}', **who)
        for i in range(rounds):
            for name,who in (('alone',{}), ('dask',dict(scheduler=address)))[::1-i%2*2]:
                start = time.time()
                f(tmp, tmp/'in', tmp/f'{name}{i}', **who)
                took[name].append(round(time.time()-start, 2))
        return dict(took, ratio=round(min(took['dask'])/min(took['alone']), 3))

def dask_tokenize(folder, n):
    from ulmfit_nb.distributed import corpus_from_files
    def f(tmp, files, out, **who): corpus_from_files([files], out, progress=False, shard_mb=1, min_freq=1, **who)
    return with_and_without(f, short(folder), n, 3)

def dask_label(folder, n):
    from ulmfit_nb.scoring import predict_files
    def f(tmp, files, out, **who):
        if not (tmp/'model').exists(): model(tmp)
        predict_files(tmp/'model', [files], out, progress=False, **who)
    return with_and_without(f, short(folder), n, 1)

def main(args=None):
    p = parser(__doc__, out='nbs/logs/large_input.jsonl', threads=1)
    p.add_argument('--parts', nargs='+', default=['tokenize','predict','dask'], help='Default: all')
    p.add_argument('--mb', type=int, nargs='+', default=[250,2000], help='Megabytes to tokenize')
    p.add_argument('--texts', type=int, nargs='+', default=[125_000,1_000_000], help='Short texts to label')
    p.add_argument('--dask-texts', type=int, default=200_000)
    a = p.parse_args(args)
    use_threads(a.threads)
    log = Log(a.out)
    if 'tokenize' in a.parts:
        for mb in a.mb: log.run(lambda: tokenizing(a.folder, mb), job='tokenize', mb=mb)
    if 'predict' in a.parts:
        for n in a.texts: log.run(lambda: labelling(a.folder, n), job='predict', texts=n)
    if 'dask' in a.parts:
        n = a.dask_texts
        log.run(lambda: dask_tokenize(a.folder, n), job='dask tokenize', texts=n)
        log.run(lambda: dask_label(a.folder, n), job='dask predict', texts=n)
    return log.rows

if __name__=='__main__': main()
