"""What `imdb.py` has trained, used: the classifier that comes with the package, rivals on the same split, and what a
few labels do with its language models.

    python experiments/imdb_sentiment.py FOLDER --run imdb --bundle ulmfit_nb/data/classifiers/imdb-sentiment
    cp imdb/*.jsonl nbs/logs/imdb

FOLDER holds train, unsup and test as JSON lines; RUN is the folder of `imdb.py FOLDER --cpu … --test`, which has looked
at the test half. Whether a bag of words has a say in the classifier is decided on the films that were held out there.
Every finished job is a line of RUN/sentiment.jsonl; start it again after an interruption, or twice at a time with
--threads 1. `--jobs few` does a part, and `--small` is for a run with `--cpu --small`."""
import os, shutil
from functools import cached_property, partial
import numpy as np, torch
from pathlib import Path
from runs import Log, imdb_part, parser, use_threads
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.pipeline import make_pipeline
from training import NBWeights, tfidf_lr
from imdb import Road
from ulmfit_nb.bag_of_words import BagOfWords
from ulmfit_nb.classifier import load_classifier
from ulmfit_nb.ensemble import Ensemble, calibration_error, reliability, with_temperature
from ulmfit_nb.estimator import ULMFiTClassifier
from ulmfit_nb.interpret import attribute

directions = 'fwd','bwd'
C = 'logisticregression__C'
kinds = ['bundle','details','rivals','few']

def chosen(model, Cs, df):
    "`model` with the strength that is best on the films that were held out, fitted to all of `df`"
    held = PredefinedSplit(np.where(df.is_valid, 0, -1))
    return GridSearchCV(model, {C:Cs}, cv=held).fit(list(df.text), list(df.label))

def tfidf_all(df):
    "Words and pairs by TF-IDF"
    model = make_pipeline(TfidfVectorizer(ngram_range=(1,2), sublinear_tf=True), LogisticRegression(max_iter=2000))
    return chosen(model, [3,10,30], df)

def nb_all(df):
    "NB-LR on words, pairs and triples"
    count = CountVectorizer(binary=True, token_pattern=r'\w+|[^\w\s]', ngram_range=(1,3), min_df=2)
    model = make_pipeline(count, NBWeights(1.), LogisticRegression(max_iter=2000, solver='liblinear'))
    return chosen(model, [.03,.1,.3], df)

