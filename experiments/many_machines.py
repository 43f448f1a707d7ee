"""What a million tokens cost, in seconds of one core: to tokenize, to merge the counts of, to label and to pretrain on;
and what a task costs Dask.

    python experiments/many_machines.py FOLDER --out nbs/logs/many_machines.jsonl

FOLDER holds JSON lines with a text in each."""
import itertools, json, tempfile, time
from operator import add
from pathlib import Path
from runs import Log, parser, texts, use_threads

def cut(folder, out, mb, files):
    "The first `mb` MB of the texts in `folder`, in so many files"
    names,each = [Path(out)/f'{i}.jsonl' for i in range(files)],mb*1e6/files
    size,i = 0,0
    f = open(names[0], 'w')
    for t in texts(folder):
        f.write(json.dumps(dict(text=t))+'\n')
        size += len(t.encode())
        if size>=each*(i+1):
            f.close()
            i += 1
            if i==files: break
            f = open(names[i], 'w')
    return names,size

def tokenizing(folder, mb, shards):
    from ulmfit_nb.distributed import merge_counts, tokenize_shard
    from ulmfit_nb.tokenization import Tokenizer
    with tempfile.TemporaryDirectory() as tmp:
        names,size = cut(folder, tmp, mb, shards)
        tok = Tokenizer()
        tok('It is ready.')
        start = time.process_time()
        made = [tokenize_shard([o], Path(tmp)/f'{i}', tok) for i,o in enumerate(names)]
        took = time.process_time()-start
        start = time.process_time()
        words,*_ = merge_counts((o.vocab,o.counts) for o in made)
        merge = time.process_time()-start
        n,seen = sum(o.n_tokens for o in made),sum(len(o.vocab) for o in made)
        return dict(tokens=n, text_bytes=size, words=len(words), words_of_shards=seen, cpu_per_million=took/n*1e6,
            merge_per_million_words=merge/seen*1e6, bytes_out=sum(o.stat().st_size for o in Path(tmp).glob('*/*')))

def labelling(folder, n):
    import pandas as pd
    from ulmfit_nb.all import AWD_LSTM, TextDataLoaders, awd_lstm_compact_config, set_seed, text_classifier_learner
    from ulmfit_nb.distributed import sha_of
    some = [t[:1000] for t in itertools.islice(texts(folder), n)]
    df = pd.DataFrame(dict(text=some, label=[i%2 for i in range(n)]))
    set_seed(1)
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='label', bs=32, seed=1)
    config = {k:v for k,v in awd_lstm_compact_config.items() if k in ('emb_sz','n_hid','n_layers')}
    learn = text_classifier_learner(dls, AWD_LSTM, config=config, pretrained=False)
    with learn.no_bar(), tempfile.TemporaryDirectory() as tmp:
        learn.predict_proba(some[:64])
        start = time.process_time()
        learn.predict_proba(some)
        took = time.process_time()-start
        size = sum(o.stat().st_size for o in learn.export(Path(tmp).absolute()/'m').rglob('*'))
    tokens = int(sum(len(dls.train_ds.tokenizer(t)) for t in some))
    return dict(tokens=tokens, cpu_per_million=took/tokens*1e6, model_bytes=size)

def pretraining(folder, mb):
    from ulmfit_nb.pretraining import pretrain
    with tempfile.TemporaryDirectory() as tmp:
        (Path(tmp)/'in').mkdir()
        cut(folder, Path(tmp)/'in', mb, 1)
        learn = pretrain(Path(tmp)/'in', Path(tmp)/'out', bs=32, log_every=5, valid=2000, eval_every=10**6, min_freq=2)
        log = [json.loads(o) for o in (Path(tmp)/'out'/'log.jsonl').read_text().splitlines()]
    a,b = [o for o in log if 'lr' in o][1:6:4] # neither the first steps nor the validation at the end
    n = b['tokens']-a['tokens']
    return dict(tokens=n, cpu_per_million=(b['cpu_seconds']-a['cpu_seconds'])/n*1e6, tokens_per_step=32*70,
        parameters=sum(p.numel() for p in learn.model.parameters()))

def scheduling(n):
    from ulmfit_nb.distributed import dask_client, run_tasks
    with dask_client('local:1') as client:
        run_tasks(add, 0, [(0,)], ['0'], client, progress=False)
        start = time.process_time() # client and scheduler are this process
        run_tasks(add, 0, [(i,) for i in range(n)], list(map(str, range(n))), client, progress=False)
        return dict(cpu_per_task=(time.process_time()-start)/n)

def main(args=None):
    a = parser(__doc__, out='nbs/logs/many_machines.jsonl', threads=1).parse_args(args)
    use_threads(a.threads)
    log = Log(a.out)
    log.run(lambda: tokenizing(a.folder, 12, 4), job='tokenize', mb=12, shards=4)
    log.run(lambda: labelling(a.folder, 300), job='label', texts=300)
    log.run(lambda: pretraining(a.folder, 2), job='pretrain', mb=2)
    log.run(lambda: scheduling(500), job='schedule', tasks=500)
    return log.rows

if __name__=='__main__': main()
