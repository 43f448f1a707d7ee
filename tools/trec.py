"""TREC-6, all 5,452 training questions: test accuracy of ULMFiT (both directions, the estimator's defaults) beside TF-IDF + LR tuned by cross-validation.

    python tools/trec.py FOLDER --out trec.jsonl

FOLDER holds trec_train and trec_test as JSON lines. Every finished job is a line of the log, and a killed run goes on when started again. To use
two cores start it twice, each with --threads 1: the processes share the jobs."""
import argparse, os
from pathlib import Path
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('folder', type=Path)
parser.add_argument('--out', type=Path, default=Path('trec.jsonl'))
parser.add_argument('--pretrained', default='auto', help="'auto' (the default model if it is found), 'none', a name or a folder")
parser.add_argument('--size', default='compact', help='Size where no pretrained model is used')
parser.add_argument('--seeds', type=int, default=3)
parser.add_argument('--limit', type=int, help='Use so many training questions only')
parser.add_argument('--threads', type=int, default=1)
parser.add_argument('--lm-epochs', type=int, default=4)
parser.add_argument('--fp32', action='store_true', help='Never train in bfloat16')
args = parser.parse_args()
os.environ['OMP_NUM_THREADS'] = str(args.threads)

import torch
from functools import partial
from runs import Log, tfidf_lr, trec
from ulmfit_nb.ensemble import calibration_error
from ulmfit_nb.estimator import ULMFiTClassifier
from ulmfit_nb.texts import stratified_sample
torch.set_num_threads(args.threads)

log,train,test = Log(args.out),trec(args.folder, 'train'),trec(args.folder, 'test')
if args.limit: train = stratified_sample(train, args.limit, seed=0)

def rival():
    m = tfidf_lr(train.text, train.label)
    return dict(accuracy=float(m.score(list(test.text), list(test.label))), best={k:str(v) for k,v in m.best_params_.items()})

def ulmfit(seed):
    start,how = {'auto':True, 'none':False}.get(args.pretrained, args.pretrained),dict(lm_epochs=args.lm_epochs, bf16=False if args.fp32 else 'auto')
    clf = ULMFiTClassifier(start, ('fwd','bwd'), size=args.size, random_state=seed, checkpoint_dir=f'{args.out}.checkpoints', **how)
    clf.fit(train.text, train.label)
    p,ens = torch.as_tensor(clf.predict_proba(test.text)),clf.ensemble_
    y = ens.ys(test.label)
    alone = {d:float((o.predict_proba(list(test.text)).argmax(1)==y).float().mean()) for d,o in zip(clf.directions_, ens.learners)}
    raw = torch.stack([o.predict_proba(list(test.text)) for o in ens.learners]).mean(0)
    return dict(accuracy=float((p.argmax(1)==y).float().mean()), **alone, pretrained=clf.pretrained_, ece_before=calibration_error(raw, y), ece_after=calibration_error(p, y), fit_seconds=clf.seconds_)

same = dict(method='ULMFiT', n=len(train), size=args.size, pretrained_asked=args.pretrained, lm_epochs=args.lm_epochs)
jobs = [(rival, dict(method='TF-IDF + LR', n=len(train))), *[(partial(ulmfit, i), dict(same, seed=i)) for i in range(args.seeds)]]
base,*rows = log.run_all(jobs)
accs = [o['accuracy'] for o in rows]
print('TF-IDF + LR', base['accuracy'])
print('ULMFiT', *accs, 'mean', sum(accs)/len(accs))
