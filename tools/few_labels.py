"""Accuracy against the number of labels, from random weights and from a pretrained model, each without and with a language model trained on unlabelled texts, beside TF-IDF + LR.

    python tools/few_labels.py FOLDER --out nbs/logs/few_labels.jsonl

FOLDER holds `imdb` (train) and `small` (trec_train, trec_test) as JSON lines. IMDb: labelled and unlabelled texts and those that are asked about are of the train half, and no film is
in both parts. For each seed there is one pile of texts; the language models read all of it, pretrained and from scratch with the same vocabulary and as many passes, and the labelled texts
are a sample of it. Of ULMFiT only the language model's rate was chosen beforehand, by its loss on another sample of the train half; the rival is tuned by
cross-validation.

Every finished job is a line of the log, and a run that was killed goes on when started again. To use two cores start it twice, each with --threads 1: the processes share the jobs.
`--plan` prints how many tokens the jobs read, and `--tiny` runs everything in minutes, to see that it works."""
import argparse, os
from pathlib import Path
methods = {'tfidf':'TF-IDF + LR', 'scratch':'from scratch', 'scratch-lm':'from scratch + language model', 'pretrained':'pretrained', 'pretrained-lm':'pretrained + language model'}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('folder', type=Path)
parser.add_argument('--out', type=Path, default=Path('few_labels.jsonl'))
parser.add_argument('--data', nargs='+', default=['imdb','trec'], choices=['imdb','trec'])
parser.add_argument('--methods', nargs='+', default=list(methods), choices=list(methods))
parser.add_argument('--pretrained', default='wiki-en-compact', help='Name or folder prefix of the pretrained models')
parser.add_argument('--n', nargs='+', type=int, help='Numbers of labels, default 100 500 2000 (IMDb), 500 5452 (TREC)')
parser.add_argument('--seeds', nargs='+', type=int, default=[0,1,2])
parser.add_argument('--texts', type=int, default=4000, help='Reviews that the language models read; of TREC all questions are')
parser.add_argument('--passes', type=int, default=4, help='How often they read them')
parser.add_argument('--seen', type=int, default=10000, help="Texts, with repetitions, that a classifier reads in its last step at least (each at most 20 times); the estimator's own number, of small models, is 10000")
parser.add_argument('--test', type=int, default=1000, help='Reviews of other films to ask about')
parser.add_argument('--held', type=int, default=300, help='How many of them the language models are judged by')
parser.add_argument('--threads', type=int, default=1)
parser.add_argument('--fp32', action='store_true', help='Never train in bfloat16')
parser.add_argument('--backwards', action='store_true')
parser.add_argument('--plan', action='store_true')
parser.add_argument('--tiny', action='store_true')
args = parser.parse_args()
ns = dict(imdb=args.n or [100,500,2000], trec=args.n or [500,5452])
if args.tiny: ns,args.seeds,args.texts,args.passes,args.seen,args.test,args.held = dict(imdb=[40], trec=[60]),args.seeds[:2],80,2,0,40,10
if max(ns['imdb'])>args.texts and 'imdb' in args.data: parser.error('the labelled reviews are a sample of --texts; give more of them')
os.environ['OMP_NUM_THREADS'] = str(args.threads)

import torch
from functools import partial
from runs import Log, fine_tune, tfidf_lr, trec
from ulmfit_nb.classifier import recipes
from ulmfit_nb.estimator import ULMFiTClassifier, enough_epochs, sizes
from ulmfit_nb.language_model import find_pretrained, read_meta
from ulmfit_nb.texts import imdb, split_texts, stratified_sample
torch.set_num_threads(args.threads)

direction = 'bwd' if args.backwards else 'fwd'
home = args.out.with_suffix('').absolute() # of the language models
pretrained = find_pretrained(args.pretrained, args.backwards)
config = {k:read_meta(pretrained/'model.json')['config'][k] for k in ('emb_sz','n_hid')}
size = next((k for k,v in sizes.items() if v==config), None) # from random weights it is as large
if size is None: raise SystemExit(f'{pretrained} has sizes that the estimator has no name for: {config}')

def load(name):
    "Training texts and those that are asked about, all with labels"
    if name=='trec': return trec(args.folder/'small', 'train'),trec(args.folder/'small', 'test')
    df = split_texts(imdb(args.folder/'imdb', 'train'), .2, group_col='movie', seed=0)
    train,other = df[~df.is_valid],df[df.is_valid]
    assert not set(train.movie) & set(other.movie)
    return train,stratified_sample(other, args.test, seed=0)

