"""Does a classifier's training make the encoder forget, and does unfreezing it step by step help? On development texts
that no other table asks about.

    python experiments/unfreezing.py FOLDER --out nbs/logs/unfreezing.jsonl

FOLDER holds `imdb` (train) and `small` as JSON lines. For each task and draw of labelled texts a language model is
fine-tuned once, beside the log, and every way of training starts from it, with as many epochs. Afterwards the encoder
is put back into the language model (whose decoder shares its word vectors): the perplexity of the texts that are asked
about says what it has forgotten. Every finished job is a line of the log; two runs with the same log share the jobs."""
from functools import partial
import numpy as np
from recipes import development, language_model
from runs import Log, parser, use_threads
from ulmfit_nb import generation # noqa: F401  (a language model's `score`)

ways = { # is everything trained from the first epoch on, and what divides the rate of each group below the head?
    'all at once':dict(gradual=False, div=1.), 'all at once, lower rates below':dict(gradual=False, div=2.6),
    'step by step':dict(gradual=True, div=1.), 'step by step, lower rates below':dict(gradual=True, div=2.6)}

def perplexity(lm, texts):
    "Of all texts together"
    rows = lm.score(list(texts))
    return float(np.exp(-rows.log_likelihood.sum()/rows.n_tokens.sum()))

def trained(home, folder, task, n, seed, way):
    from ulmfit_nb.classifier import enough_epochs, recipes
    from ulmfit_nb.estimator import ULMFiTClassifier
    from ulmfit_nb.texts import stratified_sample
    train,test = development(folder, task)
    few = stratified_sample(train, n, seed=seed).sample(frac=1, random_state=seed)
    start = language_model(home/f'{task}-{n}-{seed}', few, seed)
    how,usual = ways[way],recipes['scratch']
    epochs = enough_epochs(usual['epochs'], n, 10_000)
    if not how['gradual']: epochs = (0,0,0,sum(epochs))
    clf = ULMFiTClassifier(pretrained=start, lm_epochs=0, bag_of_words=False, random_state=seed, epochs=epochs,
        lrs=usual['lrs'], div=how['div']).fit(few.text, few.label)
    lm = clf.language_model()
    before = perplexity(lm, test.text)
    lm.model[0].load_state_dict(clf.ensemble_.learners[0].model[0].module.state_dict())
    return dict(accuracy=float(clf.score(test.text, test.label)), epochs=list(epochs), before=before,
        after=perplexity(lm, test.text))

def main(args=None):
    p = parser(__doc__, out='nbs/logs/unfreezing.jsonl', threads=1)
    p.add_argument('--tasks', nargs='+', default=['sst2','trec','sentences'])
    p.add_argument('--n', nargs='+', type=int, default=[500])
    p.add_argument('--seeds', nargs='+', type=int, default=[1,2])
    a = p.parse_args(args)
    use_threads(a.threads)
    home = a.out.with_suffix('').absolute()
    rows = Log(a.out).run_all([(partial(trained, home, a.folder, t, n, s, w), dict(task=t, n=n, seed=s, way=w))
        for s in a.seeds for n in a.n for t in a.tasks for w in ways])
    for w in ways:
        mine = [o for o in rows if o['way']==w]
        acc,forgot = (sum(f(o) for o in mine)/len(mine) for f in (lambda o: o['accuracy'],
            lambda o: np.log(o['after']/o['before'])))
        print(f'{w:32} accuracy {acc:.4f}, {forgot:+.2f} nats per token, over {len(mine)} trainings')

if __name__=='__main__': main()
