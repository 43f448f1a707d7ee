"""Jobs that are killed at random moments, and what must be true then: `python faulty.py KILLS SEED FOLDER BARS [JOB…]`,
where BARS is `on`, `off` or `any`. A kill comes after a random time, or before a random one of the job's operations on
files, so that those between two renames are met, too. Each job that died is run again: it has to end, and to leave what
it leaves when nobody disturbs it"""
import io, json, os, random, shutil, signal, sys, time, warnings
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
import torch
from ulmfit_nb.all import *
from ulmfit_nb.files import sha256_of
from ulmfit_nb import cli, parallel # after `all`, which has a function of this name

torch.set_num_threads(1)
small = dict(emb_sz=8, n_hid=8, n_layers=2)
some = sentences().groupby('label').head(24).reset_index(drop=True)
texts = some.text.tolist()
quick = dict(pretrained=False, size='tiny', epochs=(1,0,0,1), bs=8, seq_len=16, max_vocab=300)
patience = 600 # seconds for a job of one: one that hangs is stuck

def bars(on):
    "Progress bars as in a terminal, or none"
    for k,o in list(sys.modules.items()):
        if k.startswith('ulmfit_nb.') and hasattr(o, 'on_screen'): o.on_screen = lambda: on

def same_weights(folder):
    "The checksums of all weights in `folder`"
    return {str(o.relative_to(folder)):sha256_of(o) for o in sorted(Path(folder).rglob('*.safetensors'))}

def learner(path, seed):
    set_seed(seed)
    dls = TextDataLoaders.from_df(some[['text','label']], path=path, text_col='text', label_col='label', bs=8, seed=1)
    return text_classifier_learner(dls, AWD_LSTM, config=small, pretrained=False)

class Job:
    "What is done once, `prepare`; what is killed, `run`; what is there afterwards, `look`"
    goes_on = False # is a killed one called again until it ends? Else it must leave the old or the new state
    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.prepare()
    def prepare(self): pass
    def ulmfit(self, command, *args):
        "The command, with paths in the job's folder for those that begin with a dot"
        args = [str(self.folder/o[2:]) if str(o)[:2]=='./' else str(o) for o in args]
        try: cli.main([command, *args, *([] if parallel.on_screen() else ['--quiet'])])
        except SystemExit as e:
            if e.code: raise RuntimeError(f'ulmfit {command} ends with {e.code}') from e

class Train(Job):
    goes_on = True
    def prepare(self): some[['text','label']].to_csv(self.folder/'t.csv', index=False)
    def run(self):
        self.ulmfit('train', './t.csv', '--out', './model', '--pretrained', 'none', '--size', 'tiny', '--lm-epochs', 2,
            '--clas-epochs', '1,0,0,1', '--bs', 8, '--seq-len', 16, '--max-vocab', 300, '--seed', 3)
    def look(self):
        o = ULMFiTClassifier.load(self.folder/'model')
        return same_weights(self.folder/'model'),o.ensemble_.temperature,o.predict_proba(texts[:3]).tolist()

class Pretrain(Job):
    goes_on = True
    def prepare(self): some[['text']].to_json(self.folder/'t.jsonl', orient='records', lines=True)
    def run(self):
        pretrain(self.folder/'t.jsonl', self.folder/'run', config=small, vocab_sz=200, min_freq=1, bs=4, seq_len=8,
            epochs=2, eval_every=20, log_every=7, checkpoint_steps=5, progress=parallel.on_screen())
    def look(self):
        log = (self.folder/'run'/'log.jsonl').read_text().splitlines()
        timed = 'seconds','cpu_seconds','tokens_per_second'
        rows = [json.loads(o) for o in log]
        return same_weights(self.folder/'run'/'model'),[{k:v for k,v in o.items() if k not in timed} for o in rows
            if 'event' not in o] # such as that it went on

class Tokenize(Job):
    goes_on = True
    def prepare(self):
        (self.folder/'in').mkdir()
        for i in range(4): some[i::4][['text']].to_json(self.folder/'in'/f'{i}.jsonl', orient='records', lines=True)
    def run(self): self.ulmfit('tokenize', './in', '--out', './c', '--min-freq', 1, '--shard-mb', 1e-6)
    def look(self):
        c = Corpus.open(self.folder/'c')
        return list(c.ids),c.vocab,c.offsets.tolist(),len(list((self.folder/'c'/'shards').iterdir()))

class Label(Job):
    "The labels of many files"
    goes_on = True
    def prepare(self):
        Tokenize.prepare(self)
        learner(self.folder, 1).export('model')
    def run(self): self.ulmfit('predict', './model', '--file', './in', '--out', './labels')
    def look(self): return [o.read_text() for o in sorted((self.folder/'labels').glob('*.jsonl'))]

class Turns(Job):
    "Writes the first of two things over the second, or the second over the first"
    def prepare(self):
        self.things = self.two()
        self.now = 0
        self.write(self.things[0])
        self.known = [self.look()]
        self.write(self.things[1])
        self.known.append(self.look())
    def run(self): self.write(self.things[self.now])

class Export(Turns):
    def two(self): return [learner(self.folder, i) for i in (1,2)]
    def write(self, o): o.export('out')
    def look(self): return load_learner(self.folder/'out').predict_proba(texts[:3], progress=False).tolist()

class Pair(Export):
    def write(self, o): o.save('x')
    def look(self): return self.things[0].load('x').predict_proba(texts[:3], progress=False).tolist()

