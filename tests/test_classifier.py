"The classifier against fastai at batch size 1, plain PyTorch, and itself in other batches"
import pytest, torch
from torch import nn
from fastai.text.data import TensorText
from fastai.text.models.awdlstm import AWD_LSTM as FastaiAWD_LSTM, awd_lstm_clas_split as fastai_split
from fastai.text.models.core import get_text_classifier as fastai_text_classifier, masked_concat_pool as fastai_pool
from ulmfit_nb.awd_lstm import *
from ulmfit_nb.classifier import *

vocab_sz,cfg = 120,dict(emb_sz=20, n_hid=28, n_layers=3)

def docs_of(lens, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(2, vocab_sz, (n,), generator=g) for n in lens]

def padded(docs, extra=0): return nn.functional.pad(nn.utils.rnn.pad_sequence(docs, batch_first=True, padding_value=1), (0,extra), value=1)

def loud(model):
    "Weights as far apart as a trained model's, so that differences show"
    model[0].module.encoder.weight.data *= 15
    for p in model[0].module.rnns.parameters(): p.data *= 1.7
    for n,p in model[1].named_parameters(): p.data += torch.randn_like(p)*.3
    return model

@pytest.fixture(scope='module')
def model():
    torch.manual_seed(3)
    return loud(get_text_classifier(AWD_LSTM, vocab_sz, 3, config=cfg)).eval()

@pytest.fixture(scope='module')
def fast(model):
    res = fastai_text_classifier(FastaiAWD_LSTM, vocab_sz, 3, config=cfg).eval()
    res[0].module.load_state_dict(fastai_state_dict(model[0].module))
    res[1].load_state_dict(model[1].state_dict())
    return res

@torch.no_grad()
def scores(model, x): return model(x)[0]

@pytest.mark.parametrize('n', [1, 2, 71, 72, 73, 144, 300, 1439, 1440, 1441, 1500, 1511, 1512, 1513, 2100])
def test_as_fastai_alone(model, fast, n):
    x = docs_of([n])[0][None]
    assert torch.allclose(scores(model, x), scores(fast, x), atol=1e-5)
    with torch.no_grad(): (o,m),(fo,fm) = model[0](x),fast[0](x)
    assert o.shape==fo.shape and torch.allclose(o, fo, atol=1e-6) and torch.equal(m, fm)

def test_long_document_keeps_whole_chunks(model):
    with torch.no_grad(): assert model[0](docs_of([1500])[0][None])[0].shape[1]==1428
    enc = SentenceEncoder(72, model[0].module, max_len=None)
    with torch.no_grad(): assert enc(docs_of([1500])[0][None])[0].shape[1]==1500

def test_max_len_counts_from_the_document(model):
    "A short document keeps everything beside a long one"
    short,long = docs_of([40, 1500])
    with torch.no_grad(): out,mask = model[0](padded([short,long]))
    assert (~mask).sum(1).tolist()==[40,1428]

def test_any_batch(model):
    g = torch.Generator().manual_seed(5)
    lens = [1,2,71,72,73,1440,1441,2300] + torch.randint(1, 400, (56,), generator=g).tolist() + torch.randint(400, 2000, (8,), generator=g).tolist()
    docs = docs_of(lens)
    ref = torch.cat([scores(model, d[None]) for d in docs])
    assert ref.std(0).min() > .05 # the documents do differ
    for bs in 8,64:
        for seed,extra in (0,0),(1,200):
            perm = torch.randperm(len(docs), generator=torch.Generator().manual_seed(seed))
            got = torch.cat([scores(model, padded([docs[i] for i in idx], extra)) for idx in perm.split(bs)])
            assert (got - ref[perm]).abs().max() < 1e-5

def test_padding_anywhere(model):
    d = docs_of([90, 30])
    ref = scores(model, padded(d))
    front = torch.stack([nn.functional.pad(o, (100-len(o),0), value=1) for o in d])
    assert torch.allclose(scores(model, front), ref, atol=1e-5)
    assert torch.allclose(scores(model, TensorText(padded(d)).int()), ref, atol=1e-6) # int32 as in a corpus, fastai's type

def test_fastai_differs_in_a_batch(model, fast):
    "The bug that is avoided is really there, so that the tests above can see something"
    from fastai.text.data import pad_chunk
    docs = docs_of([330, 270, 258, 200, 150, 75, 17, 5])
    alone = torch.cat([scores(fast, d[None]) for d in docs])
    together = scores(fast, torch.stack([pad_chunk(d, pad_len=330) for d in docs]))
    assert (alone-together).abs().max() > 1e-3
    assert (alone-scores(model, padded(docs))).abs().max() < 1e-5

def test_only_living_rows_are_run(model):
    seen = []
    h = model[0].module.register_forward_hook(lambda m,i,o: seen.append(tuple(i[0].shape)))
    try: scores(model, padded(docs_of([10, 200, 80])))
    finally: h.remove()
    assert seen==[(3,72),(2,72),(1,56)]

