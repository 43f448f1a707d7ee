"""What `torchrun` starts in a test: `together.py losses FOLDER` trains a language model and a classifier with 32 rows
in all, without dropout; `together.py pretrain FOLDER [N]` pretrains, and the last process dies after the N-th
checkpoint"""
import json, os, signal, sys
from pathlib import Path
import torch
from ulmfit_nb import checkpoint
from ulmfit_nb.all import *

torch.set_num_threads(1)
rank,world = int(os.environ.get('RANK', 0)),int(os.environ.get('WORLD_SIZE', 1))
small = dict(emb_sz=8, n_hid=12)

class Seen(Callback):
    order = 300
    def __init__(self): self.all = []
    def after_batch(self):
        if self.training: self.all.append(float(self.learn.loss.detach()))

def fitted(learn, *lrs):
    seen = Seen()
    with learn.no_bar(), learn.no_logging(), learn.distrib_ctx():
        for lr in lrs: learn.fit_one_cycle(1, lr, cbs=seen)
    weights = sum(float(p.detach().double().abs().sum()) for p in learn.model.parameters())
    return dict(losses=seen.all, values=[list(map(float, o)) for o in learn.recorder.values], weights=weights,
        left=[type(learn.model).__name__, len(learn.dls.train), type(learn.dls.train).__name__])

def losses(folder):
    df,res = sentences(),{}
    set_seed(1)
    dls = TextDataLoaders.from_df(df[:400][['text']], path=folder, is_lm=True, bs=32//world, seq_len=12, seed=1)
    lm = language_model_learner(dls, AWD_LSTM, config=small, drop_mult=0, pretrained=False, metrics=accuracy)
    res['lm'] = fitted(lm, 1e-2, 5e-3)
    lm.export('lm')
    set_seed(1)
    some = df[::12].reset_index(drop=True)[['text','label']][:223]
    dls = TextDataLoaders.from_df(some, path=folder, text_col='text', label_col='label', bs=32//world, seed=1)
    dls.loaders[0] = dls.train.new(drop_last=False) # 179 texts: the last batch has 19
    clas = text_classifier_learner(dls, AWD_LSTM, config=small, drop_mult=0, ps=[0.], pretrained=False,
        metrics=accuracy)
    res['clas'] = fitted(clas, 3e-3, 1e-3)
    assert load_language_model(Path(folder)/'lm').vocab==lm.vocab or rank # the first has written it
    (Path(folder)/f'losses_{rank}_of_{world}.json').write_text(json.dumps(res))

def pretrained(folder, dies=None):
    text = Path(folder)/'text.jsonl'
    if rank==0 and not text.exists(): sentences()[:600][['text']].to_json(text, orient='records', lines=True)
    save,n = checkpoint.save_checkpoint,[0]
    def counted(self, done=False):
        own(self, done)
        n[0] += 1
        if n[0]==dies and rank==world-1: os.kill(os.getpid(), signal.SIGKILL)
    own,checkpoint.Checkpointer.save = checkpoint.Checkpointer.save,counted
    learn = pretrain(text, folder, config=small, vocab_sz=500, bs=4, seq_len=12, epochs=1, eval_every=20, log_every=7,
        checkpoint_steps=3, num_sampled=60, drop_mult=1)
    last = learn.spec['pretraining']['valid_loss'],torch.rand(1).item(),learn.dls.train.rng.random()
    (Path(folder)/f'end_{rank}.json').write_text(json.dumps(last))

if __name__=='__main__':
    kind,folder,*rest = sys.argv[1:]
    dict(losses=losses, pretrain=pretrained)[kind](folder, *map(int, rest))
