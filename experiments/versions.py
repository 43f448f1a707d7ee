"""Speed of two versions of the package, the same work in turn: words, batches, steps of training, one text

`git worktree add ../before v0.1.0; python experiments/versions.py ../before .`. Each version runs in a process of its
own, all in one thread; a round lets one after the other do a job, in changing order. A ratio over 1 says that the
second is faster."""
import argparse, json, os, subprocess, sys, time
from pathlib import Path
from statistics import median

jobs = ['words','batches','steps','classifier','one text','500 texts']

def work():
    "In a process that imports one version: what each job does, once"
    import torch, ulmfit_nb
    torch.set_num_threads(1)
    from ulmfit_nb import all as u
    from ulmfit_nb.texts import sentences
    df = sentences()
    texts = df.text.tolist()*4
    def words(): u.tokenize_texts(texts, tok=u.WordTokenizer())
    dls = u.TextDataLoaders.from_df(df, text_col='text', is_lm=True, valid_pct=.1, bs=32, seed=42)
    lm = u.language_model_learner(dls, u.AWD_LSTM, pretrained=False, drop_mult=.5,
        config=dict(emb_sz=160, n_hid=400), **({} if ulmfit_nb.__version__=='0.1.0' else dict(num_sampled=None)))
    cdls = u.TextDataLoaders.from_df(df, text_col='text', label_col='label', valid_pct=.1, bs=32, seed=42,
        text_vocab=dls.vocab)
    clas = u.text_classifier_learner(cdls, u.AWD_LSTM, pretrained=False, config=dict(emb_sz=160, n_hid=400))
    def batches():
        for _ in range(20):
            for b in dls.train: pass
    def steps(learn, n):
        learn.model.train()
        for i,b in enumerate(learn.dls.train):
            if i==n: break
            learn.one_batch(i, b)
    from fastai.callback.core import Callback
    class Stop(Callback):
        def after_batch(self):
            from fastai.callback.core import CancelEpochException
            if self.iter==9: raise CancelEpochException
    def fit(learn):
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3, cbs=Stop())
    def one():
        for o in texts[:60]: clas.predict(o)
    def many(): clas.predict_proba(texts[:500])
    return dict(zip(jobs, [words, batches, lambda: fit(lm), lambda: fit(clas), one, many]))

def child():
    out,sys.stdout = sys.stdout,sys.stderr # progress bars may print
    done = work()
    print('ready', file=out, flush=True)
    for name in map(str.strip, sys.stdin):
        t = time.perf_counter()
        done[name]()
        print(time.perf_counter()-t, file=out, flush=True)

class Version:
    def __init__(self, folder):
        env = os.environ | dict(PYTHONPATH=str(Path(folder).resolve()), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
        self.p = subprocess.Popen([sys.executable, __file__, '--child'], env=env, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    def said(self):
        o = self.p.stdout.readline()
        if not o: raise RuntimeError(f'{self.p.args}: ended')
        return o.strip()
    def time(self, job):
        self.p.stdin.write(job+'\n')
        self.p.stdin.flush()
        return float(self.said())
    def close(self):
        self.p.stdin.close()
        self.p.wait()

def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folders', nargs=2, help='Folders that hold a package `ulmfit_nb`: before, after')
    p.add_argument('--rounds', type=int, default=7)
    p.add_argument('--json', help='File to write the times to')
    args = p.parse_args(args)
    both = [Version(o) for o in args.folders]
    while any(o.said()!='ready' for o in both): pass
    print(f"{'':12}{'before':>10}{'after':>10}{'ratio':>8}  ratios of the rounds")
    res = {}
    for job in jobs:
        for o in both: o.time(job)
        rounds = []
        for i in range(args.rounds):
            order = both if i%2 else both[::-1]
            t = {id(o):o.time(job) for o in order}
            rounds.append([t[id(o)] for o in both])
        ratios = sorted(a/b for a,b in rounds)
        a,b = (median(o) for o in zip(*rounds))
        print(f'{job:12}{a:9.3f}s{b:9.3f}s{median(ratios):8.2f}  {ratios[0]:.2f} to {ratios[-1]:.2f}', flush=True)
        res[job] = rounds
    for o in both: o.close()
    if args.json: Path(args.json).write_text(json.dumps(res))

if __name__=='__main__': child() if sys.argv[1:]==['--child'] else main()
