"""Accuracy against the number of labels: from random weights, from a pretrained model, with the language model fine-tuned on unlabelled texts, and TF-IDF + LR.

    python tools/few_labels.py FOLDER --out few_labels.jsonl

FOLDER holds `imdb` (train, test, unsup) and `small` (trec_train, trec_test) as JSON lines. Nothing is tuned for ULMFiT here, the estimator's defaults are used; the rival is tuned
by cross-validation. Every finished job is a line of the log; a run that was killed goes on when started again. `--tiny` runs everything in minutes, to see that it works."""
import argparse, math, os
from pathlib import Path
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('folder', type=Path)
parser.add_argument('--out', type=Path, default=Path('few_labels.jsonl'))
parser.add_argument('--data', nargs='+', default=['imdb','trec'], choices=['imdb','trec'])
parser.add_argument('--pretrained', default='wiki-en-compact', help="Name or folder of the pretrained model, or 'none' to leave two of the methods out")
parser.add_argument('--seeds', type=int, default=3)
parser.add_argument('--test', type=int, default=2000, help='Test reviews of IMDb')
parser.add_argument('--unlabelled', type=int, default=10000, help='Unlabelled reviews of IMDb')
parser.add_argument('--threads', type=int, default=2)
parser.add_argument('--both', action='store_true', help='Both directions instead of forwards')
parser.add_argument('--tiny', action='store_true')
args = parser.parse_args()
os.environ['OMP_NUM_THREADS'] = str(args.threads)

import torch
from runs import Log, tfidf_lr, trec
from ulmfit_nb.estimator import ULMFiTClassifier
from ulmfit_nb.texts import imdb, stratified_sample
torch.set_num_threads(args.threads)

ns = dict(imdb=[100,500,2000], trec=[500,5452])
if args.tiny: ns,args.seeds,args.test,args.unlabelled = dict(imdb=[40], trec=[60]),1,40,60
directions = ('fwd','bwd') if args.both else ('fwd',)
log = Log(args.out)

def load(name):
    "Labelled training texts, unlabelled ones, test"
    if name=='trec': return trec(args.folder/'small', 'train'),[],trec(args.folder/'small', 'test')
    d = args.folder/'imdb'
    more = imdb(d, 'unsup')
    return imdb(d, 'train'),more.sample(min(len(more), args.unlabelled), random_state=0).text.tolist(),stratified_sample(imdb(d, 'test'), args.test, seed=0)

def ulmfit(train, more, test, seed, **params):
    if args.tiny: params.update(epochs=(1,0,0,1))
    clf = ULMFiTClassifier(directions=directions, random_state=seed, checkpoint_dir=str(args.out)+'.checkpoints', **params).fit(train.text, train.label, unlabelled=more)
    return dict(accuracy=clf.score(test.text, test.label), pretrained=clf.pretrained_, temperature=clf.ensemble_.temperature, vocab=len(clf.ensemble_.learners[0].vocab))

def finetuned(name, train, more):
    "The language model fine-tuned on all texts of the data set, once: it needs no labels, so all sizes and seeds share it. Its name, without the direction"
    home = args.out.with_suffix('').absolute()
    def f():
        texts = train.text.tolist()[:60] if args.tiny else train.text.tolist() if name=='trec' else more
        lm = ULMFiTClassifier(pretrained=args.pretrained, directions=directions, validation_fraction=0, epochs=(0,0,0,0), lm_epochs=1 if args.tiny else 6)
        lm.fit(texts[:2], [0,1], unlabelled=texts[2:])
        for d in directions: lm.language_model(d).export(home/f'{name}-{d}')
        return dict(perplexity=math.exp(lm.history_.valid_loss.dropna().iloc[-1]), texts=len(texts))
    log.run(f, data=name, method='fine-tune language model')
    return home/name

for name in args.data:
    train,more,test = load(name)
    for n in ns[name]:
        for seed in range(args.seeds):
            few = stratified_sample(train, n, seed=seed).sample(frac=1, random_state=seed)
            key = dict(data=name, n=n, seed=seed)
            log.run(lambda: dict(accuracy=float(tfidf_lr(few.text, few.label, cv=3 if n<=100 else 5).score(list(test.text), list(test.label)))), method='TF-IDF + LR', **key)
            scratch = dict(pretrained=False, lm_epochs=0, **({'size':'tiny'} if args.tiny else {}))
            log.run(lambda: ulmfit(few, [], test, seed, **scratch), method='from scratch', **key)
            if args.pretrained=='none': continue
            log.run(lambda: ulmfit(few, [], test, seed, pretrained=args.pretrained, lm_epochs=0), method='pretrained', **key)
            own = finetuned(name, train, more)
            texts = more[:0 if args.tiny else None]
            log.run(lambda: ulmfit(few, texts, test, seed, pretrained=str(own), lm_epochs=0), method='pretrained + language model', **key)

rows = [o for o in log.rows if 'accuracy' in o]
for k in sorted({(o['data'],o['n'],o['method']) for o in rows}):
    accs = [o['accuracy'] for o in rows if (o['data'],o['n'],o['method'])==k]
    print(*k, ' '.join(f'{o:.4f}' for o in accs), f'mean {sum(accs)/len(accs):.4f}')
