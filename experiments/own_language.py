"""A language without a pretrained model: read its texts, then label few. Korean film reviews.

    python experiments/own_language.py FOLDER --out nbs/logs/own_language.jsonl --model korean

FOLDER holds `nsmc_ko_unsup`, `nsmc_ko_train` and `nsmc_ko_test` as JSON lines (.xz). A compact language model reads the
unlabelled reviews; then the estimator learns from 100, 500 and 2,000 labels, with it and without it, beside a tuned
TF-IDF + LR of words or of strings of characters. The test reviews are read once. A run that was stopped goes on, and
two that are started with the same log share the jobs."""
from functools import partial
from pathlib import Path
from runs import Log, parser, use_threads
from second_opinion import ours, rival, rivals

scratch = dict(lang='ko', tokenizer='subword', pretrained=False)

def reading(folder, model, epochs):
    import json, math
    from ulmfit_nb.pretraining import pretrain
    pretrain(folder/'nsmc_ko_unsup.jsonl.xz', model, tokenizer='subword', vocab_sz=8000, lang='ko', text_col='text',
        epochs=epochs, bs=32, drop_mult=.2, valid=50_000, progress=True)
    lines = [json.loads(l) for l in (model/'log.jsonl').read_text(encoding='utf8').splitlines()]
    seen = [o for o in lines if o.get('valid_loss')]
    end = seen[-1]
    return dict(tokens=int(end['tokens']), valid_loss=end['valid_loss'], perplexity=math.exp(end['valid_loss']),
        course=[(int(o['tokens']), round(o['valid_loss'], 4)) for o in seen], seconds_of_training=round(end['seconds']))

def main(args=None):
    p = parser(__doc__, out='nbs/logs/own_language.jsonl', threads=1)
    p.add_argument('--model', type=Path, default=Path('korean'), help='Folder of the language model')
    p.add_argument('--epochs', type=int, default=6)
    p.add_argument('--n', nargs='+', type=int, default=[100,500,2000])
    p.add_argument('--seeds', nargs='+', type=int, default=[0,1,2])
    a = p.parse_args(args)
    use_threads(a.threads)
    from ulmfit_nb.texts import read_texts, stratified_sample
    log = Log(a.out)
    log.run(partial(reading, a.folder, a.model, a.epochs), job='reading', epochs=a.epochs)
    train,test = (read_texts(a.folder/f'nsmc_ko_{o}.jsonl.xz')[['text','label']] for o in ('train','test'))
    read = dict(pretrained=str(a.model/'model'), lm_epochs=0)
    jobs = []
    for n in a.n:
        for seed in a.seeds:
            few = stratified_sample(train, n, seed=seed).sample(frac=1, random_state=seed)
            key = dict(job='labels', n=n, seed=seed, test=len(test))
            jobs += [(partial(rival, few, test, make), dict(key, method=k)) for k,make in rivals(scratch).items()]
            for name,how in (('read',read), ('scratch',scratch)):
                jobs.append((partial(ours, few, test, seed, how), dict(key, method=name)))
    return log.run_all(jobs)

if __name__=='__main__': main()