class Uses:
    "The jobs; `a` are the arguments of the command"
    def __init__(self, a):
        self.a,self.run = a,a.run.absolute()
        first = Log(self.run/'log.jsonl')
        settings = first.rows[0]['settings']
        if settings['refit']:
            raise SystemExit(f'{self.run} has no classifiers that were judged on other films: imdb.py --cpu')
        self.recipe = first.find(job='chosen')['recipe']
        self.looked = next((o for o in first.rows if o['job']=='test' and len(o['directions'])==2), None)
        if self.looked is None and {'bundle','details'}&set(a.jobs):
            raise SystemExit(f'{self.run} has not looked at the test half: imdb.py … --test comes first')
        self.road = Road(a.folder, self.run, settings['pretrained'], settings)
        self.train = self.road.train
        self.held = self.train[self.train.is_valid].reset_index(drop=True)

    @cached_property
    def test(self): return self.road.test()

    def learners(self):
        return [load_classifier(self.run/self.road.final(d, self.recipe, 0)) for d in directions]

    def judged(self, p, labels, df):
        y = torch.tensor([labels.index(o) for o in df.label])
        p = torch.as_tensor(p)
        return dict(accuracy=float((p.argmax(1)==y).float().mean()), ece=calibration_error(p, y), n=len(y))

    def rival(self, make):
        "Its strength is chosen on the films that were held out; it learns from all labelled reviews"
        m = make(self.train)
        p = m.predict_proba(list(self.test.text))
        return dict(self.judged(p, list(m.classes_), self.test), best={k:str(v) for k,v in m.best_params_.items()})

    def listen(self):
        "Does a bag of words help, on the films that were held out?"
        ens = Ensemble(self.learners(), self.road.temperature(directions, self.recipe))
        held = np.load(self.run/f'tuned_fwd_{self.recipe}_0.npz')['y']
        assert len(held)==len(self.held)
        known = self.train[~self.train.is_valid]
        bag = BagOfWords(('word',), max_features=self.a.entries)
        bag.fit(list(known.text), ens.ys(known.label).numpy(), len(ens.labels))
        with_bag = ens.networks_proba(self.held.text)
        alone = self.judged(with_bag, ens.labels, self.held)
        ens.listen(bag, list(self.held.text), list(self.held.label))
        both = self.judged(ens.with_bag(with_bag, list(self.held.text)), ens.labels, self.held)
        bag.save(self.run/'bag')
        return dict(alone=alone, both=both, weights=ens.weights, bag=self.judged(np.exp(bag.log_proba(
            list(self.held.text))), ens.labels, self.held))

    def in_8_bits(self, ens):
        "The ensemble that is shipped, and what its networks say of the test half"
        small,file = Ensemble.load(ens.save(self.run/'bundle', 'int8')),self.run/'bundle_probs.npy'
        if not file.exists(): np.save(file, small.networks_proba(self.test.text).numpy())
        return small,torch.from_numpy(np.load(file))

    def bundle(self, listened):
        "Eight bits for each weight, scored on the test half"
        ens = Ensemble(self.learners(), self.road.temperature(directions, self.recipe))
        if listened['both']['accuracy']>listened['alone']['accuracy']+self.a.worth:
            ens.bag,ens.weights = BagOfWords.load(self.run/'bag'),tuple(listened['weights'])
        labels = ens.labels
        small,nets = self.in_8_bits(ens)
        probs = small.with_bag(nets, list(self.test.text))
        res = dict(self.judged(probs, labels, self.test), networks=self.judged(nets, labels, self.test),
            bag=bool(ens.bag), temperature=ens.temperature)
        was,seed = self.looked['results'],self.looked['seeds'][0]
        before,one,other = was['all'],*(was[f'{d} {seed}']['accuracy'] for d in directions)
        card = {'what':'Is a review of a film positive (pos) or negative (neg)? English.',
            'trained on':f"{len(self.train)-len(self.held):,} labelled reviews of IMDb's training half (Maas et al., "
                f"2011); its language models read {(~self.road.lm_texts.is_valid).sum():,} reviews, after Wikipedia",
            'accuracy':f"{res['accuracy']:.2%} of the {res['n']:,} reviews of the test half, of other films, looked at "
                f"{self.a.looks}; before the rounding to 8 bits {before['accuracy']:.2%}, forwards alone "
                f'{one:.2%}, backwards {other:.2%}',
            'calibration':f"expected calibration error {res['ece']:.3f} on the test half",
            'limits':'No review with 5 or 6 of 10 stars had a label, and no text was about anything but films. It is '
                'no judge of people, and what it learned of film reviews of before 2011 may be wrong today.',
            'licence':'The weights come from texts of Wikipedia (CC BY-SA 3.0) and of users of IMDb; none of them is '
                'contained. See NOTICE.'}
        ens.save(self.run/'bundle', 'int8', card)
        size = sum(o.stat().st_size for o in (self.run/'bundle').rglob('*') if o.is_file())
        if self.a.bundle:
            shutil.rmtree(self.a.bundle, ignore_errors=True)
            shutil.copytree(self.run/'bundle', self.a.bundle)
        return dict(res, bytes=size, before=before)

    def details(self, n_worst=10, n_words=14):
        "Of both directions on the test half: reliability, confusion, and what the worst errors were made for"
        r,seed = self.road,self.looked['seeds'][0]
        ens = Ensemble(self.learners(), r.temperature(directions, self.recipe))
        saved = np.load(self.run/'test_probs.npz')
        p = with_temperature(torch.tensor(np.mean([saved[f'{d}_{seed}'] for d in directions], 0)), ens.temperature)
        y = torch.tensor(saved['y'])
        def words(text):
            "Those with the largest shares, in the order of the text"
            a = attribute(ens, text).words()
            top = sorted(sorted(range(len(a)), key=lambda i: -abs(a[i][1]))[:n_words])
            return [(a[i][0],round(a[i][1], 4)) for i in top]
        worst = []
        for o in self.looked['worst'][:n_worst]:
            row = self.test.iloc[o['row']]
            worst.append(dict(movie=row.movie, label=row.label, stars=int(row.rating), n_words=len(row.text.split()),
                answer=ens.labels[int(p[o['row']].argmax())], p=float(p[o['row']].max()), words=words(row.text)))
        counts = (y*2+p.argmax(1)).bincount(minlength=4).view(2, 2)
        return dict(labels=ens.labels, confusion=counts.tolist(), temperature=ens.temperature, worst=worst,
            reliability=reliability(p, y).to_dict('records'), ece=calibration_error(p, y))

    def few(self, n, draw):
        "Classifiers on the language models of the run, trained with `n` labels"
        home = self.run/'home'/'pretrained'
        home.mkdir(parents=True, exist_ok=True)
        os.environ['ULMFIT_HOME'] = str(home.parent)
        for d in directions:
            if not (home/f'imdb-{d}').exists(): (home/f'imdb-{d}').symlink_to(self.run/f'lm_{d}')
        train = imdb_part(self.a.folder, 'train', n, seed=draw)
        test = imdb_part(self.a.folder, 'test', self.a.test, seed=0)
        clf = ULMFiTClassifier('imdb', self.a.few_directions, lm_epochs=0, bag_of_words=True, bf16='auto',
            random_state=draw)
        clf.fit(train.text, train.label)
        ens,labels = clf.ensemble_,list(clf.classes_)
        alone = ens.networks_proba(test.text)
        rival = tfidf_lr(train.text, train.label)
        ps = {'ULMFiT':alone, 'with a bag of words':ens.with_bag(alone, list(test.text)),
            'TF-IDF + LR':rival.predict_proba(list(test.text))}
        return dict(results={k:self.judged(v, labels, test) for k,v in ps.items()}, seconds_of_fit=clf.seconds_)

