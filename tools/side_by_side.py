"""Language model and classifier beside fastai's: the same texts, weights to start from, sizes, batches and schedule, in one process, one side after the other.

    python tools/side_by_side.py FOLDER --out nbs/logs/imdb/side_by_side.jsonl      # on a GPU; `--small` shows on a CPU that it works

FOLDER holds train and unsup as JSON lines. Every finished side is a line of the log: tokens per second, seconds and validation loss of each epoch, peak memory. fastai's side
trains with `to_fp16`; ours does the same, then what suits it best (`to_precision`, `--best-bs` with the rate scaled). `profile` says where a step of ours spends its time."""
import argparse, gc, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np, pandas as pd, torch
from fastai.basics import CategoryBlock, ColReader, ColSplitter, DataBlock, DataLoaders, accuracy, set_seed
from fastai.text import all as fa
from functools import partial
from imdb import EpochLog, here
from runs import Log
from ulmfit_nb.awd_lstm import AWD_LSTM, awd_lstm_lm_config, fastai_state_dict, get_language_model
from ulmfit_nb import all as ours
from ulmfit_nb.batching import LMDataLoader
from ulmfit_nb.language_model import language_model_learner
from ulmfit_nb.numericalization import Corpus
from ulmfit_nb.texts import imdb, split_texts, stratified_sample

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('folder', type=Path)
parser.add_argument('--out', type=Path, default=Path('side_by_side.jsonl'))
parser.add_argument('--texts', type=int, default=25000, help='Unlabelled reviews for the language model')
parser.add_argument('--labelled', type=int, default=10000, help='Reviews for the classifier, a tenth of them to validate on')
parser.add_argument('--epochs', type=int, default=2)
parser.add_argument('--bs', type=int, default=128)
parser.add_argument('--best-bs', type=int, default=256)
parser.add_argument('--seq-len', type=int, default=80)
parser.add_argument('--lr', type=float, default=3e-3)
parser.add_argument('--max-vocab', type=int, default=30000)
parser.add_argument('--small', action='store_true')
args = parser.parse_args()
config = dict(awd_lstm_lm_config)
if args.small:
    args.texts,args.labelled,args.epochs,args.bs,args.best_bs,args.seq_len,args.max_vocab = 60,60,1,4,8,20,1000
    config.update(emb_sz=24, n_hid=32)
on_gpu,log = torch.cuda.is_available(),Log(args.out)
device = torch.device(here()['device'])

def epochs(learn, f):
    "What each epoch of `f` gave, and the memory it took"
    file = args.out.with_suffix('.epochs')
    file.unlink(missing_ok=True)
    learn.add_cb(EpochLog(file))
    with learn.no_bar(), learn.no_logging(): f()
    rows = [json.loads(o) for o in file.read_text().splitlines()]
    file.unlink()
    res = dict(tokens_per_second=max(o['tokens_per_second'] for o in rows), epoch_seconds=[o['train_seconds'] for o in rows], valid_loss=[o['valid_loss'] for o in rows], peak_gb=rows[-1]['peak_gb'])
    del learn.model
    gc.collect()
    if on_gpu: torch.cuda.empty_cache()
    return {**res, **here()}

texts = imdb(args.folder, 'unsup').text.sample(args.texts, random_state=0).tolist()
corpus = Corpus.from_texts(texts, max_vocab=args.max_vocab, n_workers=4 if on_gpu else 1)
docs = [torch.as_tensor(np.array(o)).long() for o in corpus]
n = len(docs)//20+1
parts = docs[n:],docs[:n]
vocab = corpus.vocab
set_seed(42)
first = get_language_model(AWD_LSTM, len(vocab), config=config) # every side starts from these weights

