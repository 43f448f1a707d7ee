"What the long runs share: a log that remembers what was done, data, language models, and rivals that are tuned by cross-validation"
import fcntl, hashlib, json, math, os, time
from pathlib import Path
import numpy as np, pandas as pd
from fastai.basics import ColReader, ColSplitter, DataBlock, set_seed
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from ulmfit_nb.awd_lstm import AWD_LSTM
from ulmfit_nb.batching import TextBlock
from ulmfit_nb.language_model import language_model_learner
from ulmfit_nb.pretraining import Checkpointer
from ulmfit_nb.texts import imdb, read_texts, stratified_sample

class Log:
    "JSON lines, one per finished job. A job that is in the file is not run again, and processes that were started with the same file share the jobs among themselves"
    def __init__(self, fname):
        self.fname = Path(fname)
        self.locks = self.fname.with_suffix('.locks')
        self.locks.mkdir(parents=True, exist_ok=True)
        self.read()

    def read(self):
        "Take in what other processes have finished"
        self.rows = []
        if not self.fname.exists(): return
        for line in self.fname.read_text(encoding='utf8').splitlines():
            try: self.rows.append(json.loads(line))
            except ValueError: pass # a process was killed while it wrote this line

    def find(self, **key): return next((o for o in self.rows if all(o.get(k)==v for k,v in json.loads(json.dumps(key)).items())), None)

    def run(self, f, **key):
        "The row of the job `key`: from the file, or from `f()`, which gives a dict of numbers"
        return self.run_all([(f,key)])[0]

    def run_all(self, jobs):
        "The rows of `jobs`, pairs of a function and a key, in any order; those that another process is busy with are waited for"
        while left := [o for o in jobs if not self.find(**o[1])]:
            if not sum([self._try(*o) for o in left]):
                time.sleep(5)
                self.read()
        return [self.find(**key) for _,key in jobs]

    def _try(self, f, key):
        "Run a job, unless it is being run elsewhere: its lock goes with the process that holds it, also when that is killed"
        with open(self.locks/hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16], 'w') as lock:
            try: fcntl.flock(lock, fcntl.LOCK_EX|fcntl.LOCK_NB)
            except BlockingIOError: return False
            self.read()
            if not self.find(**key): self._write(f, key)
            return True

    def _write(self, f, key):
        start,cpu = time.time(),time.process_time()
        row = {**key, **f()}
        row.update(seconds=round(time.time()-start, 1), cpu_seconds=round(time.process_time()-cpu, 1), threads=os.environ.get('OMP_NUM_THREADS'), at=time.strftime('%Y-%m-%dT%H:%M:%S'))
        torn = self.fname.exists() and not self.fname.read_bytes().endswith(b'\n')
        with open(self.fname, 'a', encoding='utf8') as o: o.write('\n'*torn+json.dumps(row)+'\n')
        self.rows.append(row)
        print(json.dumps(row), flush=True)

