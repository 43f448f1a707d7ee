"""All of IMDb, for the final notebook: language models, classifiers, and the two directions together. Made for one
GPU; `--small` walks the same road on a CPU in minutes, and `--cpu` the whole of it with a compact model in about two
and a half hours, if each direction has a core of its own:

    # two at a time; then once more with --directions fwd bwd --test
    OMP_NUM_THREADS=1 python experiments/imdb.py FOLDER --cpu --out imdb --pretrained wiki-en-compact --directions fwd
    OMP_NUM_THREADS=1 python experiments/imdb.py FOLDER --cpu --out imdb --pretrained wiki-en-compact --directions bwd

    # forwards; recipes are compared on held-out films
    python experiments/imdb.py FOLDER --out imdb --pretrained wiki-en
    # both; the last step is the one look at the test half
    python experiments/imdb.py FOLDER --out imdb --pretrained wiki-en --directions fwd bwd --seeds 1 2 3 --test
    # the final notebook draws these
    mkdir -p nbs/logs/imdb && cp imdb/*.jsonl nbs/logs/imdb

FOLDER holds train, unsup and test as JSON lines. The language models read train and unsup, but for some unlabelled
reviews that they are judged by. The classifier's recipe is chosen on films that are kept apart, and so is the
temperature; the final classifiers learn from all of train. Every finished job is a line of OUT/log.jsonl, every
epoch one of OUT/epochs.jsonl. A run that was stopped (`timeout -s INT 9m python experiments/imdb.py …`) goes on
from its last checkpoint when started again."""
import json, os, time
from functools import partial
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.basics import CategoryBlock, ColReader, ColSplitter, DataBlock, accuracy, set_seed
from runs import Log, imdb_part, parser
from training import EpochLog, here
from ulmfit_nb.awd_lstm import AWD_LSTM
from ulmfit_nb.batching import TextBlock
from ulmfit_nb.checkpoint import Checkpointer
from ulmfit_nb.classifier import load_learner, recipes, text_classifier_learner
from ulmfit_nb.ensemble import calibration_error, fit_temperature, with_temperature
from ulmfit_nb.language_model import language_model_learner
from ulmfit_nb.metrics import TokenPerplexity
from ulmfit_nb.pretrained import find_pretrained
from ulmfit_nb.pretraining import pretrain_configs
from ulmfit_nb.texts import split_texts

full = dict(
    # the chapter's 60,000 double the cost of the softmax for words that are rare
    max_vocab=30000,
    n_train=None, n_unsup=None, n_test=None,  # all of it
    n_aside=2000,                             # unlabelled reviews by which the language models are judged
    # share of the labelled reviews, of other films, by which the recipe is chosen
    valid=.1,
    lm_bs=128, seq_len=80,                    # the chapter's
    head_lr=2e-2, lm_lr=4e-3, lm_epochs=10, lm_drop=.3,  # the new rows alone, then everything
    head_part=1,                              # the new rows learn from one text in so many
    bs=64, chunk=72, drop=.5,                 # the classifier: reviews per batch, tokens that are read at once
    recipes=[dict(recipes['pretrained']), dict(recipes['pretrained'], epochs=(1,1,1,4), lrs=(2e-2,1e-2,5e-3,2e-3))],
    refit=True,                               # learn once more from all labelled reviews, for the test half
    config=None)                              # a model from random weights has the full size
# compact models on a core each: two passes over everything, and the classifiers that were judged on other films stay
cpu = dict(full, max_vocab=25000, lm_bs=64, seq_len=70, head_lr=1e-2, head_part=8, lm_lr=6e-3, lm_epochs=2, lm_drop=.2,
    bs=32, drop=.3, valid=.05, refit=False, recipes=[dict(recipes['scratch'], epochs=(1,1,0,2))])
brief = dict(lrs=(2e-2,1e-2,1e-2,1e-2), div=1.3)
small = dict(full, max_vocab=3000, n_train=160, n_unsup=60, n_test=40, n_aside=20, valid=.25, lm_bs=8, seq_len=30,
    lm_epochs=2, head_part=2, bs=16, config=pretrain_configs['tiny'],
    recipes=[dict(brief, epochs=(1,0,0,1)), dict(brief, epochs=(1,0,0,2))])

