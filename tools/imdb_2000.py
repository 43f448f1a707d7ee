"""IMDb with 2,000 labels and 10,000 review texts, on a CPU: both directions against each other and against bags of words.

    python tools/imdb_2000.py FOLDER --out imdb_2000

FOLDER holds train, test and unsup as JSON lines. Settings are chosen on folds of the 2,000 labelled reviews in which no film is on both sides; the final models
are trained on all 2,000; 5,000 test reviews are looked at once, at the end. Every finished job is a line of OUT/log.jsonl, and a run that was killed goes on
when started again. To use two cores start it twice, each with --threads 1: the processes share the jobs. `--tiny` runs everything in a minute or two, to see that it works."""
import argparse, os
from pathlib import Path
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('folder', type=Path)
parser.add_argument('--out', type=Path, default=Path('imdb_2000'))
parser.add_argument('--pretrained', default='wiki-en-compact', help="Name or folder prefix of the pretrained models, or 'none'")
parser.add_argument('--labels', type=int, default=2000)
parser.add_argument('--texts', type=int, default=10000)
parser.add_argument('--test', type=int, default=5000)
parser.add_argument('--max-vocab', type=int, default=25000)
parser.add_argument('--passes', type=int, default=5, help='How often the language models read the texts; the first time only the outermost layers learn')
parser.add_argument('--lm-lr', type=float, default=6e-3)
parser.add_argument('--recipes', nargs='+', type=int, help='Numbers of the candidates, by default all')
parser.add_argument('--folds', type=int, default=3)
parser.add_argument('--threads', type=int, default=1)
parser.add_argument('--fp32', action='store_true', help='Never train in bfloat16')
parser.add_argument('--seed', type=int, default=42)
parser.add_argument('--stage', choices=['tune','all'], default='all', help="'tune' stops before the test reviews are looked at")
parser.add_argument('--tiny', action='store_true')
args = parser.parse_args()
if args.tiny: args.labels,args.texts,args.test,args.passes,args.folds = 120,200,60,2,2
os.environ['OMP_NUM_THREADS'] = str(args.threads)

import numpy as np, pandas as pd, torch
from functools import partial
from sklearn.model_selection import StratifiedGroupKFold
from runs import Log, fine_tune, imdb_parts, nb_lr, tfidf_lr
from ulmfit_nb.ensemble import calibration_error, fit_temperature, with_temperature
from ulmfit_nb.estimator import ULMFiTClassifier, sizes
from ulmfit_nb.language_model import find_pretrained
torch.set_num_threads(args.threads)

# Candidates for the classifier: the chapter's recipe, then longer and stronger ones, with less or more dropout
recipes = [
    dict(),
    dict(epochs=(1,1,1,6), lrs=(2e-2,1e-2,5e-3,2e-3)),
    dict(epochs=(1,1,1,8), lrs=(2e-2,1e-2,5e-3,4e-3), div=2.),
    dict(epochs=(1,1,1,6), lrs=(2e-2,1e-2,5e-3,2e-3), drop_mult=.8),
    dict(epochs=(2,2,2,10), lrs=(2e-2,1e-2,1e-2,4e-3), drop_mult=.8, monitor='valid_loss'),
]
if args.tiny: recipes = [dict(epochs=(1,0,0,1)), dict(epochs=(1,0,0,2))]

if not args.tiny and args.recipes: recipes = [recipes[i] for i in args.recipes]

log = Log(args.out/'log.jsonl')
train,more,test = imdb_parts(args.folder, args.labels, args.texts, args.test, args.seed)
settings = {k:str(v) for k,v in vars(args).items() if k not in ('folder','out','threads','stage')}
if log.rows and log.rows[0].get('settings')!=settings: raise SystemExit(f"{log.fname} is of other settings: {log.rows[0].get('settings')}; give another --out")
log.run(lambda: dict(train=len(train), texts=len(train)+len(more), test=len(test), films=int(train.movie.nunique())), job='data', settings=settings)

def finetune(direction):
    "The language model of one direction on all texts but a twentieth, by which it is judged"
    back = direction=='bwd'
    texts = [*train.text, *more]
    texts = [texts[i] for i in np.random.default_rng(args.seed).permutation(len(texts))]
    n = len(texts)//20
    start = dict(config=sizes['tiny']) if args.pretrained=='none' else dict(pretrained=find_pretrained(args.pretrained, back), lrs=(1e-2,args.lm_lr))
    return fine_tune(texts[n:], texts[:n], args.out/f'lm_{direction}', **start, backwards=back, passes=args.passes, max_vocab=args.max_vocab, seed=args.seed, bf16=not args.fp32)