def arguments(args=None):
    p = parser(__doc__, threads=1)
    p.add_argument('--run', type=Path, default=Path('imdb'), help='Folder of imdb.py')
    p.add_argument('--bundle', type=Path, help='Where the classifier goes, too')
    p.add_argument('--entries', type=int, default=60000, help='Of the bag of words')
    p.add_argument('--worth', type=float, default=.003, help='A bag of words must help by this share of the reviews')
    p.add_argument('--test', type=int, default=5000, help='Reviews by which few labels are judged')
    p.add_argument('--labels', type=int, nargs='+', default=[100,500])
    p.add_argument('--draws', type=int, default=3)
    p.add_argument('--looks', default='once', help='How often the test half was looked at, for the card')
    p.add_argument('--few-directions', nargs='+', default=['fwd'], choices=directions)
    p.add_argument('--jobs', nargs='+', default=kinds, choices=kinds)
    p.add_argument('--small', action='store_true')
    a = p.parse_args(args)
    if a.small: a.labels,a.draws,a.test,a.entries = [40],1,40,500
    return a

def main(args=None):
    a = arguments(args)
    use_threads(a.threads)
    uses,log = Uses(a),Log(a.run/'sentiment.jsonl')
    if 'bundle' in a.jobs:
        listened = log.run(uses.listen, job='listen')
        log.run(partial(uses.bundle, listened), job='bundle')
    if 'details' in a.jobs: log.run(uses.details, job='details')
    if 'few' in a.jobs:
        key = dict(job='few', directions=a.few_directions)
        log.run_all([(partial(uses.few, n, i),dict(key, labels=n, draw=i)) for i in range(a.draws) for n in a.labels])
    if 'rivals' in a.jobs:
        makers = {'TF-IDF + LR':tfidf_all, 'NB-LR':nb_all}
        log.run_all([(partial(uses.rival, v),dict(job='rival', name=k)) for k,v in makers.items()])

if __name__=='__main__': main()