class Road:
    "The steps from raw reviews to the answers on the test half"
    def __init__(self, folder, out, pretrained, cfg, bf16=True):
        self.folder,self.out = Path(folder),Path(out).absolute()
        self.pretrained,self.cfg,self.bf16 = pretrained,cfg,bf16
        self.device = torch.device(here()['device'])
        c = cfg
        part = partial(imdb_part, self.folder, seed=42)
        self.train = split_texts(part('train', c['n_train']), valid=c['valid'], group_col='movie', seed=42)
        assert not set(self.train.movie[self.train.is_valid]) & set(self.train.movie[~self.train.is_valid])
        unsup = part('unsup', c['n_unsup'], label_col=None)
        aside = np.isin(np.arange(len(unsup)), np.random.default_rng(42).permutation(len(unsup))[:c['n_aside']])
        self.lm_texts = pd.DataFrame({'text':[*self.train.text, *unsup.text],
            'is_valid':[False]*len(self.train)+aside.tolist()})
        self.test = partial(part, 'test', c['n_test'])

    def precise(self, learn): return learn.to_precision() if self.bf16 else learn

    def language_model(self, direction):
        "Fine-tuned from the pretrained model of this direction, or trained from random weights"
        c,back,folder = self.cfg,direction=='bwd',f'lm_{direction}'
        n_workers = min(8, os.cpu_count())
        set_seed(42)
        start = time.perf_counter()
        def loaders(df, **kwargs):
            block = TextBlock.from_df('text', is_lm=True, backwards=back, n_workers=n_workers, **kwargs)
            dblock = DataBlock(block, get_x=ColReader('text'), splitter=ColSplitter())
            return dblock.dataloaders(df, bs=c['lm_bs'], seq_len=c['seq_len'], path=self.out, device=self.device)
        dls = loaders(self.lm_texts, max_vocab=c['max_vocab'])
        tokenized = time.perf_counter()-start
        none = self.pretrained=='none'
        if none: begin = dict(pretrained=False, config=c['config'] or pretrain_configs['full'])
        else: begin = dict(pretrained=str(find_pretrained(self.pretrained, back)))
        learn = self.precise(language_model_learner(dls, AWD_LSTM, drop_mult=c['lm_drop'],
            metrics=[accuracy, TokenPerplexity()], **begin))
        learn.model_dir = f'{folder}.checkpoints'
        def fit(n, lr, step):
            learn.fit_one_cycle(n, lr, cbs=[Checkpointer(step, every=60),
                EpochLog(self.out/'epochs.jsonl', job='language model', direction=direction, step=step)])
        with learn.no_bar(), learn.no_logging():
            if not none:
                if c['head_part']>1:
                    learn.dls = loaders(self.lm_texts[::c['head_part']].reset_index(drop=True), vocab=dls.vocab)
                fit(1, c['head_lr'], 'head')
                learn.dls = dls
                learn.unfreeze()
            fit(c['lm_epochs'], c['lm_lr'], 'all')
        loss,acc,ppl = (float(o) for o in learn.recorder.values[-1][1:])
        learn.to_fp32().export(folder)
        return dict(valid_loss=loss, accuracy=acc, perplexity=ppl, vocab=len(learn.vocab),
            tokens=int(dls.train.lens.sum()), tokenize_seconds=tokenized)

    def classifier(self, direction, recipe, seed, whole):
        "On the fine-tuned encoder: learns from the films that aren't held out, or from the whole of train"
        c,back = self.cfg,direction=='bwd'
        name = f"{'final' if whole else 'tuned'}_{direction}_{recipe}_{seed}"
        # fastai wants something to validate on
        df,held = self.train,self.train[self.train.is_valid]
        if whole: df = pd.concat([df.assign(is_valid=False), held], ignore_index=True)
        lm = load_learner(self.out/f'lm_{direction}')
        set_seed(seed)
        blocks = TextBlock.from_df('text', vocab=lm.vocab, backwards=back,
            n_workers=min(8, os.cpu_count())),CategoryBlock
        dblock = DataBlock(blocks, get_x=ColReader('text'), get_y=ColReader('label'), splitter=ColSplitter())
        dls = dblock.dataloaders(df, bs=c['bs'], seq_len=c['chunk'], path=self.out, device=self.device)
        learn = self.precise(text_classifier_learner(dls, AWD_LSTM, config=lm.spec['config'], drop_mult=c['drop'],
            pretrained=False, metrics=accuracy))
        learn.encoder.load_state_dict(lm.encoder.state_dict())
        learn.model_dir = f'{name}.checkpoints'
        per_step = {i:dict(cbs=[Checkpointer(f'step{i}', every=60),
            EpochLog(self.out/'epochs.jsonl', job='classifier', name=name, step=i)]) for i in range(4)}
        with learn.no_bar(), learn.no_logging(): learn.fit_gradual(**c['recipes'][recipe], per_step=per_step, seed=seed)
        learn.to_fp32()
        if whole or not c['refit']: learn.export(name)
        if whole: return dict(folder=name)
        loss = float(learn.recorder.values[-1][1])
        with learn.no_bar(): p,y = learn.get_preds()
        np.savez(self.out/f'{name}.npz', p=p.numpy(), y=y.numpy())
        return dict(accuracy=float((p.argmax(1)==y).float().mean()), valid_loss=loss, n=len(y))

    def temperature(self, directions, recipe):
        "Of the mean of the directions, from the films that were held out"
        held = [np.load(self.out/f'tuned_{d}_{recipe}_0.npz') for d in directions]
        return fit_temperature(torch.tensor(np.mean([o['p'] for o in held], 0)), torch.tensor(held[0]['y']))

    def final(self, direction, recipe, seed):
        "The folder of a classifier for the test half"
        return f'final_{direction}_{recipe}_{seed}' if self.cfg['refit'] else f'tuned_{direction}_{recipe}_0'

    def look(self, directions, seeds, recipe):
        "The one look at the test half: each model, the mean over directions of each seed, and of all"
        temperature = self.temperature(directions, recipe)
        df,ps,res = self.test(),{},{}
        for d in directions:
            for s in seeds:
                learn = load_learner(self.out/self.final(d, recipe, s), device=self.device)
                with learn.no_bar(): ps[d,s] = learn.predict_proba(df.text.tolist()).cpu()
        labels = list(learn.dls.vocab[1])
        y = torch.tensor([labels.index(o) for o in df.label])
        def judged(p):
            return dict(accuracy=float((p.argmax(1)==y).float().mean()), ece=calibration_error(p, y),
                ece_calibrated=calibration_error(with_temperature(p, temperature), y))
        for (d,s),p in ps.items(): res[f'{d} {s}'] = judged(p)
        if len(directions)>1:
            for s in seeds: res[f'both {s}'] = judged(torch.stack([ps[d,s] for d in directions]).mean(0))
            first = {d:ps[d,seeds[0]].argmax(1)!=y for d in directions}
            a,b = first.values()
            res['errors'] = dict(only_first=int((a&~b).sum()), only_second=int((b&~a).sum()), in_both=int((a&b).sum()))
        mean = torch.stack(list(ps.values())).mean(0)
        np.savez_compressed(self.out/'test_probs.npz', y=y.numpy(), **{f'{d}_{s}':p.numpy() for (d,s),p in ps.items()})
        wrong = (mean.argmax(1)!=y).nonzero().squeeze(1)
        worst = wrong[mean[wrong].max(1).values.argsort(descending=True)][:20].tolist()
        worst = [dict(row=i, movie=df.movie[i], label=df.label[i], p=float(mean[i].max())) for i in worst]
        return dict(results={**res, 'all':judged(mean)}, n=len(y), temperature=temperature, worst=worst)

