"""Rates of the classifier's steps, compared on development texts: of the training halves, by texts that no other table
asks about.

    python experiments/recipes.py FOLDER --out nbs/logs/recipes.jsonl

FOLDER holds `imdb` (train) and `small` as JSON lines. For each task and draw of labelled texts a language model is
fine-tuned once, beside the log, and every recipe starts from it: forwards, with the estimator's numbers of epochs,
without a bag of words. Every finished job is a line of the log; two runs with the same log share the jobs."""
from functools import partial
import numpy as np
from runs import Log, parser, use_threads
from second_opinion import load, tasks

recipes = dict(
    high=dict(lrs=(2e-2,2e-2,2e-2,2e-2), div=1.3),
    scratch=dict(lrs=(2e-2,1e-2,1e-2,1e-2), div=1.3), # as it is
    flat=dict(lrs=(2e-2,1e-2,5e-3,5e-3), div=1.3),
    middle=dict(lrs=(2e-2,1e-2,5e-3,5e-3), div=2.6),
    gentle=dict(lrs=(2e-2,1e-2,5e-3,2e-3), div=2.6),
    slow=dict(lrs=(1e-2,5e-3,2e-3,1e-3), div=2.6))

def development(folder, name, most=800):
    "Texts to learn from and texts that are asked about, both of those that `second_opinion.py` learns from"
    from ulmfit_nb.texts import split_texts, stratified_sample
    train,_ = load(folder, name)
    how = dict(group_col='movie', seed=9) if name=='imdb' else dict(seed=3)
    df = split_texts(train.drop(columns='is_valid').reset_index(drop=True), .25, **how)
    return df[~df.is_valid],stratified_sample(df[df.is_valid], min(most, int(df.is_valid.sum())), seed=1)

def language_model(at, few, seed):
    "The folder of a language model that has read the labelled texts"
    from ulmfit_nb.estimator import ULMFiTClassifier
    if not at.exists():
        clf = ULMFiTClassifier(epochs=(1,0,0,0), bag_of_words=False, random_state=seed).fit(few.text, few.label)
        clf.language_model().export(at.absolute())
    return str(at)

def trained(home, folder, task, n, seed, recipe):
    from ulmfit_nb.estimator import ULMFiTClassifier
    from ulmfit_nb.texts import stratified_sample
    train,test = development(folder, task)
    few = stratified_sample(train, n, seed=seed).sample(frac=1, random_state=seed)
    start = language_model(home/f'{task}-{n}-{seed}', few, seed)
    clf = ULMFiTClassifier(pretrained=start, lm_epochs=0, bag_of_words=False, random_state=seed, **recipes[recipe])
    p = clf.fit(few.text, few.label).predict_proba(list(test.text))
    right = p[np.arange(len(p)),[list(clf.classes_).index(o) for o in test.label]]
    return dict(accuracy=float((clf.classes_[p.argmax(1)]==test.label.to_numpy()).mean()),
        cross_entropy=float(-np.log(right.clip(1e-9)).mean()))

def main(args=None):
    p = parser(__doc__, out='nbs/logs/recipes.jsonl', threads=1)
    p.add_argument('--tasks', nargs='+', default=['sst2','trec','sentences','imdb'], choices=list(tasks))
    p.add_argument('--n', nargs='+', type=int, default=[500])
    p.add_argument('--seeds', nargs='+', type=int, default=[1,2])
    a = p.parse_args(args)
    use_threads(a.threads)
    home = a.out.with_suffix('').absolute()
    rows = Log(a.out).run_all([(partial(trained, home, a.folder, t, n, s, r), dict(task=t, n=n, seed=s, recipe=r))
        for s in a.seeds for n in a.n for t in a.tasks for r in recipes])
    for r in recipes:
        mine = [o['accuracy'] for o in rows if o['recipe']==r]
        print(f'{r:10} {sum(mine)/len(mine):.4f} over {len(mine)} trainings')

if __name__=='__main__': main()
