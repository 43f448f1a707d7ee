"""The sampled softmax: equal to the whole one where it must be, right on average, and the same after a restart or in
several processes"""
import subprocess, sys
import numpy as np, pytest, torch
from fastai.text import all as fa
from torch import nn
from torch.nn import functional as F
from ulmfit_nb.awd_lstm import AWD_LSTM, get_language_model
from ulmfit_nb.batching import TextDataLoaders
from ulmfit_nb.language_model import FusedAdam, language_model_learner
from ulmfit_nb.losses import LazyLogits, WordSampler, linear_cross_entropy, sampled_softmax_loss
from ulmfit_nb.texts import sentences
from watch import Largest

def toy(n_words=60, n_pos=25, seed=0):
    g = torch.Generator().manual_seed(seed)
    counts = 1e4/torch.arange(1, n_words+1)
    h,w = torch.randn(n_pos, 8, generator=g),torch.randn(n_words, 8, generator=g)/4
    return h, w, counts.log(), torch.multinomial(counts, n_pos, replacement=True, generator=g), counts

def grads(f, *xs):
    xs = [o.clone().requires_grad_() for o in xs]
    loss = f(*xs)
    return [loss.detach(), *torch.autograd.grad(loss, xs)]

@pytest.mark.parametrize('half', [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('bias', [True, False])
def test_all_words_as_candidates_is_the_whole_loss(half, bias):
    h,w,b,y,_ = toy()
    s,b = WordSampler(torch.ones(60), 60),(b if bias else None)
    xs = (h,w,b) if bias else (h,w)
    with torch.autocast('cpu', half or torch.bfloat16, enabled=half is not None):
        whole = grads(lambda h,w,b=None: linear_cross_entropy(h, w, b, y), *xs)
        sampled = grads(lambda h,w,b=None: sampled_softmax_loss(h, w, b, y, s), *xs)
    for a,c in zip(sampled, whole): torch.testing.assert_close(a, c, atol=1e-5, rtol=1e-5)
    plain = grads(lambda h,w,b=None: F.cross_entropy(F.linear(h, w, b), y), *xs)
    for a,c in zip(sampled, plain):
        assert a.dtype==torch.float32 and (a-c).norm() < (1e-5 if half is None else .02)*c.norm()

@pytest.mark.parametrize('corrected', [True, False])
def test_the_mean_of_many_draws_is_the_whole_gradient(corrected):
    "In units of the mean's standard error; without the correction it is far off"
    h,w,b,y,counts = toy()
    whole = grads(lambda h,w: F.cross_entropy(h@w.T+b, y), h, w)
    s = WordSampler(counts, 40)
    torch.manual_seed(0)
    if not corrected: s.chance.fill_(1)
    draws = [grads(lambda h,w: sampled_softmax_loss(h, w, b, y, s), h, w) for _ in range(1500)]
    for of_whole,*of_draws in list(zip(whole, *draws))[1:]:
        of_draws = torch.stack(of_draws)
        err = of_draws.std(0)/len(draws)**.5
        z = ((of_draws.mean(0)-of_whole)/err)[err>1e-9].pow(2).mean().sqrt()
        assert z<1.5 if corrected else z>10, z

def test_the_sum_over_all_words_is_right_on_average():
    "exp(loss) of one position estimates the sum without any bias: within 4 standard errors"
    h,w,b,y,counts = toy()
    s = WordSampler(counts, 20)
    torch.manual_seed(1)
    est = torch.stack([sampled_softmax_loss(h[:1], w, b, y[:1], s).exp() for _ in range(4000)])
    assert abs(est.mean()-F.cross_entropy(h[:1]@w.T+b, y[:1]).exp()) < 4*est.std()/len(est)**.5

@pytest.mark.parametrize('counts', [[5]*30, [10**6]+[0]*29, list(range(30)), [1e9/(i+1) for i in range(30)]])
@pytest.mark.parametrize('n', [1, 7, 29, 30, 500])
def test_chances_are_those_of_the_draw(counts, n):
    s = WordSampler(counts, n)
    torch.manual_seed(0)
    hits = torch.stack([torch.zeros(30).index_fill_(0, s.draw(), 1) for _ in range(3000)]).mean(0)
    assert (s.chance>0).all() and (s.chance<=1).all()
    assert (abs(hits-s.chance) < 4.5*(s.chance*(1-s.chance)/3000).sqrt()+1e-6).all()

def test_words_that_are_no_candidates_get_no_gradient_and_no_logits():
    h,w,b,y,counts = toy(n_words=900, n_pos=700)
    s = WordSampler(counts, 50)
    torch.manual_seed(3)
    drawn = torch.cat([s.draw() for _ in range(3)])
    torch.manual_seed(3)
    w.requires_grad_()
    with Largest() as largest: sampled_softmax_loss(h, w, b, y, s, rows=300).backward()
    there = torch.cat([drawn, y]).unique()
    assert torch.equal(w.grad.abs().sum(1).nonzero()[:,0], there) and len(there)<900
    assert 0 < largest.numel <= 300*400 < 700*400 # positions at a time, times candidates

@pytest.mark.parametrize('tie', [True, False])
def test_tied_and_untied_decoders(tie):
    cfg = dict(emb_sz=8, n_hid=12, n_layers=2, tie_weights=tie)
    x,y = torch.randint(0, 50, (2,4,10))
    res = []
    for sampler in (None, WordSampler(torch.ones(50), 50)):
        torch.manual_seed(0)
        lm = get_language_model(AWD_LSTM, 50, cfg, drop_mult=0)
        lm[1].lazy,lm[1].sampler = True,sampler
        pred = lm(x)[0]
        assert isinstance(pred, LazyLogits)
        pred.loss(y).backward()
        res.append([p.grad for p in lm.parameters()])
    for a,c in zip(*res): torch.testing.assert_close(a, c, atol=1e-6, rtol=1e-5)

def lm(path, **kwargs):
    fa.set_seed(1)
    dls = TextDataLoaders.from_df(sentences()[:300][['text']], path=path, is_lm=True, bs=8, seq_len=12, seed=1)
    return language_model_learner(dls, AWD_LSTM, config=dict(emb_sz=8, n_hid=12), pretrained=False,
        metrics=[fa.accuracy,fa.Perplexity()], **kwargs)

def test_what_is_reported_is_over_all_words(tmp_path):
    learn = lm(tmp_path, num_sampled=40)
    with learn.no_bar(): learn.fit(1, 1e-2, cbs=fa.CSVLogger())
    names = learn.recorder.metric_names
    assert 'sampled_loss' in names and 'train_loss' not in names and 'valid_loss' in names
    assert (tmp_path/'history.csv').read_text().startswith('epoch,sampled_loss,valid_loss')
    learn.model.eval()
    learn.model.reset()
    total = n = 0
    with torch.no_grad():
        for x,y in learn.dls.valid:
            total,n = total+F.cross_entropy(learn.model(x)[0].flatten(0,1), y.flatten(), reduction='sum'),n+y.numel()
    assert abs(float(total/n)-learn.recorder.values[-1][1])<1e-4
    plain = lm(tmp_path)
    with plain.no_bar(), plain.no_logging(): plain.fit(1, 1e-2)
    assert 'train_loss' in plain.recorder.metric_names # few words: all of them
    assert 'sampler' not in ' '.join(learn.model.state_dict()) # a file of one is read by the other
    learn.save('a')
    plain.load('a')

two = '''
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from ulmfit_nb.awd_lstm import AWD_LSTM, get_language_model
from ulmfit_nb.losses import WordSampler
rank,store,out = int(sys.argv[1]),*sys.argv[2:]
torch.set_num_threads(1)
dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
def model():
    torch.manual_seed(0)
    lm = get_language_model(AWD_LSTM, 80, dict(emb_sz=8, n_hid=12), drop_mult=0)
    lm[1].lazy,lm[1].sampler = True,WordSampler(1000/torch.arange(1,81), 30)
    return lm
g = torch.Generator().manual_seed(5)
xs,ys = torch.randint(0, 80, (2,2,4,10), generator=g)
class Loss(torch.nn.Module):
    def __init__(self, lm): super().__init__(); self.lm = lm
    def forward(self, x, y): return self.lm(x)[0].loss(y)
def alone(r):
    lm = model()
    torch.manual_seed(100+r)
    lm(xs[r])[0].loss(ys[r]).backward()
    return {k:p.grad for k,p in lm.named_parameters()}
lm = model()
ddp = DistributedDataParallel(Loss(lm))
torch.manual_seed(100+rank)
ddp(xs[rank], ys[rank]).backward()
a,b = alone(0),alone(1)
diff = max(float((p.grad-(a[k]+b[k])/2).abs().max()) for k,p in lm.named_parameters())
size = max(float((a[k]-b[k]).abs().max()) for k in a)
if rank==0: open(out, 'w').write(f'{diff} {size}')
dist.barrier()
dist.destroy_process_group()
'''

def test_two_processes_draw_words_of_their_own(tmp_path):
    "DDP over gloo: the gradient is the mean of the two processes' gradients, each from its own draw"
    ps = [subprocess.Popen([sys.executable, '-c', two, str(r), tmp_path/'store', tmp_path/'out'],
        stderr=subprocess.PIPE, text=True) for r in (0,1)]
    errs = [p.communicate(timeout=240)[1] for p in ps]
    assert [p.returncode for p in ps]==[0,0], errs
    diff,size = map(float, (tmp_path/'out').read_text().split())
    assert diff < 1e-6 < 1e-3 < size

def test_fused_adam_is_fastais_adam_in_a_training(tmp_path):
    "A whole cycle of the learner with frozen groups, clipping and weight decay, against fastai's optimizer"
    res = []
    for opt in (FusedAdam, fa.Adam):
        learn = lm(tmp_path, opt_func=opt, drop_mult=0, cbs=fa.GradientClip(.1), wd=.1)
        learn.freeze()
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(1, 1e-2)
            learn.unfreeze()
            learn.fit_one_cycle(1, slice(1e-3,1e-2))
        res.append([p.detach() for p in learn.model.parameters()])
    for a,c in zip(*res): torch.testing.assert_close(a, c, atol=2e-4, rtol=1e-3)