class Both(Turns):
    def two(self): return [Ensemble([learner(self.folder, i)]) for i in (1,2)]
    def write(self, o): o.save(self.folder/'both')
    def look(self): return Ensemble.load(self.folder/'both').predict_proba(texts[:3]).tolist()

class Corpora(Turns):
    def two(self): return [texts[:20],texts[20:]]
    def write(self, o): Corpus.from_texts(o, path=self.folder/'c', min_freq=1)
    def look(self): return Corpus.open(self.folder/'c').ids.tolist()

class Predict(Turns):
    def two(self):
        learner(self.folder, 1).export('model')
        for i,o in enumerate((texts*2,texts[::-1])): pd.DataFrame(dict(text=o)).to_csv(self.folder/f'{i}.csv')
        return './0.csv','./1.csv'
    def write(self, o):
        with redirect_stdout(io.StringIO()):
            self.ulmfit('predict', './model', '--file', o, '--text-col', 'text', '--out', './out.csv', '--bs', 8)
    def look(self): return (self.folder/'out.csv').read_bytes().decode()

class Estimator(Turns):
    def two(self):
        return [ULMFiTClassifier(lm_epochs=0, random_state=i, **quick).fit(texts[:16]+texts[-16:],
            some.label[:16].tolist()+some.label[-16:].tolist()) for i in (1,2)]
    def write(self, o): o.save(self.folder/'m')
    def look(self): return ULMFiTClassifier.load(self.folder/'m').predict_proba(texts[:3]).tolist()

jobs = dict(train=Train, pretrain=Pretrain, tokenize=Tokenize, predict=Predict, predict_files=Label, export=Export,
    save=Pair, ensemble=Both, estimator=Estimator, corpus=Corpora)
events = 'open','os.rename','os.remove','os.mkdir','os.rmdir'

def count_events(folder, at=None):
    "Counts operations on files of `folder`; dies before number `at`"
    n = [0]
    def hook(event, args):
        if event not in events or not isinstance(args[0], (str,Path)) or str(folder) not in str(args[0]): return
        n[0] += 1
        if n[0]==at: os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    return n

def child(f):
    "The number of a process that does `f`"
    if pid := os.fork(): return pid
    code = 1
    try:
        with open(os.devnull, 'w') as sys.stdout: f()
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally: os._exit(code)

def ended(pid):
    "How the process ended; `None` if it had to be ended"
    start = time.time()
    while time.time()-start<patience:
        done,status = os.waitpid(pid, os.WNOHANG)
        if done: return status
        time.sleep(.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def whole_run(job, out):
    "Seconds and operations of the job, undisturbed"
    def f():
        n = count_events(job.folder)
        try: job.run()
        finally: out.write_text(str(n[0]))
    start = time.time()
    assert ended(child(f))==0, 'the job fails by itself'
    return time.time()-start, int(out.read_text())

def killed(job, took, n_events, on):
    "Kill the job somewhere: `died`, `through` before it, or `stuck` where the one before had died"
    by_event = random.random()<.6
    at = random.randint(1, n_events) if by_event else None
    def f():
        bars(on)
        if at: count_events(job.folder, at)
        job.run()
    pid = child(f)
    if not by_event:
        time.sleep(random.random()*took)
        os.kill(pid, signal.SIGKILL)
    return {0:'through', signal.SIGKILL:'died'}.get(ended(pid), 'stuck')

def again(job, on):
    "Does the job end well?"
    def f():
        bars(on)
        job.run()
    return ended(child(f))==0

def left_behind(job): return len([o for o in job.folder.rglob('.*') if o.suffix in ('.part','.old','.lock')])

def look(job, res):
    try: return job.look()
    except Exception as e:
        res['lost'] += 1
        print(f'{type(job).__name__}: {type(e).__name__} {e}', file=sys.stderr)

def batter(name, kills, folder, on=None):
    "Kills one kind of job until it died `kills` times; what came of that"
    folder = Path(folder)/name
    job,res = jobs[name](folder/'often'),Counter(died=0, stuck=0, different=0, lost=0, left=0)
    bars(bool(on))
    took,n_events = whole_run(job, folder/'n')
    want = job.look() if job.goes_on else None
    def anew():
        shutil.rmtree(folder/'often')
        return jobs[name](folder/'often')
    if job.goes_on: job = anew()
    for i in range(3*kills):
        if res['died']>=kills: break
        with_bars = random.random()<.5 if on is None else on
        if not job.goes_on: job.now = i%2
        how = killed(job, took, n_events, with_bars)
        res[how] += 1
        if job.goes_on:
            if how=='died' and res['died']<kills and random.random()<.5: continue # the next begins where this one ended
            if how=='died': res['stuck'] += not again(job, with_bars)
            res['different'] += look(job, res)!=want
            res['left'] += left_behind(job)
            if res['died']<kills: job = anew()
        elif how=='died':
            res['different'] += look(job, res) not in job.known
            res['stuck'] += not again(job, with_bars)
            res['different'] += look(job, res)!=job.known[job.now]
            res['left'] += left_behind(job)
    return dict(res)

def main(kills, seed, folder, on, names=()):
    warnings.simplefilter('ignore')
    random.seed(seed)
    names = names or list(jobs)
    res = {}
    for i,name in enumerate(names):
        n = kills//len(names)+(i<kills%len(names))
        if n: res[name] = batter(name, n, folder, dict(on=True, off=False, any=None)[on])
    print('\n'+json.dumps(res))

if __name__=='__main__': main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:])
