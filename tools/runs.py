"What the long runs share: a log that remembers what was done, data, and rivals that are tuned by cross-validation"
import json, os, time
from pathlib import Path
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from ulmfit_nb.texts import imdb, read_texts, stratified_sample

class Log:
    "JSON lines, one per finished job; a job that is in the file is not run again"
    def __init__(self, fname):
        self.fname = Path(fname)
        self.fname.parent.mkdir(parents=True, exist_ok=True)
        self.rows = []
        if not self.fname.exists(): return
        for line in self.fname.read_text(encoding='utf8').splitlines():
            try: self.rows.append(json.loads(line))
            except ValueError: pass # the process was killed while it wrote this line

    def find(self, **key): return next((o for o in self.rows if all(o.get(k)==v for k,v in json.loads(json.dumps(key)).items())), None)

    def run(self, f, **key):
        "The row of the job `key`: from the file, or from `f()`, which gives a dict of numbers"
        if (row := self.find(**key)) is not None: return row
        start = time.time()
        row = {**key, **f()}
        row.setdefault('seconds', round(time.time()-start, 1))
        row = {**row, 'threads':os.environ.get('OMP_NUM_THREADS'), 'at':time.strftime('%Y-%m-%dT%H:%M:%S')}
        with open(self.fname, 'a', encoding='utf8') as o: o.write(json.dumps(row)+'\n')
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        return row

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
