"""What several scripts train: language models to fine-tune, rivals that are tuned by cross-validation; and a line of
figures for every epoch"""
import hashlib, json, math, time
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.basics import Callback, ColReader, ColSplitter, DataBlock, set_seed
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from ulmfit_nb.awd_lstm import AWD_LSTM
from ulmfit_nb.batching import TextBlock
from ulmfit_nb.checkpoint import Checkpointer
from ulmfit_nb.language_model import language_model_learner

class EpochLog(Callback):
    "A line of `file` for every epoch: what the recorder shows, seconds, tokens per second, and the GPU's peak memory"
    order = 65
    def __init__(self, file, **key): self.file,self.key = Path(file),key
    def before_epoch(self):
        self.start,self.n = time.perf_counter(),0
        if torch.cuda.is_available(): torch.cuda.reset_peak_memory_stats()
    def after_batch(self):
        if self.training: self.n += self.x.numel()
    def after_train(self):
        if torch.cuda.is_available(): torch.cuda.synchronize() # what was asked of the GPU is done
        self.seconds = time.perf_counter()-self.start
    def after_epoch(self):
        names,values = self.recorder.metric_names[1:-1],[float(o) for o in self.recorder.values[-1]]
        gb = torch.cuda.max_memory_allocated()/1e9 if torch.cuda.is_available() else None
        row = dict(self.key, epoch=self.epoch, **dict(zip(names, values)), train_seconds=self.seconds,
            tokens_per_second=self.n/self.seconds, peak_gb=gb)
        with open(self.file, 'a', encoding='utf8') as f: f.write(json.dumps(row)+'\n')

def here(): # what the figures were measured on
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return dict(gpu=gpu, torch=torch.__version__, device='cuda' if gpu else 'cpu')

def fine_tune(texts, held, folder, pretrained=None, config=None, backwards=False, passes=4, lrs=None, max_vocab=25000,
    seed=42, bf16=True):
    """Train a language model on `texts` and write it to `folder`: from the folder `pretrained`, whose body is frozen
    in the first of the passes, or from random weights of the sizes `config`. The vocabulary is that of `texts`
    either way, so that losses on the texts `held` can be compared"""
    set_seed(seed, reproducible=True)
    folder = Path(folder).absolute()
    df = pd.DataFrame({'text':[*texts, *held], 'is_valid':[False]*len(texts)+[True]*len(held)})
    block = TextBlock.from_df('text', is_lm=True, max_vocab=max_vocab, backwards=backwards)
    bs = min(32, max(4, sum(len(o.split()) for o in texts)//(100*72))) # a hundred steps a pass or more
    dls = DataBlock(block, get_x=ColReader('text'), splitter=ColSplitter()).dataloaders(df, bs=bs, seq_len=72,
        path=folder.parent)
    start = dict(pretrained=str(pretrained), drop_mult=.3) if pretrained else dict(pretrained=False, config=config,
        drop_mult=.1)
    lm = language_model_learner(dls, AWD_LSTM, **start)
    if bf16: lm.to_precision()
    lm.model_dir,losses = folder.name+'.checkpoints',[]
    # of 2e-3 to 1e-2, 6e-3 and 1e-2 came out best on 1,500 reviews
    head,body = lrs or (1e-2, 8e-3 if pretrained else 1e-2)
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
    return dict(valid_loss=losses[-1], perplexity=math.exp(losses[-1]), valid_losses=losses, vocab=len(lm.vocab),
        vocab_sha=sha, tokens=int(dls.train.lens.sum()), passes=len(losses), bs=bs)

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
    """`model` with the best settings of `grid` by cross-validation on these texts, groups kept whole, fitted to all of
    them"""
    folds = StratifiedKFold(cv, shuffle=True, random_state=seed) if groups is None else StratifiedGroupKFold(cv,
        shuffle=True, random_state=seed)
    return GridSearchCV(model, grid, cv=folds).fit(list(texts), list(labels), groups=groups)

def tfidf_lr(texts, labels, **kw):
    "TF-IDF of words and word pairs with logistic regression"
    grid = dict(tfidfvectorizer__ngram_range=[(1,1),(1,2)], tfidfvectorizer__sublinear_tf=[True],
        logisticregression__C=[.3,1,3,10,30,100])
    return tuned(make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=2000)), grid, texts, labels, **kw)

def char_tfidf_lr(texts, labels, **kw):
    "TF-IDF of strings of characters, within words, with logistic regression"
    grid = dict(tfidfvectorizer__ngram_range=[(1,2),(1,3),(1,4)], logisticregression__C=[.3,1,3,10,30,100])
    vec = TfidfVectorizer(analyzer='char_wb', sublinear_tf=True)
    return tuned(make_pipeline(vec, LogisticRegression(max_iter=2000)), grid, texts, labels, **kw)

def nb_lr(texts, labels, **kw):
    "NB-LR: logistic regression on word and word-pair features weighted by naive Bayes; two classes"
    grid = dict(countvectorizer__ngram_range=[(1,2),(1,3)], nbweights__alpha=[.3,1.],
        logisticregression__C=[.01,.03,.1,.3,1])
    vec = CountVectorizer(binary=True, token_pattern=r'\w+|[^\w\s]')
    return tuned(make_pipeline(vec, NBWeights(), LogisticRegression(max_iter=2000, solver='liblinear')), grid, texts,
        labels, **kw)
