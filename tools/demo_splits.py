"""The demo over several splits: the accuracy of ULMFiT minus that of TF-IDF with logistic regression on the same split, and the interval of its mean.

    python tools/demo_splits.py --out nbs/logs/demo_splits.jsonl

Each split is that of `ulmfit demo --seed S`: 2,400 of the bundled sentences to train on, 600 to judge. The seeds are fixed beforehand, 1 to --splits. Every finished split
is a line of the log; a run that was killed goes on when started again, and two runs with the same log share the splits."""
import argparse, os
from pathlib import Path
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--out', type=Path, required=True)
parser.add_argument('--splits', type=int, default=10)
parser.add_argument('--limit', type=int, help='Use this many sentences only, to see that it works')
parser.add_argument('--pretrained', default='auto', help="'auto' (the default model), 'none', a name or a folder")
parser.add_argument('--threads', type=int, default=2)
parser.add_argument('--set', nargs='*', default=[], help='Settings of the classifier that differ from those of the demo, such as lm_epochs=3')
args = parser.parse_args()
os.environ['OMP_NUM_THREADS'] = str(args.threads)

import ast, tempfile, torch
from functools import partial
import numpy as np
from scipy import stats
from runs import Log
from ulmfit_nb.cli import bag_of_words, demo_settings, train_texts
from ulmfit_nb.texts import sentences, split_texts, stratified_sample
torch.set_num_threads(args.threads)

log,own = Log(args.out),{k:ast.literal_eval(v) for k,v in (o.split('=', 1) for o in args.set)}
pre = {'auto':True, 'none':False}.get(args.pretrained, args.pretrained)

def split(seed):
    df = sentences()
    if args.limit: df = stratified_sample(df, args.limit, seed=seed)
    df = split_texts(df, valid=.2, seed=seed)
    with tempfile.TemporaryDirectory() as d: r = train_texts(df, Path(d)/'m', progress=False, **{**demo_settings, 'lm_epochs':2, 'pretrained':pre, 'random_state':seed, **own})['results']
    return dict({k:r[k] for k in ('accuracy','pretrained','lm_perplexity','calibration_error','train','valid')}, fit_seconds=r['seconds'], baseline=bag_of_words(df))

common = dict(asked=args.pretrained, settings=own, **({'limit':args.limit} if args.limit else {}))
rows = log.run_all([(partial(split, s), dict(split=s, **common)) for s in range(1, args.splits+1)])
a,b = (np.array([o[k] for o in rows]) for k in ('accuracy','baseline'))
d = a-b
half = stats.t.ppf(.975, len(d)-1)*d.std(ddof=1)/len(d)**.5
print(f'ULMFiT {a.mean():.4f}, TF-IDF + LR {b.mean():.4f}; difference {d.mean():+.4f}, 95% interval {d.mean()-half:+.4f} to {d.mean()+half:+.4f} over {len(d)} splits')
