"""Language model and classifier beside fastai's: the same texts, weights to start from, sizes, batches and schedule,
in one process, one side after the other.

    # on a GPU; `--small` shows on a CPU that it works
    python experiments/side_by_side.py FOLDER --out nbs/logs/imdb/side_by_side.jsonl

FOLDER holds train and unsup as JSON lines. Every finished side is a line of the log: tokens per second, seconds and
validation loss of each epoch, peak memory. fastai's side trains with `to_fp16`; ours does the same, then what suits
it best (`to_precision`, `--best-bs` with the rate scaled). `profile` says where a step of ours spends its time."""
import gc, json
from functools import partial
import numpy as np, pandas as pd, torch
from fastai.basics import CategoryBlock, ColReader, ColSplitter, DataBlock, DataLoaders, accuracy, set_seed
from fastai.text import all as fa
from runs import Log, imdb_part, parser
from training import EpochLog, here
from ulmfit_nb import all as ours
from ulmfit_nb.awd_lstm import AWD_LSTM, awd_lstm_lm_config, fastai_state_dict, get_language_model
from ulmfit_nb.batching import LMDataLoader
from ulmfit_nb.language_model import language_model_learner
from ulmfit_nb.numericalization import Corpus
from ulmfit_nb.texts import split_texts

small = dict(texts=60, labelled=60, epochs=1, bs=4, best_bs=8, seq_len=20, max_vocab=1000)

class Comparison:
    "Texts, vocabulary and weights that all sides share; `a` are the arguments of the command"
    def __init__(self, a):
        self.a,self.config = a,dict(awd_lstm_lm_config, **(dict(emb_sz=24, n_hid=32) if a.small else {}))
        self.device = torch.device(here()['device'])
        self.on_gpu = self.device.type=='cuda'
        self.texts = imdb_part(a.folder, 'unsup').text.sample(a.texts, random_state=0).tolist()
        corpus = Corpus.from_texts(self.texts, max_vocab=a.max_vocab, n_workers=4 if self.on_gpu else 1)
        docs = [torch.as_tensor(np.array(o)).long() for o in corpus]
        self.n_valid = len(docs)//20+1
        self.parts,self.vocab = (docs[self.n_valid:],docs[:self.n_valid]),corpus.vocab
        set_seed(42)
        self.first = get_language_model(AWD_LSTM, len(self.vocab), config=self.config) # every side starts from these

    def fit(self, learn, bs, precision):
        "Train one side; what each of its epochs gave, and the memory it took"
        file = self.a.out.with_suffix('.epochs')
        file.unlink(missing_ok=True)
        if self.on_gpu or precision=='to_precision': getattr(learn, precision)()
        learn.add_cb(EpochLog(file))
        set_seed(42)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(self.a.epochs, self.a.lr*bs/self.a.bs)
        rows = [json.loads(o) for o in file.read_text().splitlines()]
        file.unlink()
        res = dict(tokens_per_second=max(o['tokens_per_second'] for o in rows),
            epoch_seconds=[o['train_seconds'] for o in rows], valid_loss=[o['valid_loss'] for o in rows],
            peak_gb=rows[-1]['peak_gb'], bs=bs)
        del learn.model
        gc.collect()
        if self.on_gpu: torch.cuda.empty_cache()
        return {**res, **here()}

    def lm_loaders(self, side, bs):
        "Batches of text as `side` makes them"
        a = self.a
        if 'TextBlock' in side:
            df = pd.DataFrame({'text':self.texts, 'is_valid':[i<self.n_valid for i in range(len(self.texts))]})
            block = fa.TextBlock.from_df('text', is_lm=True, seq_len=a.seq_len, vocab=self.vocab)
            dblock = DataBlock(block, get_x=ColReader('text'), splitter=ColSplitter())
            return dblock.dataloaders(df, bs=bs, seq_len=a.seq_len, device=self.device)
        theirs = side.startswith('fastai')
        make = partial(fa.LMDataLoader if theirs else LMDataLoader, bs=bs, seq_len=a.seq_len, device=self.device)
        train,valid = [[fa.TensorText(d) for d in o] if theirs else o for o in self.parts]
        dls = DataLoaders(make(train, shuffle=True), make(valid), device=self.device)
        dls.vocab = self.vocab
        return dls

    def language_model(self, side, bs, precision):
        "Train the language model of `side`"
        dls = self.lm_loaders(side, bs)
        if side.startswith('fastai'):
            model = fa.get_language_model(fa.AWD_LSTM, len(self.vocab), config=self.config)
            model.load_state_dict(fastai_state_dict(self.first))
            learn = fa.TextLearner(dls, model, loss_func=fa.CrossEntropyLossFlat(), splitter=fa.awd_lstm_lm_split)
        else:
            learn = language_model_learner(dls, AWD_LSTM, config=self.config, pretrained=False)
            learn.model.load_state_dict(self.first.state_dict())
        return dict(self.fit(learn, bs, precision), tokens=sum(map(len, self.parts[0])))

    def classifier(self, side, bs, precision):
        "Train the classifier of `side`, all of it, on labelled reviews"
        theirs = side.startswith('fastai')
        m = fa if theirs else ours
        df = imdb_part(self.a.folder, 'train', self.a.labelled, seed=0)
        df = split_texts(df, .1, group_col='movie', seed=0)
        blocks = m.TextBlock.from_df('text', vocab=self.vocab),CategoryBlock
        dblock = DataBlock(blocks, get_x=ColReader('text'), get_y=ColReader('label'), splitter=ColSplitter())
        dls = dblock.dataloaders(df, bs=bs, device=self.device)
        config = {**m.awd_lstm_clas_config, **{k:self.config[k] for k in ('emb_sz','n_hid')}}
        learn = m.text_classifier_learner(dls, m.AWD_LSTM, config=config, pretrained=False, drop_mult=.5,
            metrics=accuracy)
        if theirs: learn.model[0].module.load_state_dict(fastai_state_dict(self.first[0]))
        else: learn.encoder.load_state_dict(self.first[0].state_dict())
        learn.unfreeze()
        return dict(self.fit(learn, bs, precision), texts=int((~df.is_valid).sum()))

    def profile(self):
        "Where ten steps of our language model spend their time, the ten costliest operations, in milliseconds a step"
        a = self.a
        dls = DataLoaders(*[LMDataLoader(o, bs=a.best_bs, seq_len=a.seq_len, device=self.device) for o in self.parts],
            device=self.device)
        dls.vocab = self.vocab
        learn = language_model_learner(dls, AWD_LSTM, config=self.config, pretrained=False).to_precision()
        acts = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA]*self.on_gpu
        steps = min(10, len(dls.train)-1)
        dls.train.n_batches = steps
        with learn.no_bar(), learn.no_logging(), torch.profiler.profile(activities=acts) as p: learn.fit(1)
        key = 'self_device_time_total' if self.on_gpu else 'self_cpu_time_total'
        top = sorted(p.key_averages(), key=lambda o: -getattr(o, key))[:10]
        return dict(milliseconds={o.key:round(getattr(o, key)/1000/steps, 3) for o in top}, steps=steps, **here())