@pytest.mark.parametrize('bad', ['first', 'all'])
def test_nothing_but_padding(model, bad):
    x = torch.ones(2, 4, dtype=torch.long)
    if bad=='first': x[1] = 5
    with pytest.raises(ValueError, match='document . of the batch holds nothing but padding'): model(x)

def test_pool_as_fastai_and_plain():
    torch.manual_seed(0)
    out,lens = torch.randn(9, 31, 7, requires_grad=True),torch.tensor([31,1,2,30,15,31,8,9,22])
    mask = torch.arange(31)[None]>=lens[:,None]
    got = masked_concat_pool(out, mask)
    plain = torch.stack([torch.cat([o[n-1], o[:n].max(0).values, o[:n].mean(0)]) for o,n in zip(out, lens)])
    assert torch.allclose(got, plain, atol=1e-6)
    assert torch.allclose(got, fastai_pool(out, mask, bptt=31), atol=1e-6)
    w = torch.randn_like(got)
    g1,g2 = (torch.autograd.grad((o*w).sum(), out)[0] for o in (got,plain))
    assert torch.allclose(g1, g2, atol=1e-6) and not g1[mask].any()

def test_gradients_in_any_batch(model):
    "The sum of gradients over documents is the batch's gradient, in every parameter"
    docs,ys = docs_of([20, 75, 150, 3]),torch.tensor([0,2,1,1])
    def grads(x, y):
        model.zero_grad()
        nn.functional.cross_entropy(model(x)[0], y, reduction='sum').backward()
        return [p.grad.clone() for p in model.parameters()]
    together = grads(padded(docs), ys)
    alone = [sum(o) for o in zip(*[grads(d[None], y[None]) for d,y in zip(docs, ys)])]
    for a,b in zip(together, alone): assert torch.allclose(a, b, atol=1e-4*max(1, float(b.abs().max())))
    assert all(g.abs().sum()>0 for g in together)
    model.zero_grad()

def test_gradients_as_fastai_alone(model, fast):
    x,y = docs_of([170])[0][None],torch.tensor([1])
    for m in model,fast:
        m.zero_grad()
        nn.functional.cross_entropy(m(x)[0], y).backward()
    for a,b in zip(awd_lstm_clas_split(model), fastai_split(fast)):
        ga,gb = (sorted(float(p.grad.double().pow(2).sum()) for p in g) for g in (a,b))
        assert ga==pytest.approx(gb, rel=1e-3)
    model.zero_grad()
    fast.zero_grad()

def test_groups_as_fastai(model, fast):
    ours,theirs = awd_lstm_clas_split(model),fastai_split(fast)
    assert [sorted(p.numel() for p in g) for g in ours]==[sorted(p.numel() for p in g) for g in theirs]

@pytest.mark.parametrize('kw', [dict(lin_ftrs=[30,10], ps=[.1,.2]), dict(drop_mult=0), dict(y_range=(0,5)), dict(seq_len=16, max_len=32), dict(lin_ftrs=[])])
def test_options_as_fastai(kw):
    torch.manual_seed(0)
    ours = get_text_classifier(AWD_LSTM, vocab_sz, 2, config=cfg, **kw).eval()
    theirs = fastai_text_classifier(FastaiAWD_LSTM, vocab_sz, 2, config=cfg, **kw).eval()
    theirs[0].module.load_state_dict(fastai_state_dict(ours[0].module))
    theirs[1].load_state_dict(ours[1].state_dict())
    x = docs_of([50])[0][None]
    assert torch.allclose(scores(ours, x), scores(theirs, x), atol=1e-5)
    ps = [[m.p for m in o.modules() if isinstance(m, nn.Dropout)] for o in (ours[1],theirs[1])]
    assert ps[0]==ps[1]

def test_bad_options():
    with pytest.raises(ValueError, match='less than one chunk'): SentenceEncoder(72, nn.Identity(), max_len=10)
    with pytest.raises(ValueError, match='as many dropouts'): get_text_classifier(AWD_LSTM, vocab_sz, 2, config=cfg, lin_ftrs=[10,10], ps=[.1])
    with pytest.raises(ValueError, match='no configuration is known'): get_text_classifier(nn.LSTM, vocab_sz, 2)

def test_language_model_config_gives_sizes():
    m = get_text_classifier(AWD_LSTM, vocab_sz, 2, config={**awd_lstm_lm_config, **cfg})
    assert m[0].module.emb_sz==20 and m[0].module.input_dp.p==awd_lstm_clas_config['input_p']

def test_returns_as_fastai(model):
    x,raw,dropped = model(padded(docs_of([5,9])))
    assert x.shape==(2,3) and raw is dropped and raw.shape==(2,9,20)
