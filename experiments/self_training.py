"""What `self_training=True` adds: the estimator's own confident answers as labels, on development texts that no other
table asks about.

    python experiments/self_training.py FOLDER --out nbs/logs/self_training.jsonl

FOLDER holds `imdb` (train) and `small` as JSON lines. Each task with 100 and 500 labels and 400 texts without, fitted
with it and without it, all else the same. Every finished job is a line of the log; a run that was stopped goes on, and
two that are started with the same log share the jobs."""
from functools import partial
import numpy as np
from recipes import development
from runs import Log, parser, use_threads

def fitted(folder, task, n, seed, with_it, n_more=400):
    from ulmfit_nb.estimator import ULMFiTClassifier
    from ulmfit_nb.texts import stratified_sample
    train,test = development(folder, task)
    few = stratified_sample(train, n, seed=seed).sample(frac=1, random_state=seed)
    more = train.drop(few.index).sample(n_more, random_state=seed)
    clf = ULMFiTClassifier(random_state=seed, self_training=with_it)
    clf.fit(few.text, few.label, unlabelled=more.text)
    p = clf.predict_proba(list(test.text))
    right = p[np.arange(len(p)),[list(clf.classes_).index(o) for o in test.label]]
    return dict(accuracy=float((clf.classes_[p.argmax(1)]==test.label.to_numpy()).mean()),
        cross_entropy=float(-np.log(right.clip(1e-9)).mean()), asked=len(p))

def main(args=None):
    p = parser(__doc__, out='nbs/logs/self_training.jsonl', threads=1)
    p.add_argument('--tasks', nargs='+', default=['sst2','trec','sms','sentences','imdb'])
    p.add_argument('--n', nargs='+', type=int, default=[100,500])
    p.add_argument('--seeds', nargs='+', type=int, default=[1])
    a = p.parse_args(args)
    use_threads(a.threads)
    rows = Log(a.out).run_all([(partial(fitted, a.folder, t, n, s, w), dict(task=t, n=n, seed=s, self_training=w))
        for s in a.seeds for n in a.n for t in a.tasks for w in (False,True)])
    by = {(o['task'],o['n'],o['seed'],o['self_training']):o['accuracy'] for o in rows}
    gains = [100*(v-by[(*k[:3],False)]) for k,v in by.items() if k[3]]
    mean = sum(gains)/len(gains)
    print(f'mean {mean:+.2f} points, from {min(gains):+.1f} to {max(gains):+.1f}, in {len(gains)} cells')

if __name__=='__main__': main()
