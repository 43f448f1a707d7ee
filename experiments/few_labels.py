"""Accuracy against the number of labels, from random weights and from a pretrained model, each without and with a
language model trained on unlabelled texts, beside TF-IDF + LR.

    python experiments/few_labels.py FOLDER --out nbs/logs/few_labels.jsonl

FOLDER holds `imdb` (train) and `small` (trec_train, trec_test) as JSON lines. IMDb: labelled and unlabelled texts
and those that are asked about are of the train half, and no film is in both parts. For each seed there is one pile
of texts; the language models read all of it, pretrained and from scratch with the same vocabulary and as many
passes, and the labelled texts are a sample of it. Of ULMFiT only the language model's rate was chosen beforehand,
by its loss on another sample of the train half; the rival is tuned by cross-validation.

Every finished job is a line of the log, and a run that was killed goes on when started again. To use two cores
start it twice, each with --threads 1: the processes share the jobs. `--plan` prints how many tokens the jobs read,
and `--tiny` runs everything in minutes, to see that it works."""
from functools import partial
from pathlib import Path
from runs import Log, imdb_part, parser, trec, use_threads
from training import fine_tune, tfidf_lr
from ulmfit_nb.classifier import enough_epochs, recipes
from ulmfit_nb.estimator import ULMFiTClassifier, sizes
from ulmfit_nb.files import read_meta
from ulmfit_nb.pretrained import find_pretrained
from ulmfit_nb.texts import split_texts, stratified_sample

methods = {'tfidf':'TF-IDF + LR', 'scratch':'from scratch', 'scratch-lm':'from scratch + language model',
    'pretrained':'pretrained', 'pretrained-lm':'pretrained + language model'}
tiny = dict(texts=80, passes=2, seen=0, test=40, held=10)

class Study:
    "The jobs and what each of them does; `a` are the arguments of the command, `ns` the numbers of labels by data"
    def __init__(self, a, ns):
        self.a,self.ns = a,ns
        self.direction = 'bwd' if a.backwards else 'fwd'
        self.home = a.out.with_suffix('').absolute() # of the language models
        self.pretrained = find_pretrained(a.pretrained, a.backwards)
        config = read_meta(self.pretrained/'model.json')['config']
        self.config = {k:config[k] for k in ('emb_sz','n_hid')}
        self.size = next((k for k,v in sizes.items() if v==self.config), None) # from random weights it is as large
        if self.size is None:
            raise SystemExit(f'{self.pretrained} has sizes that the estimator has no name for: {self.config}')

    def load(self, name):
        "Training texts and those that are asked about, all with labels"
        folder = self.a.folder
        if name=='trec': return trec(folder/'small', 'train'),trec(folder/'small', 'test')
        df = split_texts(imdb_part(folder/'imdb', 'train'), .2, group_col='movie', seed=0)
        train,other = df[~df.is_valid],df[df.is_valid]
        assert not set(train.movie) & set(other.movie)
        return train,stratified_sample(other, self.a.test, seed=0)

    def lm_folder(self, name, start, seed): return self.home/f'{name}-{start}-{seed}-{self.direction}'

    def language_model(self, name, pile, test, seed, start):
        "Fine-tuned on the pile, judged on some of the texts that are asked about"
        how = dict(pretrained=self.pretrained) if start=='pretrained' else dict(config=self.config)
        held = test.text.sample(min(len(test), self.a.held), random_state=0) # the file is sorted by label
        return fine_tune(pile.text, held, self.lm_folder(name, start, seed), **how, backwards=self.a.backwards,
            passes=self.a.passes, seed=seed, bf16=not self.a.fp32)

    def epochs_for(self, n):
        "Of each step with `n` labels, as the estimator does with a small model, whatever it starts from"
        return enough_epochs((1,0,0,1) if self.a.tiny else recipes['scratch']['epochs'], n, self.a.seen)

    def classify(self, few, test, seed, start, epochs):
        "A classifier from the model in the folder `start`, or from random weights"
        how = dict(pretrained=str(start)) if start else dict(pretrained=False, size=self.size)
        clf = ULMFiTClassifier(**how, directions=(self.direction,), lm_epochs=0, epochs=epochs, random_state=seed,
            bf16=False if self.a.fp32 else 'auto', checkpoint_dir=f'{self.a.out}.checkpoints')
        clf.fit(few.text, few.label)
        ens,texts,y = clf.ensemble_,list(test.text),test.label.to_numpy()
        alone = ens.networks_proba(texts)
        def right(p): return float((clf.classes_[p.numpy().argmax(1)]==y).mean())
        return dict(accuracy=right(alone), with_bag=right(ens.with_bag(alone, texts)), pretrained=clf.pretrained_,
            temperature=clf.ensemble_.temperature, vocab=len(clf.ensemble_.learners[0].vocab))

    def baseline(self, few, test):
        m = tfidf_lr(few.text, few.label, cv=3 if len(few)<=100 else 5)
        return dict(accuracy=float(m.score(list(test.text), list(test.label))),
            best={k:str(v) for k,v in m.best_params_.items()})

    def jobs(self, name):
        "Jobs that depend on nothing, the longest first, and those that begin with a language model of this data"
        a,(train,test) = self.a,self.load(name)
        now,then = [],[]
        for seed in a.seeds:
            pile = stratified_sample(train, min(len(train), a.texts if name=='imdb' else len(train)), seed=seed)
            same = dict(data=name, test=len(test), direction=self.direction, size=self.size, seed=seed)
            read = dict(texts=len(pile), passes=a.passes)
            for start in ('scratch','pretrained'):
                if f'{start}-lm' not in a.methods: continue
                now.append((partial(self.language_model, name, pile, test, seed, start),
                    dict(same, **read, method='language model', start=start)))
            for n in self.ns[name]:
                few = stratified_sample(pile, n, seed=seed).sample(frac=1, random_state=seed)
                key = dict(same, n=n)
                if 'tfidf' in a.methods: now.append((partial(self.baseline, few, test),
                    dict(key, method=methods['tfidf'])))
                epochs = self.epochs_for(int(n*.9)) # a tenth is held out for the temperature
                key['epochs'] = epochs
                for start,base in (('scratch',None), ('pretrained',self.pretrained)):
                    if start in a.methods: now.append((partial(self.classify, few, test, seed, base, epochs),
                        dict(key, method=methods[start])))
                    if f'{start}-lm' in a.methods:
                        own = self.lm_folder(name, start, seed)
                        then.append((partial(self.classify, few, test, seed, own, epochs),
                            dict(key, **read, method=methods[f'{start}-lm'])))
        return now,then

    def plan(self, name):
        "Tokens that are read: by language models, by classifiers in training, by classifiers that are asked"
        a,(train,test) = self.a,self.load(name)
        per = 1.25*train.text.str.split().str.len().mean() # tokens of a text, about
        texts = a.texts if name=='imdb' else len(train)
        lm = sum(texts*per*a.passes for o in a.methods if o.endswith('-lm'))*len(a.seeds)
        nets = [o for o in a.methods if o!='tfidf']
        clas = sum(n*per*sum(self.epochs_for(int(n*.9))) for o in nets for n in self.ns[name])*len(a.seeds)
        ask = len(nets)*len(self.ns[name])*len(test)*per*len(a.seeds)
        print(f'{name}: language models {lm/1e6:.1f} M tokens, classifiers {clas/1e6:.1f} M, questions {ask/1e6:.1f} M')