def arguments(args=None):
    "What the command was given, and the settings that follow from it"
    p = parser(__doc__, out='imdb', precision=True)
    p.add_argument('--pretrained', default='wiki-en', help="Name or folder prefix of the pretrained models, or 'none'")
    p.add_argument('--directions', nargs='+', default=['fwd'], choices=['fwd','bwd'])
    p.add_argument('--seeds', nargs='+', type=int, default=[1])
    p.add_argument('--test', action='store_true', help='Train the final models and look at the test half')
    p.add_argument('--small', action='store_true')
    p.add_argument('--cpu', action='store_true', help='The settings for compact models and a core for each direction')
    own = dict(lm_bs=int, lm_epochs=int, bs=int, lm_lr=float, lm_drop=float, drop=float)
    for k,v in own.items(): p.add_argument('--'+k.replace('_','-'), type=v)
    a = p.parse_args(args)
    given = {k:getattr(a, k) for k in own if getattr(a, k) is not None}
    base = cpu if a.cpu else full
    if a.small: base = {**small, 'refit':base['refit']}
    return a,{**base, **given}

def main(args=None):
    a,cfg = arguments(args)
    a.out.mkdir(parents=True, exist_ok=True)
    log,road = Log(a.out/'log.jsonl'),Road(a.folder, a.out, a.pretrained, cfg, not a.fp32)
    settings = json.loads(json.dumps(dict(cfg, pretrained=a.pretrained)))
    if log.rows and log.rows[0]['settings']!=settings:
        raise SystemExit(f"{log.fname} is of other settings, {log.rows[0]['settings']}: give another --out")
    log.run(lambda: dict(settings=settings, train=len(road.train), films=int(road.train.movie.nunique()),
        valid=int(road.train.is_valid.sum()), lm_texts=len(road.lm_texts)), job='data')
    for d in a.directions: log.run(lambda: {**road.language_model(d), **here()}, job='language model', direction=d)
    def tune(d, i):
        return log.run(lambda: {**road.classifier(d, i, 0, False), **here()}, job='tune', direction=d, recipe=i)
    many = len(cfg['recipes'])>1 and 'fwd' in a.directions
    tuned = [tune('fwd', i)['accuracy'] for i in range(len(cfg['recipes']))] if many else [0]
    chosen = log.find(job='chosen') or log.run(lambda: dict(recipe=int(np.argmax(tuned))), job='chosen')
    best = chosen['recipe']
    for d in a.directions: tune(d, best)
    if not a.test: return
    for d in a.directions if cfg['refit'] else ():
        for s in a.seeds:
            log.run(lambda: {**road.classifier(d, best, s, True), **here()}, job='final', direction=d, seed=s)
    r = log.run(lambda: {**road.look(a.directions, a.seeds, best), **here()}, job='test', directions=a.directions,
        seeds=a.seeds)['results']
    print(pd.DataFrame({k:v for k,v in r.items() if k!='errors'}).T.round(4).to_string())

if __name__=='__main__': main()
