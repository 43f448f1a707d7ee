"""Does a sampled softmax lose anything? The same pretraining with all words and with a sample of them, from the same
seeds: the log that page losses draws.

    ulmfit pretrain wiki/*.jsonl.xz --out run --max-time 1       # makes the corpus in run/corpus
    python experiments/sampled_softmax.py run/corpus --out runs --log nbs/logs/sampled_softmax.jsonl

A training that was interrupted goes on when the command is given again; one that is done is not repeated. The
validation loss is over all words, on articles that are kept aside."""
import json
from pathlib import Path
from runs import parser, use_threads
from ulmfit_nb.pretraining import pretrain

def lines(run, **what):
    "The validations in the log of a run, with what the run was"
    for o in map(json.loads, (run/'log.jsonl').read_text(encoding='utf8').splitlines()):
        if 'valid_loss' in o:
            yield dict(what, tokens=o['tokens'], core_minutes=round(o['cpu_seconds']/60, 3),
                valid_loss=round(o['valid_loss'], 4))

def main(args=None):
    p = parser(__doc__, folder=False, out=True)
    p.add_argument('corpus', type=Path)
    p.add_argument('--log', type=Path, required=True)
    p.add_argument('--tokens', type=int, default=3_000_000)
    p.add_argument('--seeds', type=int, nargs='+', default=[1,2,3])
    p.add_argument('--num-sampled', type=int, default=2048)
    p.add_argument('--size', default='compact')
    p.add_argument('--bs', type=int, default=32)
    p.add_argument('--lr', type=float, default=4e-3)
    a = p.parse_args(args)
    use_threads(1) # so that processor time is the time of a core
    rows = []
    for seed in a.seeds:
        for n in (a.num_sampled, None):
            run = a.out/f'{"sampled" if n else "all"}-{seed}'
            if not (run/'model'/'model.json').exists():
                pretrain(a.corpus, run, a.size, num_sampled=n, max_tokens=a.tokens, bs=a.bs, lr=a.lr, drop_mult=0,
                    seed=seed, eval_every=max(1, a.tokens//(6*a.bs*70)))
            rows += lines(run, seed=seed, num_sampled=n)
    a.log.write_text(''.join(json.dumps(o)+'\n' for o in rows), encoding='utf8')

if __name__=='__main__': main()