def classifier(direction, recipe, rows, seed, valid=None):
    "A classifier of one direction on the labelled reviews `rows`, from the fine-tuned language model"
    params = dict(pretrained=str(args.out/f'lm_{direction}'), directions=(direction,), lm_epochs=0, max_vocab=args.max_vocab, random_state=seed, calibrate=False, validation_fraction=0)
    params.update(bf16=False if args.fp32 else 'auto', checkpoint_dir=str(args.out/'checkpoints'))
    return ULMFiTClassifier(**{**params, **recipe}).fit(train.text.iloc[rows], train.label.iloc[rows], valid=valid)

def judged(p, y, classes): # accuracy and cross-entropy
    hit = classes[p.argmax(1)]==np.asarray(y)
    own = p[np.arange(len(p)), np.searchsorted(classes, y)]
    return dict(accuracy=float(hit.mean()), cross_entropy=float(-np.log(own.clip(1e-9)).mean()))

log.run_all([(partial(finetune, d), dict(job='language model', direction=d)) for d in ('fwd','bwd')])

folds = list(StratifiedGroupKFold(args.folds, shuffle=True, random_state=args.seed).split(train.text, train.label, train.movie))
def tune(i, k, d='fwd'):
    tr,va = folds[k]
    assert not set(train.movie.iloc[tr]) & set(train.movie.iloc[va])
    held = train.text.iloc[va],train.label.iloc[va]
    clf = classifier(d, recipes[i], tr, args.seed, valid=held if recipes[i].get('monitor') else None)
    p = clf.predict_proba(held[0])
    np.save(args.out/f'fold_{d}_{i}_{k}.npy', p)
    return judged(p, held[1], clf.classes_)

def tune_job(i, k, d='fwd'): return partial(tune, i, k, d),dict(job='tune', direction=d, recipe=i, fold=k)
done = log.run_all([tune_job(i, k) for i in range(len(recipes)) for k in range(len(folds))])
score = np.array([o['accuracy'] for o in done]).reshape(len(recipes), -1).mean(1)
best = int(np.argmax(score))
log.run(lambda: dict(recipe=best, accuracies=[float(o) for o in score], settings_of_it=recipes[best]), job='chosen')
log.run_all([tune_job(best, k, 'bwd') for k in range(len(folds))])

# One temperature for the average of both, from the folds: each review is judged by models that have not seen its film
ys = np.concatenate([np.searchsorted(np.unique(train.label), train.label.iloc[va]) for _,va in folds])
mean = np.concatenate([(np.load(args.out/f'fold_fwd_{best}_{k}.npy')+np.load(args.out/f'fold_bwd_{best}_{k}.npy'))/2 for k in range(len(folds))])
temp = fit_temperature(torch.tensor(mean), torch.tensor(ys))
if args.stage=='tune': raise SystemExit(0)

def final(d):
    clf = classifier(d, {k:v for k,v in recipes[best].items() if k not in ('monitor','patience')}, np.arange(len(train)), args.seed)
    clf.save(args.out/f'classifier_{d}')
    return dict(seconds_of_fit=clf.seconds_)
rivals = {'TF-IDF + LR':tfidf_lr, 'NB-LR':nb_lr}
def rival(name): # fitted before the test reviews are looked at
    m = rivals[name](train.text, train.label, groups=train.movie)
    fitted[name] = m
    return dict(cv_accuracy=float(m.best_score_), best={k:str(v) for k,v in m.best_params_.items()})
fitted = {}
finals = [(partial(final, d), dict(job='final', direction=d)) for d in ('fwd','bwd')]
log.run_all([*finals, *[(partial(rival, o), dict(job='rival', name=o)) for o in rivals]])

def look():
    "The one look at the test reviews"
    for name in rivals:
        if name not in fitted: rival(name)
    res,ps = {},{}
    for d in ('fwd','bwd'):
        clf = ULMFiTClassifier.load(args.out/f'classifier_{d}')
        ps[d] = clf.predict_proba(test.text)
        res[d] = judged(ps[d], test.label, clf.classes_)
    both,classes = (ps['fwd']+ps['bwd'])/2,clf.classes_
    y = torch.tensor(np.searchsorted(classes, test.label))
    cal = with_temperature(torch.tensor(both), temp)
    res['both'] = {**judged(both, test.label, classes), 'temperature':temp, 'ece_before':calibration_error(torch.tensor(both), y), 'ece_after':calibration_error(cal, y)}
    for name,m in fitted.items(): res[name] = dict(accuracy=float(m.score(list(test.text), list(test.label))))
    n = len(test) # paired: how often only one of the two is right
    mine = classes[both.argmax(1)]==test.label.to_numpy()
    for name,m in fitted.items():
        his = m.predict(list(test.text))==test.label.to_numpy()
        d = mine.astype(float)-his
        res[name].update(only_both_right=int((mine&~his).sum()), only_this_right=int((~mine&his).sum()), difference=float(d.mean()), standard_error=float(d.std()/n**.5))
    return dict(results=res, n=n)

r = log.run(look, job='test')['results']
print(pd.DataFrame({k:{m:v.get(m) for m in ('accuracy','cross_entropy','difference','standard_error')} for k,v in r.items()}).T.round(4).to_string())
