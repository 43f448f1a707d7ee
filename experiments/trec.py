"""TREC-6, all 5,452 training questions: test accuracy of ULMFiT (both directions, the estimator's defaults) beside
TF-IDF + LR tuned by cross-validation.

    python experiments/trec.py FOLDER --out trec.jsonl

FOLDER holds trec_train and trec_test as JSON lines. Every finished job is a line of the log, and a killed run goes
on when started again. To use two cores start it twice, each with --threads 1: the processes share the jobs."""
from functools import partial
import torch
from runs import Log, parser, trec, use_threads
from training import tfidf_lr
from ulmfit_nb.ensemble import calibration_error
from ulmfit_nb.estimator import ULMFiTClassifier
from ulmfit_nb.texts import stratified_sample

def rival(train, test):
    m = tfidf_lr(train.text, train.label)
    return dict(accuracy=float(m.score(list(test.text), list(test.label))),
        best={k:str(v) for k,v in m.best_params_.items()})

def ulmfit(a, train, test, seed):
    "The estimator's answers, of each direction, of both, and how far their confidence can be trusted"
    start = {'auto':True, 'none':False}.get(a.pretrained, a.pretrained)
    clf = ULMFiTClassifier(start, ('fwd','bwd'), size=a.size, random_state=seed, lm_epochs=a.lm_epochs,
        bf16=False if a.fp32 else 'auto', checkpoint_dir=f'{a.out}.checkpoints')
    clf.fit(train.text, train.label)
    p,ens = torch.as_tensor(clf.predict_proba(test.text)),clf.ensemble_
    y = ens.ys(test.label)
    each = [o.predict_proba(list(test.text)) for o in ens.learners]
    def accuracy(p): return float((p.argmax(1)==y).float().mean())
    return dict(accuracy=accuracy(p), **{d:accuracy(o) for d,o in zip(clf.directions_, each)},
        pretrained=clf.pretrained_, ece_before=calibration_error(torch.stack(each).mean(0), y),
        ece_after=calibration_error(p, y), fit_seconds=clf.seconds_)

def main(args=None):
    p = parser(__doc__, out='trec.jsonl', threads=1, precision=True)
    p.add_argument('--pretrained', default='auto',
        help="'auto' (the default model if it is found), 'none', a name or a folder")
    p.add_argument('--size', default='compact', help='Size if no pretrained model is used')
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--limit', type=int, help='Use so many training questions only')
    p.add_argument('--lm-epochs', type=int, default=4)
    a = p.parse_args(args)
    use_threads(a.threads)
    log,train,test = Log(a.out),trec(a.folder, 'train'),trec(a.folder, 'test')
    if a.limit: train = stratified_sample(train, a.limit, seed=0)
    key = dict(method='ULMFiT', n=len(train), size=a.size, pretrained_asked=a.pretrained, lm_epochs=a.lm_epochs)
    jobs = [(partial(ulmfit, a, train, test, i), dict(key, seed=i)) for i in range(a.seeds)]
    base,*rows = log.run_all([(partial(rival, train, test), dict(method='TF-IDF + LR', n=len(train))), *jobs])
    accs = [o['accuracy'] for o in rows]
    print('TF-IDF + LR', base['accuracy'])
    print('ULMFiT', *accs, 'mean', sum(accs)/len(accs))

if __name__=='__main__': main()