def arguments(args=None):
    p = parser(__doc__, out='side_by_side.jsonl')
    p.add_argument('--texts', type=int, default=25000, help='Unlabelled reviews for the language model')
    p.add_argument('--labelled', type=int, default=10000,
        help='Reviews for the classifier, a tenth of them to validate on')
    p.add_argument('--epochs', type=int, default=2)
    p.add_argument('--bs', type=int, default=128)
    p.add_argument('--best-bs', type=int, default=256)
    p.add_argument('--seq-len', type=int, default=80)
    p.add_argument('--lr', type=float, default=3e-3)
    p.add_argument('--max-vocab', type=int, default=30000)
    p.add_argument('--small', action='store_true', help='In a minute on a CPU, to see that it works')
    a = p.parse_args(args)
    if a.small: vars(a).update(small)
    return a

def report(rows):
    "Print each side beside the first of fastai's"
    for job in ('language model','classifier'):
        sides = {o['side']:o for o in rows if o['job']==job}
        base = next(v for k,v in sides.items() if k.startswith('fastai'))
        for k,o in sides.items():
            print(f"{job:15} {k:24} {min(o['epoch_seconds']):8.2f} s an epoch, "
                f"{min(base['epoch_seconds'])/min(o['epoch_seconds']):5.2f} times, validation loss "
                f"{o['valid_loss'][-1]:.4f}, peak {o['peak_gb'] or float('nan'):.1f} GB")

def main(args=None):
    a = arguments(args)
    log,both = Log(a.out),Comparison(a)
    for side,bs,how in (('fastai, ids in memory',a.bs,'to_fp16'), ('ours, same settings',a.bs,'to_fp16'),
        ('ours, best',a.best_bs,'to_precision'), ('fastai, TextBlock',a.bs,'to_fp16')):
        log.run(partial(both.language_model, side, bs, how), job='language model', side=side)
    bs = max(2, a.bs//2)
    for side,how in (('fastai','to_fp16'), ('ours, same settings','to_fp16'), ('ours, best','to_precision')):
        log.run(partial(both.classifier, side, bs, how), job='classifier', side=side)
    log.run(both.profile, job='profile')
    report(log.rows)

if __name__=='__main__': main()
