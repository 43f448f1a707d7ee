"""The demo over several splits: the accuracy of ULMFiT minus that of TF-IDF with logistic regression on the same
split, and the interval of its mean.

    python experiments/demo_splits.py --out nbs/logs/demo_splits.jsonl

Each split is that of `ulmfit demo --seed S`: 2,400 of the bundled sentences to train on, 600 to judge. The seeds
are fixed beforehand, 1 to --splits. Every finished split is a line of the log; a run that was killed goes on when
started again, and two runs with the same log share the splits."""
import ast, tempfile
from functools import partial
from pathlib import Path
import numpy as np
from scipy import stats
from runs import Log, parser, use_threads
from ulmfit_nb.cli import bag_of_words, demo_settings, train_texts
from ulmfit_nb.texts import sentences, split_texts, stratified_sample

def run_split(seed, pretrained, own, limit=None):
    "The demo on the split `seed`, with the settings `own` in place of its own"
    df = sentences()
    if limit: df = stratified_sample(df, limit, seed=seed)
    df = split_texts(df, valid=.2, seed=seed)
    settings = {**demo_settings, 'lm_epochs':2, 'pretrained':pretrained, 'random_state':seed, **own}
    with tempfile.TemporaryDirectory() as d: r = train_texts(df, Path(d)/'m', progress=False, **settings)['results']
    return dict({k:r[k] for k in ('accuracy','pretrained','lm_perplexity','calibration_error','train','valid')},
        fit_seconds=r['seconds'], baseline=bag_of_words(df))

def main(args=None):
    p = parser(__doc__, folder=False, out=True, threads=2)
    p.add_argument('--splits', type=int, default=10)
    p.add_argument('--limit', type=int, help='Use this many sentences only, to see that it works')
    p.add_argument('--pretrained', default='auto', help="'auto' (the default model), 'none', a name or a folder")
    p.add_argument('--set', nargs='*', default=[],
        help='Settings of the classifier that differ from those of the demo, such as lm_epochs=3')
    a = p.parse_args(args)
    use_threads(a.threads)
    own = {k:ast.literal_eval(v) for k,v in (o.split('=', 1) for o in a.set)}
    start = {'auto':True, 'none':False}.get(a.pretrained, a.pretrained)
    key = dict(asked=a.pretrained, settings=own, **({'limit':a.limit} if a.limit else {}))
    rows = Log(a.out).run_all([(partial(run_split, s, start, own, a.limit), dict(split=s, **key))
        for s in range(1, a.splits+1)])
    mine,theirs = (np.array([o[k] for o in rows]) for k in ('accuracy','baseline'))
    d = mine-theirs
    half = stats.t.ppf(.975, len(d)-1)*d.std(ddof=1)/len(d)**.5
    print(f'ULMFiT {mine.mean():.4f}, TF-IDF + LR {theirs.mean():.4f}; difference {d.mean():+.4f}, 95% interval '
        f'{d.mean()-half:+.4f} to {d.mean()+half:+.4f} over {len(d)} splits')

if __name__=='__main__': main()
