"""The AWD-LSTM against fastai's and against plain PyTorch"""
import copy, io, subprocess, sys, warnings

import pytest, torch
from torch import nn
from torch.nn import functional as F

from fastai.text.models import awdlstm as fa, core as fac
from ulmfit_nb.losses import *
from ulmfit_nb.awd_lstm import *

SMALL = dict(emb_sz=12, n_hid=20)
SHAPES = [(4,15), (4,15), (4,72), (2,5), (6,33), (1,1), (16,20)]


def pair(seed=0, vocab_sz=60, **kw):
    "Our language model and fastai's, both built from `seed`"
    res = []
    for get,arch in ((get_language_model,AWD_LSTM), (fac.get_language_model,fa.AWD_LSTM)):
        torch.manual_seed(seed)
        res.append(get(arch, vocab_sz, {**awd_lstm_lm_config, **SMALL, **kw}))
    return res


def batches(vocab_sz=60, seed=5):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocab_sz, s, generator=g) for s in SHAPES]


def run(m, bs, train=False):
    m.train(train).reset()
    res = []
    for n,b in enumerate(bs):
        torch.manual_seed(n)
        res += m(b)
    return res


@pytest.fixture(autouse=True)
def no_warnings():
    "Nothing here may warn, for instance of weights that aren't in one block of memory"
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        yield


@pytest.mark.parametrize('kw', [{}, dict(tie_weights=False), dict(out_bias=False), dict(n_layers=1),
    dict(n_layers=4, emb_sz=16), dict(bidir=True)], ids=str)
def test_output_equals_fastai(kw):
    ours,theirs = pair(**kw)
    for a,b in zip(run(ours, batches()), run(theirs, batches())): torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize('kw', [{}, dict(tie_weights=False), dict(n_layers=2)], ids=str)
