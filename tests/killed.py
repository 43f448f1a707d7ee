"""Trains in a child process, kills it again and again, and compares what it ends with to training in one go: `python
killed.py KIND KILLS SEED FOLDER`"""
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from fastai.text import all as fa
from safetensors.torch import load_file, save_file
from ulmfit_nb import checkpoint, pretraining
from ulmfit_nb.all import *

torch.set_num_threads(1)
small = dict(emb_sz=8, n_hid=12)

def lm_dls(folder, backwards):
    set_seed(1)
    return TextDataLoaders.from_df(sentences()[:400][['text']], path=folder, is_lm=True, bs=8, seq_len=12, seed=1,
        backwards=backwards)

def finetune(folder, backwards=False, half=False, num_sampled=None):
    "Two cycles, the first with frozen layers; each has its own checkpoint"
    learn = language_model_learner(lm_dls(folder, backwards), AWD_LSTM, config=small, pretrained=False,
        metrics=[accuracy, Perplexity()], cbs=SaveModelCallback(), num_sampled=num_sampled)
    if half: learn.to_bf16()
    learn.freeze()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-2, cbs=Checkpointer('one', steps=2))
        learn.unfreeze()
        learn.fit_one_cycle(2, 5e-3, cbs=Checkpointer('two', steps=3))
    return learn

def classify(folder):
    set_seed(1)
    dls = TextDataLoaders.from_df(sentences()[:300][['text','label']], path=folder, text_col='text', label_col='label',
        bs=8, seed=1)
    learn = text_classifier_learner(dls, AWD_LSTM, config=small, pretrained=False, metrics=accuracy,
        cbs=GradientAccumulation(20))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 1e-2, cbs=Checkpointer('clas', steps=2))
    return learn

def pretrained(folder):
    text = Path(folder)/'text.jsonl'
    sentences()[:600][['text']].to_json(text, orient='records', lines=True)
    return pretrain(text, folder, config=small, vocab_sz=500, bs=8, seq_len=12, epochs=1, eval_every=20, log_every=7,
        checkpoint_steps=2, backwards=True)

kinds = dict(finetune=finetune, sampled=partial(finetune, num_sampled=60), backwards=partial(finetune, backwards=True),
    bf16=partial(finetune, half=True), classify=classify, pretrain=pretrained)

def run(kind, folder):
    learn = kinds[kind](folder)
    rest = dict(losses=torch.stack([torch.as_tensor(float(o)) for o in learn.recorder.losses]),
        values=torch.tensor([[float(o) for o in v] for v in learn.recorder.values])) if hasattr(learn,
        'recorder') else {}
    opt = {f'opt.{i}.{k}':v.contiguous().clone() for i,s in enumerate(learn.opt.state_dict()['state']) for k,
        v in s.items() if isinstance(v, torch.Tensor)}
    tensors = {k:v.clone() for k,v in learn.model.state_dict().items()}
    save_file({**tensors, **opt, **rest, 'next random number':torch.rand(1),
        'next order':torch.tensor(learn.dls.train.rng.random())[None]}, Path(folder)/'end.safetensors')

def breaks_while_writing(kind, folder):
    "Dies in the middle of writing a checkpoint, or between writing it and putting it in its place"
    n,left,half = [0],random.randint(0, 6),random.random()<.5
    def save(tensors, fname, metadata):
        n[0] += 1
        save_file(tensors, fname, metadata=metadata)
        if n[0]<=left: return
        if half: os.truncate(fname, os.path.getsize(fname)//2)
        os.kill(os.getpid(), signal.SIGKILL)
    checkpoint.save_file = save
    run(kind, folder)

def child(f, *args):
    pid = os.fork()
    if pid: return pid
    code = 1
    try:
        f(*args)
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally: os._exit(code)

def ended(pid): return os.waitpid(pid, os.WNOHANG)!=(0,0)

def main(kind, kills, seed, folder):
    random.seed(seed)
    once,often = Path(folder)/'once',Path(folder)/'often'
    for o in (once,often): o.mkdir(parents=True)
    start = time.time()
    assert os.waitpid(child(run, kind, once), 0)[1]==0
    took,done,in_write = time.time()-start,0,0
    while done<kills:
        state = random.getstate()
        if random.random()<.25:
            pid = child(breaks_while_writing, kind, often)
            if os.waitpid(pid, 0)[1]!=signal.SIGKILL: break # it was through before it came to its end
            in_write += 1
        else:
            pid = child(run, kind, often)
            time.sleep(random.uniform(.1, .5)*took)
            if ended(pid): break
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        done += 1
    assert os.waitpid(child(run, kind, often), 0)[1]==0
    a,b = (load_file(o/'end.safetensors') for o in (once,often))
    differ = [k for k in {**a,**b} if not (k in a and k in b and torch.equal(a[k], b[k]))]
    print(json.dumps(dict(kills=done, in_write=in_write, tensors=len(a), differ=differ, seconds=round(took, 1),
        left=[o.name for o in often.rglob('*.part')])))

if __name__=='__main__': main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
