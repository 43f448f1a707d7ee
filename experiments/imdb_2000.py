"""IMDb with 2,000 labels and 10,000 review texts, on a CPU: both directions against each other and against bags of
words.

    python experiments/imdb_2000.py FOLDER --out imdb_2000

FOLDER holds train, test and unsup as JSON lines. Settings are chosen on folds of the 2,000 labelled reviews in
which no film is on both sides; the final models are trained on all 2,000; 5,000 test reviews are looked at once, at
the end. Every finished job is a line of OUT/log.jsonl, and a run that was killed goes on when started again. To use
two cores start it twice, each with --threads 1: the processes share the jobs. `--tiny` runs everything in a minute
or two, to see that it works."""
from functools import partial
import numpy as np, pandas as pd, torch
from sklearn.model_selection import StratifiedGroupKFold
from runs import Log, imdb_part, parser, use_threads
from training import fine_tune, nb_lr, tfidf_lr
from ulmfit_nb.ensemble import calibration_error, fit_temperature, with_temperature
from ulmfit_nb.estimator import ULMFiTClassifier, sizes
from ulmfit_nb.pretrained import find_pretrained

# Candidates for the classifier: the chapter's recipe, then longer and stronger ones, with less or more dropout
candidates = [
    dict(),
    dict(epochs=(1,1,1,6), lrs=(2e-2,1e-2,5e-3,2e-3)),
    dict(epochs=(1,1,1,8), lrs=(2e-2,1e-2,5e-3,4e-3), div=2.),
    dict(epochs=(1,1,1,6), lrs=(2e-2,1e-2,5e-3,2e-3), drop_mult=.8),
    dict(epochs=(2,2,2,10), lrs=(2e-2,1e-2,1e-2,4e-3), drop_mult=.8, monitor='valid_loss'),
]
tiny_candidates = [dict(epochs=(1,0,0,1)), dict(epochs=(1,0,0,2))]
tiny = dict(labels=120, texts=200, test=60, passes=2, folds=2)
rivals = {'TF-IDF + LR':tfidf_lr, 'NB-LR':nb_lr}
directions = ('fwd','bwd')

def judged(p, y, classes):
    "Accuracy and cross-entropy"
    hit = classes[p.argmax(1)]==np.asarray(y)
    own = p[np.arange(len(p)), np.searchsorted(classes, y)]
    return dict(accuracy=float(hit.mean()), cross_entropy=float(-np.log(own.clip(1e-9)).mean()))

class Study:
    "The steps, on data that is drawn from the seed; `a` are the arguments of the command"
    def __init__(self, a):
        self.a,self.fitted = a,{}
        self.recipes = tiny_candidates if a.tiny else [candidates[i] for i in a.recipes or range(len(candidates))]
        self.train = imdb_part(a.folder, 'train', a.labels, seed=a.seed)
        more = imdb_part(a.folder, 'unsup')
        self.more = more.sample(min(len(more), max(0, a.texts-a.labels)), random_state=a.seed).text.tolist()
        self.test = imdb_part(a.folder, 'test', a.test, seed=a.seed)
        folds = StratifiedGroupKFold(a.folds, shuffle=True, random_state=a.seed)
        self.folds = list(folds.split(self.train.text, self.train.label, self.train.movie))

    def counts(self):
        return dict(train=len(self.train), texts=len(self.train)+len(self.more), test=len(self.test),
            films=int(self.train.movie.nunique()))

    def language_model(self, direction):
        "The language model of one direction on all texts but a twentieth, by which it is judged"
        a,back = self.a,direction=='bwd'
        texts = [*self.train.text, *self.more]
        texts = [texts[i] for i in np.random.default_rng(a.seed).permutation(len(texts))]
        n = len(texts)//20
        if a.pretrained=='none': start = dict(config=sizes['tiny'])
        else: start = dict(pretrained=find_pretrained(a.pretrained, back), lrs=(1e-2,a.lm_lr))
        return fine_tune(texts[n:], texts[:n], a.out/f'lm_{direction}', **start, backwards=back, passes=a.passes,
            max_vocab=a.max_vocab, seed=a.seed, bf16=not a.fp32)

    def classifier(self, direction, recipe, rows, valid=None):
        "A classifier of one direction on the labelled reviews `rows`, from the fine-tuned language model"
        a = self.a
        params = dict(pretrained=str(a.out/f'lm_{direction}'), directions=(direction,), lm_epochs=0,
            max_vocab=a.max_vocab, random_state=a.seed, calibrate=False, validation_fraction=0,
            bf16=False if a.fp32 else 'auto', checkpoint_dir=str(a.out/'checkpoints'))
        texts,labels = self.train.text.iloc[rows],self.train.label.iloc[rows]
        return ULMFiTClassifier(**{**params, **recipe}).fit(texts, labels, valid=valid)

    def fold_file(self, direction, recipe, fold): return self.a.out/f'fold_{direction}_{recipe}_{fold}.npy'

    def tune(self, recipe, fold, direction):
        "How good a recipe is on a fold; its answers are kept for the temperature"
        tr,va = self.folds[fold]
        assert not set(self.train.movie.iloc[tr]) & set(self.train.movie.iloc[va])
        held,how = (self.train.text.iloc[va],self.train.label.iloc[va]),self.recipes[recipe]
        clf = self.classifier(direction, how, tr, valid=held if how.get('monitor') else None)
        p = clf.predict_proba(held[0])
        np.save(self.fold_file(direction, recipe, fold), p)
        return judged(p, held[1], clf.classes_)

    def tune_jobs(self, recipe, direction):
        return [(partial(self.tune, recipe, k, direction),
            dict(job='tune', direction=direction, recipe=recipe, fold=k)) for k in range(len(self.folds))]

    def temperature(self, recipe):
        """One for the average of both directions, from the folds: each review is judged by models that have not seen
        its film"""
        label,names = self.train.label,np.unique(self.train.label)
        ys = np.concatenate([np.searchsorted(names, label.iloc[va]) for _,va in self.folds])
        mean = [sum(np.load(self.fold_file(d, recipe, k)) for d in directions)/2 for k in range(len(self.folds))]
        return fit_temperature(torch.tensor(np.concatenate(mean)), torch.tensor(ys))

    def final(self, recipe, direction):
        "Trained on all labelled reviews"
        how = {k:v for k,v in self.recipes[recipe].items() if k not in ('monitor','patience')}
        clf = self.classifier(direction, how, np.arange(len(self.train)))
        clf.save(self.a.out/f'classifier_{direction}')
        return dict(seconds_of_fit=clf.seconds_)

    def rival(self, name):
        "Fitted before the test reviews are looked at"
        m = rivals[name](self.train.text, self.train.label, groups=self.train.movie)
        self.fitted[name] = m
        return dict(cv_accuracy=float(m.best_score_), best={k:str(v) for k,v in m.best_params_.items()})

    def look(self, recipe):
        "The one look at the test reviews"
        for o in rivals:
            if o not in self.fitted: self.rival(o)
        test,res,ps = self.test,{},{}
        for d in directions:
            clf = ULMFiTClassifier.load(self.a.out/f'classifier_{d}')
            ps[d] = clf.predict_proba(test.text)
            res[d] = judged(ps[d], test.label, clf.classes_)
        both,classes,temp = sum(ps.values())/2,clf.classes_,self.temperature(recipe)
        y = torch.tensor(np.searchsorted(classes, test.label))
        after = with_temperature(torch.tensor(both), temp)
        res['both'] = dict(judged(both, test.label, classes), temperature=temp,
            ece_before=calibration_error(torch.tensor(both), y), ece_after=calibration_error(after, y))
        mine = classes[both.argmax(1)]==test.label.to_numpy()
        return dict(results={**res, **{k:self.beside(m, mine) for k,m in self.fitted.items()}}, n=len(test))

    def beside(self, m, mine):
        "A rival's accuracy, and, paired, how often only one of the two is right; `mine`: where ours is"
        texts,labels = list(self.test.text),self.test.label
        theirs = m.predict(texts)==labels.to_numpy()
        d = mine.astype(float)-theirs
        return dict(accuracy=float(m.score(texts, list(labels))), only_both_right=int((mine&~theirs).sum()),
            only_this_right=int((~mine&theirs).sum()), difference=float(d.mean()),
            standard_error=float(d.std()/len(d)**.5))