def test_training_steps_equal_fastai(kw):
    "Ten SGD steps with all dropouts, the same random numbers: the same weights"
    ours,theirs = pair(**kw)
    for m in (ours,theirs):
        m.train()
        opt = torch.optim.SGD(m.parameters(), lr=0.5)
        for n,b in enumerate([*batches(), *batches(seed=6)][:10]):
            torch.manual_seed(n)
            logits,raw,dropped = m(b)
            loss = F.cross_entropy(logits.flatten(0,1), b.flatten()) + 2*dropped.pow(2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    sd = theirs.state_dict()
    for k,v in fastai_state_dict(ours).items(): torch.testing.assert_close(v, sd[k], atol=1e-5, rtol=0)


@pytest.mark.parametrize('kw', [{}, dict(tie_weights=False, out_bias=False), dict(bidir=True)], ids=str)
def test_state_dict_both_ways(kw):
    (ours,theirs),(fresh,fresh_fa) = pair(1, **kw),pair(2, **kw)
    assert list(fastai_state_dict(ours)) == list(theirs.state_dict())  # fastai's load_pretrained goes by the order
    fresh_fa.load_state_dict(fastai_state_dict(ours))
    fresh.load_state_dict(theirs.state_dict())
    want = run(ours, batches())
    for m in (fresh, fresh_fa):
        for a,b in zip(run(m, batches()), want): torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_older_checkpoint_raw_wins_in_either_order():
    ours,theirs = pair(3)
    sd = theirs.state_dict()
    stale = {f'0.rnns.{i}.module.weight_hh_l0': torch.full_like(sd[f'0.rnns.{i}.weight_hh_l0_raw'], 7.)
        for i in range(3)}
    for d in ({**sd, **stale}, {**stale, **sd}):
        keys,fresh = list(d),pair(4)[0]
        fresh.load_state_dict(d)
        assert list(d) == keys                                          # the caller's dict is left as it was
        for a,b in zip(fresh[0].rnns, theirs[0].rnns): assert torch.equal(a.weight_hh_l0, b.weight_hh_l0_raw)


def test_wrong_checkpoints_are_refused():
    m = pair()[0]
    sd = fastai_state_dict(m)
    with pytest.raises(RuntimeError, match='Missing key'):
        m.load_state_dict({k:v for k,v in sd.items() if 'weight_hh_l0_raw' not in k})
    with pytest.raises(RuntimeError, match='Unexpected key'):
        m.load_state_dict({**sd, '0.rnns.0.module.weight_hh_l1': torch.zeros(1)})
    with pytest.raises(RuntimeError, match='size mismatch'):
        m.load_state_dict({**sd, '0.rnns.0.weight_hh_l0_raw': torch.zeros(3,3)})


def test_encoder_alone_and_file_without_pickle():
    ours,theirs = pair(6)
    f = io.BytesIO()
    torch.save(theirs[0].state_dict(), f)
    f.seek(0)
    enc = AWD_LSTM(60, **SMALL, n_layers=3)
    enc.load_state_dict(torch.load(f, weights_only=True))
    assert list(fastai_state_dict(enc)) == list(theirs[0].state_dict())
    x = batches()[0]
    theirs.eval()
    torch.testing.assert_close(enc.eval()(x), theirs[0](x), atol=1e-6, rtol=0)


@pytest.mark.parametrize('p', [0.1, 0.5, 0.8])
def test_mask_fraction_scale_and_distribution(p):
    torch.manual_seed(0)
    ours = dropout_mask(torch.ones(1), (400,500), p)
    torch.manual_seed(0)
    assert torch.equal(ours, fa.dropout_mask(torch.ones(1), (400,500), p))
    zeros,n = (ours==0).float().mean().item(),ours.numel()
    assert abs(zeros-p) < 4*(p*(1-p)/n)**0.5
    assert torch.allclose(ours[ours!=0], torch.tensor(1/(1-p)))


def test_variational_mask_is_one_per_text():
    y = RNNDropout(0.5)(torch.ones(64, 9, 50))
    assert torch.equal(y, y[:,:1].expand_as(y))
    assert len({tuple(r.tolist()) for r in y[:,0]}) == 64
    x = torch.randn(2, 3, 4)
    assert RNNDropout(0.5).eval()(x) is x and RNNDropout(0.)(x) is x


@pytest.mark.parametrize('scale', [None, 0.5])
def test_embedding_dropout_equals_masked_matrix(scale):
    "Values and gradients of: mask the matrix, look up; the embedding itself is never changed"
    emb = nn.Embedding(30, 6, padding_idx=1)
    before,x = emb.weight.detach().clone(),torch.randint(0, 30, (5,40))
    torch.manual_seed(0)
    y = EmbeddingDropout(emb, 0.4)(x, scale)
    torch.manual_seed(0)
    mask = dropout_mask(emb.weight.detach(), (30,1), 0.4)
    ref = F.embedding(x, emb.weight*mask, padding_idx=1) * (scale or 1)
    torch.testing.assert_close(y, ref)
    w = torch.randn_like(y)
    g,h = [torch.autograd.grad((t*w).sum(), emb.weight)[0] for t in (y,ref)]
    torch.testing.assert_close(g, h, atol=1e-5, rtol=1e-5)
    assert not g[1].any() and torch.equal(emb.weight, before)


def test_weight_drop_leaves_parameters_in_place():
    rnn = WeightDropLSTM(4, 50, 0.5)
    names = [n for n,_ in rnn.named_parameters()]
    assert names == [n for n,_ in nn.LSTM(4, 50, batch_first=True).named_parameters()]
    before = {k: v.clone() for k,v in rnn.state_dict().items()}
    hx = tuple(torch.zeros(2, 1, 3, 50))
    a,b = [rnn(torch.ones(3,7,4), hx)[0] for _ in range(2)]
    assert not torch.equal(a, b)
    assert all(torch.equal(v, before[k]) for k,v in rnn.state_dict().items())
    assert all(o is p for n,o,p in zip(names, rnn.dropped_weights(), rnn.parameters()) if 'weight_hh' not in n)
    hh = WeightDropLSTM(4, 50, 0.5, bidir=True).dropped_weights()
    for w in (hh[1],hh[5]): assert abs((w==0).float().mean()-0.5) < 0.03


def test_packed_weights_are_one_block_with_the_same_gradient():
    "What runs on a GPU: views of one block of memory"
    from ulmfit_nb.awd_lstm import _pack
    rnn = WeightDropLSTM(4, 5)
    ws = _pack(list(rnn.parameters()))
    assert len({w.untyped_storage().data_ptr() for w in ws}) == 1 and all(w.is_contiguous() for w in ws)
    x,hx = torch.randn(2, 6, 4),tuple(torch.zeros(2, 1, 2, 5))
    out = torch.lstm(x, hx, ws, True, 1, 0., True, False, True)[0]
    torch.testing.assert_close(out, rnn(x, hx)[0])
    grads = [torch.autograd.grad(o.pow(2).sum(), list(rnn.parameters())) for o in (out, rnn(x, hx)[0])]
    for a,b in zip(*grads): torch.testing.assert_close(a, b)


@pytest.mark.parametrize('seq_len', [1, 5, 15, 72, 359])
def test_sequence_length_does_not_matter(seq_len):
    enc,x = pair()[0][0].eval(),torch.randint(0, 60, (3,360))
    with torch.no_grad():
        whole = enc(x)
        enc.reset()
        pieces = torch.cat([enc(p) for p in x.split(seq_len, 1)], 1)
    torch.testing.assert_close(pieces, whole, atol=1e-6, rtol=0)


def test_hidden_out_and_in():
    enc = pair()[0][0].eval()
    a,b = batches()[:2]
    enc(a)
    kept = enc.hidden
    assert [tuple(h.shape) for h,c in kept] == [(1,4,20), (1,4,20),
        (1,4,12)] and not any(t.requires_grad for hc in kept for t in hc)
    want = enc(b)
    enc.reset()
    assert enc.bs == 1
    enc.hidden = kept
    assert enc.bs == 4 and torch.equal(enc(b), want)
    enc.hidden = [(h[:,2:3],c[:,2:3]) for h,c in kept]                    # one row of it
    torch.testing.assert_close(enc(b[2:3]), want[2:3], atol=1e-6, rtol=0)


def test_gradient_stops_between_batches():
    m = pair()[0]
    m(batches()[0])[0].sum().backward()
    m(batches()[1])[0].sum().backward()                                  # raises if it reached into the first graph


def test_no_dropout_at_all():
    m = get_language_model(AWD_LSTM, 60, SMALL, drop_mult=0)
    a = run(m, batches(), train=True)
    for x,y in zip(a, run(m, batches())): torch.testing.assert_close(x, y, atol=1e-6, rtol=0)


def test_deepcopy_in_the_middle_of_training():
    m = pair()[0].train()
    m(batches()[0])[0].sum().backward()
    c = copy.deepcopy(m)
    assert c[0].encoder.weight is c[1].decoder.weight is c[0].encoder_dp.emb.weight and c[0].encoder.weight is not m[
        0].encoder.weight
    outs = []
    for o in (m,c):
        torch.manual_seed(0)
        outs.append(o(batches()[1])[0])
    assert torch.equal(*outs)


def test_autocast_bf16():
    m = pair()[0]
    full = run(m, batches())
    with torch.autocast('cpu', torch.bfloat16):
        half = run(m, batches())
        m.train()(batches()[0])[0].float().sum().backward()
    for a,b in zip(half, full): torch.testing.assert_close(a.float(), b, atol=0.02, rtol=0.05)
    assert all(p.grad is not None and p.grad.dtype==torch.float32 for p in m.parameters())
    assert m.eval()(batches()[1])[0].dtype == torch.float32               # goes on in float32 with the state it has


def test_bf16_model():
    m = pair()[0].bfloat16()
    assert m(batches()[0])[0].dtype == torch.bfloat16


def test_embeddings_instead_of_ids():
    enc,x = pair()[0][0].eval(),batches()[0]
    want = enc(x)
    enc.reset()
    emb = enc.encoder(x).detach().requires_grad_()
    out = enc(emb, from_embeds=True)
    assert torch.equal(out, want)
    out.sum().backward()
    assert emb.grad.abs().max() > 0


def test_groups_equal_fastai():
    def shapes(groups): return [sorted(tuple(p.shape) for p in g) for g in groups]
    for kw in ({}, dict(tie_weights=False), dict(out_bias=False), dict(n_layers=2)):
        ours,theirs = pair(**kw)
        groups = awd_lstm_lm_split(ours)
        assert shapes(groups) == shapes(fa.awd_lstm_lm_split(theirs))
        assert {id(p) for g in groups for p in g} == {id(p) for p in ours.parameters()}
        assert sum(map(len, groups)) == len(list(ours.parameters()))
    fclas = fac.get_text_classifier(fa.AWD_LSTM, 60, 2, config={**awd_lstm_clas_config, **SMALL})
    clas = nn.Sequential(fac.SentenceEncoder(72, AWD_LSTM(60, **SMALL, n_layers=3)), fclas[1])
    assert shapes(awd_lstm_clas_split(clas)) == shapes(fa.awd_lstm_clas_split(fclas))


def test_configs():
    assert awd_lstm_lm_config == fa.awd_lstm_lm_config and awd_lstm_clas_config == fa.awd_lstm_clas_config
    cfg = dict(awd_lstm_compact_config)
    m = get_language_model(AWD_LSTM, 100, cfg, drop_mult=0.5)
    assert cfg == awd_lstm_compact_config and m[0].rnns[0].weight_p == awd_lstm_lm_config['weight_p']/2 and len(
        m[0].rnns) == 3
    with pytest.raises(ValueError, match='no architecture'): get_language_model(nn.GRU, 100)
    with pytest.raises(TypeError, match='n_hidden'): get_language_model(AWD_LSTM, 100, dict(n_hidden=3))
    m = get_language_model(AWD_LSTM, 100, {**SMALL, 'init': lambda o: nn.init.zeros_(o.weight)
        if isinstance(o, nn.Embedding) else None})
    assert not m[0].encoder.weight.any()


def test_fastai_learner_with_ar_and_tar():
    "Trained by fastai's Learner with its callbacks and its Adam, our model ends where fastai's ends"
    from fastai.callback.rnn import rnn_cbs
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    dl = [(x,x) for x in batches()[:5]]
    ours,theirs = pair()
    before = {k: v.clone() for k,v in ours.state_dict().items()}
    for m,split in ((ours,awd_lstm_lm_split), (theirs,fa.awd_lstm_lm_split)):
        learn = Learner(DataLoaders(dl, dl), m, loss_func=CrossEntropyLossFlat(), splitter=split, cbs=rnn_cbs(2, 1),
            moms=(0.8,0.7,0.8))
        torch.manual_seed(0)
        with learn.no_logging(): learn.fit(2, slice(1e-4, 1e-3))
    sd = theirs.state_dict()
    for k,v in fastai_state_dict(ours).items(): torch.testing.assert_close(v, sd[k], atol=1e-5, rtol=0)
    assert all((v-before[k]).abs().max() > 1e-4 for k,v in ours.state_dict().items())


def test_importing_needs_no_fastai():
    code = 'import sys, ulmfit_nb.awd_lstm; assert not any(m.split(".")[0]=="fastai" for m in sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True)


# ---- the loss without logits ----

@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('rows', [1, 7, 64, None])
def test_linear_cross_entropy_equals_plain(rows, bias):
    torch.manual_seed(0)
    h,w,b,y = torch.randn(5, 13, 8),torch.randn(300, 8),torch.randn(300) if bias else None,torch.randint(0, 300, (5,13))
    def run(f):
        xs = [o.clone().requires_grad_() for o in (h,w,b) if o is not None]
        loss = f(*xs, *[None]*(not bias))
        (3*loss).backward()
        return [loss.detach(), *[x.grad for x in xs]]
    ours = run(lambda h,w,b: linear_cross_entropy(h, w, b, y, rows))
    plain = run(lambda h,w,b: F.cross_entropy(F.linear(h, w, b).flatten(0,1), y.flatten()))
    for a,c in zip(ours, plain): torch.testing.assert_close(a, c, atol=1e-5, rtol=1e-5)


def test_linear_cross_entropy_of_a_hopeless_model():
    "Probabilities that are too small for a float still have a finite, right loss"
    h,w,y = torch.tensor([[300.]]),torch.tensor([[1.],[-1.]]),torch.tensor([1])
    for dtype in (torch.float32, torch.bfloat16):
        loss = linear_cross_entropy(h.to(dtype), w.to(dtype), None, y)
        torch.testing.assert_close(loss, torch.tensor(600.), atol=3, rtol=0)


def test_linear_cross_entropy_refuses_ids_out_of_range():
    for bad in (-100, 2):
        with pytest.raises((RuntimeError,IndexError)):
            linear_cross_entropy(torch.ones(1,1), torch.ones(2,1), None, torch.tensor([bad]))


def test_linear_cross_entropy_bf16_is_near():
    torch.manual_seed(0)
    h,w,b,y = torch.randn(600, 32),torch.randn(500, 32)/5,torch.randn(500),torch.randint(0, 500, (600,))
    grads = []
    for half in (False,True):
        xs = [o.clone().requires_grad_() for o in (h,w,b)]
        with torch.autocast('cpu', torch.bfloat16, enabled=half): loss = linear_cross_entropy(*xs, y)
        assert loss.dtype==torch.float32
        grads.append([loss.detach(), *torch.autograd.grad(loss, xs)])
    for a,c in zip(*grads): assert a.dtype==c.dtype and (a-c).norm() < 0.02*c.norm()


def test_no_tensor_of_places_times_words_is_made():
    "Nothing larger than the matrix itself is ever asked for"
    from watch import Largest
    h,w,y = torch.randn(2000, 8, requires_grad=True),torch.randn(900, 8, requires_grad=True),torch.randint(0, 900,
        (2000,))
    with Largest() as ours: linear_cross_entropy(h, w, None, y).backward()
    assert 0 < ours.numel <= 256*900 < 2000*900
    with Largest() as plain: F.cross_entropy(h@w.T, y).backward()
    assert plain.numel == 2000*900


def test_lazy_logits_are_logits_to_whoever_looks():
    lm = pair()[0].train()
    x = batches()[0]
    torch.manual_seed(0)
    plain = lm(x)[0]
    lm[1].lazy = True
    lm.reset()
    torch.manual_seed(0)
    lazy = lm(x)[0]
    assert isinstance(lazy, LazyLogits) and lazy._logits is None and len(lazy)==len(x) and lazy.float() is lazy
    assert lazy.shape == plain.shape and torch.equal(lazy[0], plain[0]) and torch.equal(lazy.argmax(-1),
        plain.argmax(-1))
    torch.testing.assert_close(F.cross_entropy(lazy.flatten(0,1), x.flatten()), lazy.loss(x))
    assert torch.equal(torch.softmax(lazy, -1), plain.softmax(-1))
    assert isinstance(lm.eval()(x)[0], torch.Tensor)
    copy.deepcopy(lm)


@pytest.mark.parametrize('drop', [0, 1])
def test_training_step_without_logits_equals_fastai(drop):
    "The whole model's gradients with `LazyLogits`, and with dropout 0 at any size of batch, to 1e-5"
    kw = {} if drop else dict(output_p=0., hidden_p=0., input_p=0., embed_p=0., weight_p=0.)
    ours,theirs = pair(**kw)
    ours[1].lazy = True
    names = {v.data_ptr(): k for k,v in fastai_state_dict(ours).items() if 'encoder_dp' not in k
        and '1.decoder.weight' not in k}
    for m in (ours,theirs):
        # fastai's model can't be reset after training without weight dropout
        m.train(bool(drop))
        if not drop and m is ours: m[1].train()                            # lazy also without dropout
    for n,x in enumerate(batches()):
        grads = []
        for m in (ours,theirs):
            m.zero_grad()
            torch.manual_seed(n)
            logits,raw,dropped = m(x)
            loss = logits.loss(x) if m is ours else F.cross_entropy(logits.flatten(0,1), x.flatten())
            (loss + 2*dropped.pow(2).mean()).backward()
            grads.append({k: p.grad.clone() for k,p in m.named_parameters()})
        for k,g in grads[0].items():
            torch.testing.assert_close(g, grads[1][names[ours.get_parameter(k).data_ptr()]], atol=1e-5, rtol=0)


# ---- distributions of the dropouts, without a shared seed ----

def _zeros_per(what, make, n=400):
    "How many zeros each draw has along `what`, over `n` draws"
    return torch.stack([(make()==0).float().mean(what) for _ in range(n)])


@pytest.mark.parametrize('name', ['embedding', 'weight', 'rnn'])
def test_dropout_distribution_is_fastais(name):
    """Means and spreads of the share of zeros, per draw and per row, agree within 4 standard errors; other seeds on
    both sides"""
    p = 0.3
    emb,x = nn.Embedding(40, 10),torch.arange(40)[None]
    with torch.no_grad(): emb.weight.add_(5*emb.weight.sign())
    ours_l,theirs_l = WeightDropLSTM(3, 12, p),fa.WeightDropout(nn.LSTM(3, 12, batch_first=True), p)
    def theirs_w():
        theirs_l._setweights()
        return theirs_l.module.weight_hh_l0.detach()
    make = dict(embedding=(lambda: EmbeddingDropout(emb, p)(x)[0].detach(),
        lambda: fa.EmbeddingDropout(emb, p)(x)[0].detach()),
        weight=(lambda: ours_l.dropped_weights()[1].detach(), theirs_w),
        rnn=(lambda: RNNDropout(p)(torch.ones(20, 6, 10))[:,0],
        lambda: fa.RNNDropout(p)(torch.ones(20, 6, 10))[:,0]))[name]
    for dim in ((0,1), 1, 0):
        torch.manual_seed(1)
        a = _zeros_per(dim, make[0]).flatten()
        torch.manual_seed(2)
        b = _zeros_per(dim, make[1]).flatten()
        se = (a.var()/400 + b.var()/400).sqrt()                            # at least 400 independent draws
        assert (a.mean()-p).abs() < 4*se and (a.mean()-b.mean()).abs() < 4*se
        assert 0.75 < a.std()/b.std().clamp(min=1e-9) < 1.33


# ---- compiled, and in two processes ----

@pytest.mark.parametrize('train', [False, True])
def test_torch_compile_on_and_off(train, tmp_path, monkeypatch):
    "The compiled model gives the outputs and gradients of the plain one, batch after batch"
    import shutil
    if not any(shutil.which(o) for o in ('g++','clang++','c++')):
        pytest.skip('torch.compile needs a C++ compiler, and there is none here')
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    warnings.simplefilter('ignore')
    m = get_language_model(AWD_LSTM, 60, SMALL, drop_mult=0).train(train)
    plain = copy.deepcopy(m)
    torch._dynamo.reset()
    fast = torch.compile(m)
    for x in batches()[:3]:
        a,b = fast(x)[0],plain(x)[0]
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        for o in (a,b): o.pow(2).mean().backward()
    for p,q in zip(m.parameters(), plain.parameters()): torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=0)
    torch._dynamo.reset()