def fine_tune(texts, held, folder, pretrained=None, config=None, backwards=False, passes=4, lrs=None, max_vocab=25000, seed=42, bf16=True):
    """Train a language model on `texts` and write it to `folder`: from the folder `pretrained`, whose body is frozen in the first of the passes, or from random weights of the
    sizes `config`. The vocabulary is that of `texts` either way, so that losses on the texts `held` can be compared"""
    set_seed(seed, reproducible=True)
    folder = Path(folder).absolute()
    df = pd.DataFrame({'text':[*texts, *held], 'is_valid':[False]*len(texts)+[True]*len(held)})
    block = TextBlock.from_df('text', is_lm=True, max_vocab=max_vocab, backwards=backwards)
    bs = min(32, max(4, sum(len(o.split()) for o in texts)//(100*72))) # a hundred steps a pass or more
    dls = DataBlock(block, get_x=ColReader('text'), splitter=ColSplitter()).dataloaders(df, bs=bs, seq_len=72, path=folder.parent)
    start = dict(pretrained=str(pretrained), drop_mult=.3) if pretrained else dict(pretrained=False, config=config, drop_mult=.1)
    lm = language_model_learner(dls, AWD_LSTM, **start)
    if bf16: lm.to_precision()
    lm.model_dir,losses = folder.name+'.checkpoints',[]
    head,body = lrs or (1e-2, 8e-3 if pretrained else 1e-2) # of 2e-3 to 1e-2, 6e-3 and 1e-2 came out best on 1,500 reviews
    def fit(n, lr, name):
        lm.fit_one_cycle(n, lr, cbs=Checkpointer(name))
        losses.extend(float(o[1]) for o in lm.recorder.values)
    with lm.no_bar(), lm.no_logging():
        if pretrained:
            fit(1, head, 'head')
            lm.unfreeze()
        fit(passes-bool(pretrained), body, 'all')
    lm.to_fp32().export(folder.name)
    for o in (lm.path/lm.model_dir).glob('*.ckpt'): o.unlink()
    (lm.path/lm.model_dir).rmdir()
    sha = hashlib.sha256('\n'.join(lm.vocab).encode()).hexdigest()[:12]
    return dict(valid_loss=losses[-1], perplexity=math.exp(losses[-1]), valid_losses=losses, vocab=len(lm.vocab), vocab_sha=sha, tokens=int(dls.train.lens.sum()), passes=len(losses), bs=bs)

class NBWeights(TransformerMixin, BaseEstimator):
    "Binary counts times the log-count ratio of the two classes (Wang and Manning, 2012)"
    def __init__(self, alpha=1.): self.alpha = alpha
    def fit(self, X, y):
        a,b = np.unique(y)
        p,q = (np.asarray(X[np.asarray(y)==o].sum(axis=0)).ravel()+self.alpha for o in (b,a))
        self.ratio_ = np.log((p/p.sum())/(q/q.sum()))
        return self
    def transform(self, X): return X.multiply(self.ratio_).tocsr()

def tuned(model, grid, texts, labels, groups=None, cv=5, seed=42):
    "`model` with the best settings of `grid` by cross-validation on these texts, groups kept whole, fitted to all of them"
    folds = StratifiedKFold(cv, shuffle=True, random_state=seed) if groups is None else StratifiedGroupKFold(cv, shuffle=True, random_state=seed)
    return GridSearchCV(model, grid, cv=folds).fit(list(texts), list(labels), groups=groups)

def tfidf_lr(texts, labels, **kw):
    "TF-IDF of words and word pairs with logistic regression"
    grid = dict(tfidfvectorizer__ngram_range=[(1,1),(1,2)], tfidfvectorizer__sublinear_tf=[True], logisticregression__C=[.3,1,3,10,30,100])
    return tuned(make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=2000)), grid, texts, labels, **kw)

def nb_lr(texts, labels, **kw):
    "NB-LR: logistic regression on word and word-pair features weighted by naive Bayes; two classes"
    grid = dict(countvectorizer__ngram_range=[(1,2),(1,3)], nbweights__alpha=[.3,1.], logisticregression__C=[.01,.03,.1,.3,1])
    vec = CountVectorizer(binary=True, token_pattern=r'\w+|[^\w\s]')
    return tuned(make_pipeline(vec, NBWeights(), LogisticRegression(max_iter=2000, solver='liblinear')), grid, texts, labels, **kw)

def imdb_parts(folder, n_labels, n_texts, n_test, seed=42):
    "Labelled training reviews with their films, texts for the language model (the labelled ones and unlabelled others), test reviews"
    train = stratified_sample(imdb(folder, 'train'), n_labels, seed=seed).reset_index(drop=True)
    more = imdb(folder, 'unsup')
    more = more.sample(min(len(more), max(0, n_texts-n_labels)), random_state=seed).text.tolist()
    test = stratified_sample(imdb(folder, 'test'), n_test, seed=seed).reset_index(drop=True)
    return train,more,test

def trec(folder, part): return read_texts(Path(folder)/f'trec_{part}.jsonl.xz')