def arguments(args=None):
    p = parser(__doc__, out='imdb_2000', threads=1, precision=True)
    p.add_argument('--pretrained', default='wiki-en-compact',
        help="Name or folder prefix of the pretrained models, or 'none'")
    p.add_argument('--labels', type=int, default=2000)
    p.add_argument('--texts', type=int, default=10000)
    p.add_argument('--test', type=int, default=5000)
    p.add_argument('--max-vocab', type=int, default=25000)
    p.add_argument('--passes', type=int, default=5,
        help='How often the language models read the texts; the first time only the outermost layers learn')
    p.add_argument('--lm-lr', type=float, default=6e-3)
    p.add_argument('--recipes', nargs='+', type=int, help='Numbers of the candidates, by default all')
    p.add_argument('--folds', type=int, default=3)
    p.add_argument('--seed', type=int, default=42)
    p.add_argument('--stage', choices=['tune','all'], default='all',
        help="'tune' stops before the test reviews are looked at")
    p.add_argument('--tiny', action='store_true', help='Everything in a minute or two, to see that it works')
    a = p.parse_args(args)
    if a.tiny: vars(a).update(tiny, tiny=True)
    return a

def main(args=None):
    a = arguments(args)
    use_threads(a.threads)
    log,study = Log(a.out/'log.jsonl'),Study(a)
    settings = {k:str(v) for k,v in vars(a).items() if k not in ('folder','out','threads','stage')}
    if log.rows and log.rows[0].get('settings')!=settings:
        raise SystemExit(f"{log.fname} is of other settings: {log.rows[0].get('settings')}; give another --out")
    log.run(study.counts, job='data', settings=settings)
    log.run_all([(partial(study.language_model, d), dict(job='language model', direction=d)) for d in directions])

    n = len(study.recipes)
    done = log.run_all([job for i in range(n) for job in study.tune_jobs(i, 'fwd')])
    score = np.array([o['accuracy'] for o in done]).reshape(n, -1).mean(1)
    best = int(np.argmax(score))
    log.run(lambda: dict(recipe=best, accuracies=[float(o) for o in score], settings_of_it=study.recipes[best]),
        job='chosen')
    log.run_all(study.tune_jobs(best, 'bwd'))
    if a.stage=='tune': return

    finals = [(partial(study.final, best, d), dict(job='final', direction=d)) for d in directions]
    log.run_all([*finals, *[(partial(study.rival, o), dict(job='rival', name=o)) for o in rivals]])
    r = log.run(partial(study.look, best), job='test')['results']
    shown = ('accuracy','cross_entropy','difference','standard_error')
    print(pd.DataFrame({k:{m:v.get(m) for m in shown} for k,v in r.items()}).T.round(4).to_string())

if __name__=='__main__': main()