two = '''
import os, sys, torch, torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from ulmfit_nb.losses import *
from ulmfit_nb.awd_lstm import *
from ulmfit_nb.batching import LMDataLoader
rank,store,out,lazy = int(sys.argv[1]),sys.argv[2],sys.argv[3],int(sys.argv[4])
dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
torch.set_num_threads(1)
torch.manual_seed(0)
docs = [torch.randint(2, 50, (n,)) for n in (90,41,77,130,62)]
model = get_language_model(AWD_LSTM, 50, dict(emb_sz=8, n_hid=12), drop_mult=0)
model[1].lazy = bool(lazy)
def step(m, dl):
    for x,y in dl:
        pred,raw,dropped = m(x.as_subclass(torch.Tensor))
        y = y.as_subclass(torch.Tensor)
        loss = pred.loss(y) if isinstance(pred, LazyLogits) else F.cross_entropy(pred.flatten(0,1), y.flatten())
        (loss + 2*dropped.pow(2).mean()).backward()
ddp = nn.parallel.DistributedDataParallel(model)
dl = LMDataLoader(docs, bs=4, seq_len=11, rank=rank, world=2)
step(ddp, dl)
mine = {k: p.grad.clone() for k,p in model.named_parameters()}
n = len(list(dl))
dist.destroy_process_group()
if rank==0:
    model.zero_grad(); model.reset()
    joint = LMDataLoader(docs, bs=8, seq_len=11)
    assert len(list(joint)) == n > 3
    step(model, joint)
    diff = max((p.grad-mine[k]).abs().max().item() for k,p in model.named_parameters())
    open(out, 'w').write(f'{diff} {max(g.abs().max().item() for g in mine.values())}')
'''


@pytest.mark.parametrize('lazy', [0, 1])
def test_two_processes_have_the_gradient_of_the_joint_batch(tmp_path, lazy):
    "DDP over gloo, each process with mini-streams of its own, carried state, several batches"
    ps = [subprocess.Popen([sys.executable, '-c', two, str(r), tmp_path/'store', tmp_path/'out', str(lazy)],
        stderr=subprocess.PIPE, text=True) for r in (0,1)]
    errs = [p.communicate(timeout=240)[1] for p in ps]
    assert [p.returncode for p in ps]==[0,0], errs
    diff,size = map(float, (tmp_path/'out').read_text().split())
    assert diff < 1e-5 < 1e-3 < size