def arguments(args=None):
    "What the command was given, and the numbers of labels by data"
    p = parser(__doc__, out='few_labels.jsonl', threads=1, precision=True)
    p.add_argument('--data', nargs='+', default=['imdb','trec'], choices=['imdb','trec'])
    p.add_argument('--methods', nargs='+', default=list(methods), choices=list(methods))
    p.add_argument('--pretrained', default='wiki-en-compact', help='Name or folder prefix of the pretrained models')
    p.add_argument('--n', nargs='+', type=int,
        help='Numbers of labels, default 100 500 2000 (IMDb), 500 5452 (TREC)')
    p.add_argument('--seeds', nargs='+', type=int, default=[0,1,2])
    p.add_argument('--texts', type=int, default=4000,
        help='Reviews that the language models read; of TREC all questions are')
    p.add_argument('--passes', type=int, default=4, help='How often they read them')
    p.add_argument('--seen', type=int, default=10000,
        help='Texts, with repetitions, that a classifier reads in its last step at least (each at most 20 times); '
            "the estimator's own number, of small models, is 10000")
    p.add_argument('--test', type=int, default=1000, help='Reviews of other films to ask about')
    p.add_argument('--held', type=int, default=300, help='How many of them the language models are judged by')
    p.add_argument('--backwards', action='store_true')
    p.add_argument('--plan', action='store_true', help='Only print how many tokens would be read')
    p.add_argument('--tiny', action='store_true', help='Everything in minutes, to see that it works')
    a = p.parse_args(args)
    ns = dict(imdb=a.n or [100,500,2000], trec=a.n or [500,5452])
    if a.tiny:
        ns = dict(imdb=[40], trec=[60])
        vars(a).update(tiny, seeds=a.seeds[:2])
    if max(ns['imdb'])>a.texts and 'imdb' in a.data:
        p.error('the labelled reviews are a sample of --texts; give more of them')
    return a,ns

def report(rows):
    "Print the accuracies by data, number of labels and method, and how well the language models guess"
    scored = [o for o in rows if 'accuracy' in o]
    for k in sorted({(o['data'],o['n'],o['method']) for o in scored}):
        accs = [o['accuracy'] for o in scored if (o['data'],o['n'],o['method'])==k]
        print(*k, ' '.join(f'{o:.4f}' for o in accs), f'mean {sum(accs)/len(accs):.4f}')
    for o in rows:
        if o['method']=='language model':
            print(o['data'], o['start'], o['seed'],
                f"loss {o['valid_loss']:.4f} on texts of other films, vocabulary {o['vocab']:,} ({o['vocab_sha']})")

def main(args=None):
    a,ns = arguments(args)
    use_threads(a.threads)
    study = Study(a, ns)
    if a.plan:
        for name in a.data: study.plan(name)
        return
    log = Log(a.out)
    study.home.mkdir(parents=True, exist_ok=True)
    todo = [study.jobs(o) for o in a.data]
    for i in (0,1): log.run_all([o for jobs in todo for o in jobs[i]])
    report(log.rows)

if __name__=='__main__': main()
