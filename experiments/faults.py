"""What kills, flipped bits, hostile folders, forks, full disks and long words do to the package: the figures of the
page "What it promises".

    python experiments/faults.py --out nbs/logs/faults.jsonl
    python experiments/faults.py --out nbs/logs/faults.jsonl --parts kills forks

A stop costs the job that it was at. Started again, it goes on. The jobs are those of `tests/faulty.py`,
`tests/hostile.py` and `tests/full_disk.py`, of which the tests take a few. Disks are mounted, for which it has to be
root; elsewhere that part is left out."""
import os, random, sys, tempfile, warnings
from pathlib import Path
from runs import Log, parser, use_threads

parts = 'kills','flips','hostile','forks','words','text','disk'

def temporary(f):
    "`f` of a new folder, which is removed"
    def g():
        with tempfile.TemporaryDirectory() as d: return f(Path(d))
    return g

def kills(name, bars, n, seed):
    from faulty import batter
    random.seed(seed)
    return temporary(lambda d: batter(name, n, d, bars))

cases = None
def with_cases(f):
    "`f` of the folders of all kinds, which are made once, and of a new folder"
    def g(d):
        global cases
        from hostile import make_cases
        if cases is None: cases = make_cases(Path(tempfile.mkdtemp(prefix='faults')))
        return f(cases, d)
    return temporary(g)

def flips(n, seed):
    def f(cases, d):
        from hostile import flips
        res = flips(cases, n, seed, d)
        usual = {k:res.pop(k, 0) for k in ('refused','equal','wrong')}
        return dict(flips=n, kinds=len(cases), **usual, which=list(res))
    return with_cases(f)

def hostile(batch, of):
    def f(cases, d):
        from hostile import hostile, try_hostile
        whole,more = hostile(cases)
        todo = (whole + random.Random(2).sample(more, 300))[batch::of]
        res,slowest = try_hostile(cases, todo, d)
        usual = {k.replace(' ', '_'):res.pop(k, 0) for k in ('refused','accepted','code run','unclear','slow')}
        return dict(folders=len(todo), **usual, slowest=round(slowest, 2), which=list(res))
    return with_cases(f)

def forks(n, seed):
    def f(cases, d):
        from hostile import forks_under_load
        return dict(forks=n, **forks_under_load(cases['export'].folder, n, seed))
    return with_cases(f)

def words(signs, way, seconds):
    from long_words import compared
    return lambda: compared(signs, way, seconds)

def text(mb):
    "Tokens of a text of so many megabytes, and the memory that it takes beside them"
    def f(d):
        import subprocess
        r = subprocess.run([sys.executable, '-W', 'ignore', __file__, '--long-text', str(mb)], capture_output=True,
            text=True, check=True)
        return dict(zip(('tokens','memory_mb','same'), map(int, r.stdout.split()[-3:])))
    return temporary(f)

def long_text(mb):
    import resource
    from ulmfit_nb.parallel import Numberer
    from ulmfit_nb.texts import sentences
    from ulmfit_nb.tokenization import TokenizeWithRules, WordTokenizer
    def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024
    rng,txts,run = random.Random(1),sentences().text.tolist(),TokenizeWithRules(WordTokenizer())
    pieces,n = [],0
    while n<mb*1e6:
        pieces.append(' '.join(rng.choices(txts, k=2000)))
        n += len(pieces[-1])+1
    whole = ' '.join(pieces)
    one = Numberer(run)
    one([pieces[0]*3])
    before = peak()
    names,ids,lens = one([whole])
    after = peak()
    at,same = 1,True # one token for the begin of a text
    for p in pieces:
        want = list(next(iter(run([p]))))[1:]
        same = same and [names[i] for i in ids[at:at+len(want)]]==want
        at += len(want)
    print(len(ids), after-before, int(same and at==len(ids)))

def disk(name, n):
    def f(d):
        from full_disk import fill_up, small_disk
        with small_disk(d/'disk') as o: return fill_up(name, n, o)
    return temporary(f)

def all_jobs(chosen, mountable):
    "Each part's jobs with their keys; a kill of every kind comes before the second of one"
    import faulty, full_disk
    from long_words import KINDS, WAYS
    res = []
    def add(f, part, **key):
        if part in chosen: res.append((f, dict(part=part, **key)))
    for i in range(10): add(flips(100, 10+i), 'flips', batch=i)
    for i in range(4): add(hostile(i, 4), 'hostile', batch=i)
    for i in range(3): add(forks(20, i), 'forks', batch=i)
    for i in range(4):
        for name in faulty.jobs:
            for bars in (True,False): add(kills(name, bars, [3,3,2,2][i], i), 'kills', job=name, bars=bars, batch=i)
    for name in full_disk.names if mountable else (): add(disk(name, 4), 'disk', job=name)
    add(text(20), 'text', mb=20)
    for o in KINDS:
        for way in WAYS: add(words(o, way, 60), 'words', signs=o, way=way)
    return res

def main(args=None):
    p = parser(__doc__, folder=False, out='nbs/logs/faults.jsonl')
    p.add_argument('--parts', nargs='+', choices=parts, default=parts, help='Default: all')
    p.add_argument('--long-text', type=int, help='For itself: read a text of so many megabytes in a new process')
    args = p.parse_args(args)
    use_threads(1)
    warnings.simplefilter('ignore')
    if args.long_text: return long_text(args.long_text)
    sys.path.append(str(Path(__file__).resolve().parent.parent/'tests'))
    import faulty # before there is a thread: its jobs are forked
    Log(args.out).run_all(all_jobs(args.parts, hasattr(os, 'geteuid') and os.geteuid()==0))

if __name__=='__main__': main()