def lm(side, bs, precision):
    "Train the language model of `side`"
    theirs = side.startswith('fastai')
    if 'TextBlock' in side:
        df = pd.DataFrame({'text':texts, 'is_valid':[i<n for i in range(len(texts))]})
        block = fa.TextBlock.from_df('text', is_lm=True, seq_len=args.seq_len, vocab=vocab)
        dls = DataBlock(block, get_x=ColReader('text'), splitter=ColSplitter()).dataloaders(df, bs=bs, seq_len=args.seq_len, device=device)
    else:
        make = partial(fa.LMDataLoader if theirs else LMDataLoader, bs=bs, seq_len=args.seq_len, device=device)
        sets = [[fa.TensorText(d) for d in o] if theirs else o for o in parts]
        dls = DataLoaders(make(sets[0], shuffle=True), make(sets[1]), device=device)
        dls.vocab = vocab
    if theirs: learn = fa.TextLearner(dls, fa.get_language_model(fa.AWD_LSTM, len(vocab), config=config), loss_func=fa.CrossEntropyLossFlat(), splitter=fa.awd_lstm_lm_split)
    else: learn = language_model_learner(dls, AWD_LSTM, config=config, pretrained=False)
    learn.model.load_state_dict(fastai_state_dict(first) if theirs else first.state_dict())
    if on_gpu or precision=='to_precision': getattr(learn, precision)()
    set_seed(42)
    return dict(epochs(learn, lambda: learn.fit_one_cycle(args.epochs, args.lr*bs/args.bs)), tokens=sum(map(len, parts[0])), bs=bs)

def classifier(side, bs, precision):
    "Train the classifier of `side`, all of it, on labelled reviews"
    m = fa if side.startswith('fastai') else ours
    df = stratified_sample(imdb(args.folder, 'train'), args.labelled, seed=0)
    df = split_texts(df, .1, group_col='movie', seed=0)
    blocks = m.TextBlock.from_df('text', vocab=vocab),CategoryBlock
    dls = DataBlock(blocks, get_x=ColReader('text'), get_y=ColReader('label'), splitter=ColSplitter()).dataloaders(df, bs=bs, device=device)
    learn = m.text_classifier_learner(dls, m.AWD_LSTM, config={**m.awd_lstm_clas_config, **{k:config[k] for k in ('emb_sz','n_hid')}}, pretrained=False, drop_mult=.5, metrics=accuracy)
    encoder = fastai_state_dict(first[0]) if m is fa else first[0].state_dict()
    (learn.model[0].module if m is fa else learn.encoder).load_state_dict(encoder)
    learn.unfreeze()
    if on_gpu or precision=='to_precision': getattr(learn, precision)()
    set_seed(42)
    return dict(epochs(learn, lambda: learn.fit_one_cycle(args.epochs, args.lr*bs/args.bs)), texts=int((~df.is_valid).sum()), bs=bs)

def profile():
    "Where ten steps of our language model spend their time, the ten costliest operations, in milliseconds a step"
    dls = DataLoaders(*[LMDataLoader(o, bs=args.best_bs, seq_len=args.seq_len, device=device) for o in parts], device=device)
    dls.vocab = vocab
    learn = language_model_learner(dls, AWD_LSTM, config=config, pretrained=False).to_precision()
    acts = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA]*on_gpu
    steps = min(10, len(dls.train)-1)
    dls.train.n_batches = steps
    with learn.no_bar(), learn.no_logging(), torch.profiler.profile(activities=acts) as p: learn.fit(1)
    key = 'self_device_time_total' if on_gpu else 'self_cpu_time_total'
    top = sorted(p.key_averages(), key=lambda o: -getattr(o, key))[:10]
    return dict(milliseconds={o.key:round(getattr(o, key)/1000/steps, 3) for o in top}, steps=steps, **here())

for side,bs,how in (('fastai, ids in memory',args.bs,'to_fp16'), ('ours, same settings',args.bs,'to_fp16'), ('ours, best',args.best_bs,'to_precision'), ('fastai, TextBlock',args.bs,'to_fp16')):
    log.run(partial(lm, side, bs, how), job='language model', side=side)
bs = max(2, args.bs//2)
for side,bs,how in (('fastai',bs,'to_fp16'), ('ours, same settings',bs,'to_fp16'), ('ours, best',bs,'to_precision')): log.run(partial(classifier, side, bs, how), job='classifier', side=side)
log.run(profile, job='profile')
for job in ('language model','classifier'):
    rows = {o['side']:o for o in log.rows if o['job']==job}
    base = next(v for k,v in rows.items() if k.startswith('fastai'))
    for k,o in rows.items(): print(f"{job:15} {k:24} {min(o['epoch_seconds']):8.2f} s an epoch, {min(base['epoch_seconds'])/min(o['epoch_seconds']):5.2f} times, validation loss {o['valid_loss'][-1]:.4f}, peak {o['peak_gb'] or float('nan'):.1f} GB")