def language_model(name, pile, test, seed, start):
    from_there = dict(pretrained=pretrained) if start=='pretrained' else dict(config=config)
    held = test.text.sample(min(len(test), args.held), random_state=0) # the file is sorted by label
    return fine_tune(pile.text, held, home/f'{name}-{start}-{seed}-{direction}', **from_there, backwards=args.backwards, passes=args.passes, seed=seed, bf16=not args.fp32)

def epochs_for(n): # as the estimator does with a small model, whatever it starts from
    return enough_epochs((1,0,0,1) if args.tiny else recipes['scratch']['epochs'], n, args.seen)

def classify(few, test, seed, start, epochs):
    where = dict(pretrained=str(start)) if start else dict(pretrained=False, size=size)
    clf = ULMFiTClassifier(**where, directions=(direction,), lm_epochs=0, epochs=epochs, random_state=seed, bf16=False if args.fp32 else 'auto', checkpoint_dir=f'{args.out}.checkpoints')
    clf.fit(few.text, few.label)
    return dict(accuracy=clf.score(test.text, test.label), pretrained=clf.pretrained_, temperature=clf.ensemble_.temperature, vocab=len(clf.ensemble_.learners[0].vocab))

def baseline(few, test):
    m = tfidf_lr(few.text, few.label, cv=3 if len(few)<=100 else 5)
    return dict(accuracy=float(m.score(list(test.text), list(test.label))), best={k:str(v) for k,v in m.best_params_.items()})

def jobs_of(name):
    "Jobs that depend on nothing, the longest first, and those that begin with a language model of this data"
    train,test = load(name)
    same = dict(data=name, test=len(test), direction=direction, size=size)
    now,then = [],[]
    for seed in args.seeds:
        pile = stratified_sample(train, min(len(train), args.texts if name=='imdb' else len(train)), seed=seed)
        lm = dict(same, texts=len(pile), passes=args.passes, seed=seed)
        for start in ('scratch','pretrained'):
            if f'{start}-lm' in args.methods: now.append((partial(language_model, name, pile, test, seed, start), dict(lm, method='language model', start=start)))
        for n in ns[name]:
            few = stratified_sample(pile, n, seed=seed).sample(frac=1, random_state=seed)
            key = dict(same, n=n, seed=seed)
            if 'tfidf' in args.methods: now.append((partial(baseline, few, test), dict(key, method=methods['tfidf'])))
            epochs = epochs_for(int(n*.9)) # a tenth is held out for the temperature
            for start in ('scratch','pretrained'):
                how = dict(key, epochs=epochs)
                if start in args.methods: now.append((partial(classify, few, test, seed, pretrained if start=='pretrained' else None, epochs), dict(how, method=methods[start])))
                own = home/f'{name}-{start}-{seed}-{direction}'
                if f'{start}-lm' in args.methods: then.append((partial(classify, few, test, seed, own, epochs), dict(how, **{k:lm[k] for k in ('texts','passes')}, method=methods[f'{start}-lm'])))
    return now,then

def plan(name):
    "Tokens that are read: by language models, by classifiers in training, by classifiers that are asked"
    train,test = load(name)
    per = 1.25*train.text.str.split().str.len().mean() # tokens of a text, about
    texts = args.texts if name=='imdb' else len(train)
    lm = sum(texts*per*args.passes for o in args.methods if o.endswith('-lm'))*len(args.seeds)
    nets = [o for o in args.methods if o!='tfidf']
    clas = sum(n*per*sum(epochs_for(int(n*.9))) for o in nets for n in ns[name])*len(args.seeds)
    ask = len(nets)*len(ns[name])*len(test)*per*len(args.seeds)
    print(f'{name}: language models {lm/1e6:.1f} M tokens, classifiers {clas/1e6:.1f} M, questions {ask/1e6:.1f} M')

if args.plan:
    for name in args.data: plan(name)
    raise SystemExit
log = Log(args.out)
home.mkdir(parents=True, exist_ok=True)
todo = [jobs_of(o) for o in args.data]
for i in (0,1): log.run_all([o for jobs in todo for o in jobs[i]])

rows = [o for o in log.rows if 'accuracy' in o]
for k in sorted({(o['data'],o['n'],o['method']) for o in rows}):
    accs = [o['accuracy'] for o in rows if (o['data'],o['n'],o['method'])==k]
    print(*k, ' '.join(f'{o:.4f}' for o in accs), f'mean {sum(accs)/len(accs):.4f}')
for o in log.rows:
    if o['method']=='language model': print(o['data'], o['start'], o['seed'], f"loss {o['valid_loss']:.4f} on texts of other films, vocabulary {o['vocab']:,} ({o['vocab_sha']})")
