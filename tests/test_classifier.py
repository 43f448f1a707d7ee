"The classifier against fastai at batch size 1, plain PyTorch, and itself in other batches"
import pytest, torch
from torch import nn
from fastai.text.data import TensorText
from fastai.text.models.awdlstm import AWD_LSTM as FastaiAWD_LSTM, awd_lstm_clas_split as fastai_split
from fastai.text.models.core import get_text_classifier as fastai_text_classifier, masked_concat_pool as fastai_pool
from ulmfit_nb.awd_lstm import *
from ulmfit_nb.classifier import *
from ulmfit_nb.files import write_meta
from ulmfit_nb.inference import *
from ulmfit_nb.targets import *

vocab_sz,cfg = 120,dict(emb_sz=20, n_hid=28, n_layers=3)

def docs_of(lens, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(2, vocab_sz, (n,), generator=g) for n in lens]

def padded(docs, extra=0):
    return nn.functional.pad(nn.utils.rnn.pad_sequence(docs, batch_first=True, padding_value=1), (0,extra), value=1)

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
    lens = [1,2,71,72,73,1440,1441,2300] + torch.randint(1, 400, (56,), generator=g).tolist() + torch.randint(400, 2000,
        (8,), generator=g).tolist()
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
    # int32 as in a corpus, fastai's type
    assert torch.allclose(scores(model, TensorText(padded(d)).int()), ref, atol=1e-6)

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

@pytest.mark.parametrize('step', [1,16,100])
def test_pooled_is_the_pool_of_all_activations(model, step):
    "Also of very long documents, in any order, with padding in front"
    docs = docs_of([72,1,2,1500,15,16,17,71,73,300,1440,1441,2100])
    x = padded(docs, 5)
    front = torch.stack([nn.functional.pad(o, (2110-len(o),0), value=1) for o in docs])
    with torch.no_grad(): want = masked_concat_pool(*model[0](x))
    for o in x,front: assert (model[0].pooled(o, step)-want).abs().max()<1e-5
    with pytest.raises(ValueError, match='document 1 of the batch holds nothing but padding'):
        model[0].pooled(torch.tensor([[5],[1]]), step)

def test_pooled_reads_no_padding(model):
    "Rows leave when they end: with steps of one token only real tokens are read"
    seen = []
    h = model[0].module.register_forward_hook(lambda m,i,o: seen.append(i[0].numel()))
    try: model[0].pooled(padded(docs_of([10,200,80,80])), step=1)
    finally: h.remove()
    assert sum(seen)==370

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

@pytest.mark.parametrize('kw', [dict(lin_ftrs=[30,10], ps=[.1,.2]), dict(drop_mult=0), dict(y_range=(0,5)),
    dict(seq_len=16, max_len=32), dict(lin_ftrs=[])])
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
    with pytest.raises(ValueError, match='as many dropouts'):
        get_text_classifier(AWD_LSTM, vocab_sz, 2, config=cfg, lin_ftrs=[10,10], ps=[.1])
    with pytest.raises(ValueError, match='no architecture'): get_text_classifier(nn.LSTM, vocab_sz, 2)

def test_language_model_config_gives_sizes():
    m = get_text_classifier(AWD_LSTM, vocab_sz, 2, config={**awd_lstm_lm_config, **cfg})
    assert m[0].module.emb_sz==20 and m[0].module.input_dp.p==awd_lstm_clas_config['input_p']

def test_returns_as_fastai(model):
    x,raw,dropped = model(padded(docs_of([5,9])))
    assert x.shape==(2,3) and raw is dropped and raw.shape==(2,9,20)

# ---- the learner

import json, os, random, re, subprocess, sys
import numpy as np, pandas as pd
from fastai.callback.core import Callback
from fastai.callback.schedule import *
from fastai.data.block import RegressionBlock
from fastai.interpret import ClassificationInterpretation
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from ulmfit_nb import language_model
from ulmfit_nb.batching import TextDataLoaders
from ulmfit_nb.language_model import TextLearner, language_model_learner, load_language_model
from ulmfit_nb.texts import sentences
from ulmfit_nb.tokenization import lowercase, text_proc_rules

tiny = dict(emb_sz=12, n_hid=16)

@pytest.fixture(scope='module')
def df():
    res = sentences().sample(240, random_state=0).reset_index(drop=True)
    return res.assign(stars=np.where(res.label=='positive', 4.5, 1.5), tags=res.label+';'+res.source,
        number=(res.label=='positive').astype(int), is_valid=res.index%4==0)

@pytest.fixture(scope='module')
def dls_of(df, tmp_path_factory):
    path = tmp_path_factory.mktemp('clas')
    def f(label_col='label', data=df, **kw):
        return TextDataLoaders.from_df(data, path=path, text_col='text', label_col=label_col, valid_col='is_valid',
            bs=16, **kw)
    return f

@pytest.fixture(scope='module')
def dls(dls_of): return dls_of()

def learner(dls, **kw):
    set_seed(0)
    learn = text_classifier_learner(dls, AWD_LSTM, **{'config':tiny, 'pretrained':False, **kw})
    learn.remove_cbs([c for c in learn.cbs if c.name=='progress'])
    learn.logger = lambda *_: None
    return learn

class Steps(Callback):
    "Highest rate of each group in each fit, 0 where frozen"
    run_valid = False
    def __init__(self): self.rows = []
    def before_fit(self): self.rows.append(np.zeros(len(self.opt.hypers)))
    def before_step(self):
        lrs = [h['lr']*any(p.requires_grad for p in g) for h,g in zip(self.opt.hypers, self.opt.param_lists)]
        self.rows[-1] = np.maximum(self.rows[-1], lrs)

def test_recipe_is_the_chapters(dls):
    "Bit for bit the weights that the chapter's calls give, one after the other"
    a,b = learner(dls),learner(dls)
    def same_start():
        set_seed(1)
        dls.train.rng = random.Random(1)
    same_start()
    assert a.fit_gradual(**recipes['pretrained']) is a
    same_start()
    b.freeze()
    b.fit_one_cycle(1, 2e-2)
    b.freeze_to(-2)
    b.fit_one_cycle(1, slice(1e-2/(2.6**4), 1e-2))
    b.freeze_to(-3)
    b.fit_one_cycle(1, slice(5e-3/(2.6**4), 5e-3))
    b.unfreeze()
    b.fit_one_cycle(2, slice(1e-3/(2.6**4), 1e-3))
    for (n,p),q in zip(a.model.named_parameters(), b.model.parameters()): assert torch.equal(p, q), n

def test_recipe_rates_and_steps(dls):
    steps,learn = Steps(),learner(dls)
    learn.fit_gradual(**recipes['pretrained'], cbs=steps)
    want = [[lr/2.6**(4-g) if g>=first else 0 for g in range(5)] for lr,first in zip((2e-2,1e-2,5e-3,1e-3), (4,3,2,0))]
    np.testing.assert_allclose(steps.rows, want, rtol=.1)

def test_recipe_steps_can_be_changed(dls):
    steps,learn = Steps(),learner(dls)
    before = [p.detach().clone() for p in learn.encoder.parameters()]
    learn.fit_gradual(epochs=(1,0,0,0), cbs=steps)
    assert len(steps.rows)==1 and all(torch.equal(p, q) for p,q in zip(learn.encoder.parameters(), before))
    learn.fit_gradual(epochs=(1,1), lrs=(slice(1e-3,1e-3),1e-2), freeze_to=(-4,0), div=2., cbs=(steps:=Steps()))
    np.testing.assert_allclose(steps.rows, [[0,1e-3,1e-3,1e-3,1e-3], [1e-2/2**(4-g) for g in range(5)]], rtol=.1)
    with pytest.raises(ValueError, match='1 epochs, 4 lrs and 4 freeze_to'): learn.fit_gradual(epochs=(1,))

def test_recipe_with_two_layers(dls):
    steps,learn = Steps(),learner(dls, config={**tiny, 'n_layers':2})
    learn.fit_gradual(**dict(recipes['pretrained'], epochs=(0,0,0,1)), cbs=steps)
    np.testing.assert_allclose(steps.rows[0], [1e-3/2.6**(3-g) for g in range(4)], rtol=.1)

def test_recipe_suits_the_model(dls, tmp_path):
    "The chapter's only where a large model has read much; who has read what goes with the files"
    small,steps = learner(dls),Steps()
    flat = dict(recipes['scratch'], epochs=enough_epochs(recipes['scratch']['epochs'], len(dls.train_ds), 10000))
    assert small.recipe()==flat and flat['epochs'][-1]>4
    small.fit_gradual(epochs=(1,0,0,1), cbs=steps)
    np.testing.assert_allclose(steps.rows, [[2e-2 if g==4 else 0 for g in range(5)],
        [1e-2/1.3**(4-g) for g in range(5)]], rtol=.1)
    small.path = tmp_path
    wide = learner(dls, config={**tiny, 'emb_sz':4, 'n_hid':1152, 'n_layers':1})
    assert wide.pretrained is None and wide.recipe()==flat
    lm = language_model_learner(TextDataLoaders.from_df(pd.DataFrame({'text':['a b c d']*40}), text_col='text',
        text_vocab=dls.vocab[0], is_lm=True, bs=2, seq_len=5, path=tmp_path),
        AWD_LSTM, pretrained=False, config=dict(emb_sz=4, n_hid=1152, n_layers=1))
    wide.path = tmp_path
    for had,want in ((None,flat), ('wiki-en-fwd',dict(recipes['pretrained'],
        epochs=enough_epochs(recipes['pretrained']['epochs'], len(dls.train_ds), 4000)))):
        lm.pretrained = had
        lm.save_encoder('enc')
        assert wide.load_encoder('enc').recipe()==want
        wide.save('whole')
        wide.pretrained = 'another'
        assert wide.load('whole').recipe()==want
        wide.export('m')
        assert load_classifier(tmp_path/'m').pretrained==had
    lm.export('lm')
    wide.pretrained = None
    assert load_language_model(tmp_path/'lm').pretrained==wide.load_encoder(tmp_path/'lm').pretrained=='wiki-en-fwd'

def test_learns(df, dls_of):
    "Learns by heart what can be learnt by heart"
    marked = df.assign(text=np.where(df.label=='positive', 'Good. ', 'Bad. ')+df.text)
    learn = learner(dls_of(data=marked), metrics=accuracy, drop_mult=.1)
    learn.fit_one_cycle(6, 1e-2)
    assert learn.validate()[1]>.9

def test_predictions_in_the_callers_order(dls, df):
    learn = learner(dls)
    learn.fit_one_cycle(4, 2e-2) # so that texts get different answers
    texts = df.text[:50].tolist()+['x '*500, 'Short.']
    p = learn.predict_proba(texts)
    assert p.std(0).min()>1e-3
    alone = torch.stack([learn.predict(t)[2] for t in texts])
    assert (p-alone).abs().max()<1e-5
    perm = torch.randperm(len(texts))
    for bs in 1,7: assert (learn.predict_proba([texts[i] for i in perm], bs=bs)-p[perm]).abs().max()<1e-5
    assert torch.allclose(learn.get_preds(dl=learn.dls.test_dl(texts))[0], p, atol=1e-5)
    assert (learn.predict_proba(df.text[:5])-p[:5]).abs().max()<1e-5 # a column
    label,i,probs = learn.predict(texts[3])
    assert label==dls.vocab[1][int(i)] and int(i)==int(probs.argmax())

def test_predictions_of_the_validation_part(dls, df):
    learn = learner(dls)
    p,y = learn.get_preds()
    valid = df[df.is_valid]
    assert [dls.vocab[1][i] for i in y]==valid.label.tolist()
    assert torch.allclose(p, learn.predict_proba(valid.text), atol=1e-5)

def test_predict_is_what_fastai_answers(dls, df):
    "One text, and a list, against fastai's way through loaders and callbacks"
    from fastai.learner import Learner
    learn = learner(dls)
    learn.fit_one_cycle(2, 2e-2)
    texts = df.text[:12].tolist()
    labels,idxs,probs = learn.predict(texts)
    for t,l,i,p in zip(texts, labels, idxs, probs):
        label,idx,one = Learner.predict(learn, t)
        assert (l,int(i))==(label,int(idx)) and torch.allclose(p, one, atol=1e-6)
        label,idx,one = learn.predict(t)
        assert (l,int(i))==(label,int(idx)) and torch.allclose(p, one, atol=1e-6)
    inp,*rest = learn.predict(texts[0], with_input=True)
    assert rest[0]==labels[0] and inp.startswith('xxbos')

@pytest.mark.parametrize('backwards', [False,True])
def test_reading_is_prepared_anew_after_training(dls_of, backwards):
    learn = learner(dls_of(backwards=backwards))
    a = learn.predict_proba(['Good.', 'A bad phone.'])
    learn.fit_one_cycle(1, 2e-2)
    b = learn.predict_proba(['Good.', 'A bad phone.'])
    assert not torch.allclose(a, b) and torch.allclose(b,
        learn.get_preds(dl=learn.dls.test_dl(['Good.', 'A bad phone.']))[0], atol=1e-6)
    assert not learn.model.training or learn.model[0].training==learn.model[1].training

def test_without_arranged_weights(dls, df, monkeypatch):
    "Where PyTorch can't arrange weights, the layers read as they are"
    learn = learner(dls)
    texts = df.text[:9].tolist()
    p = learn.predict_proba(texts)
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    other = learner(dls)
    other.model.load_state_dict(learn.model.state_dict())
    assert not any(isinstance(o, PrepackedLSTM) for o in prepacked_encoder(other.encoder).rnns)
    assert (other.predict_proba(texts)-p).abs().max()<1e-6
    with pytest.raises(ValueError, match='no bfloat16'): other.predict_proba(texts, bf16=True)

def test_bf16_labels(dls, df):
    if not has_bf16(): pytest.skip('this CPU has no bfloat16')
    learn = learner(dls, config=dict(emb_sz=40, n_hid=60))
    learn.fit_one_cycle(4, 2e-2)
    p,q = (learn.predict_proba(df.text, bf16=o) for o in (False,True))
    assert 0<(p-q).abs().max()<.05
    sure = (p[:,0]-p[:,1]).abs()>.1
    assert (p.argmax(1)==q.argmax(1))[sure].all()

def reviews(n): # of all lengths, where they are found; else the bundled sentences put together
    from conftest import find_data
    import lzma
    f = find_data('imdb/test.jsonl.xz')
    if f is None:
        t,rng = sentences().text.tolist(),random.Random(0)
        return [' '.join(rng.choices(t, k=rng.choice((1,1,3,10,20,150)))) for _ in range(n)]
    with lzma.open(f, 'rt', encoding='utf8') as o: texts = [json.loads(l)['text'] for l in o]
    texts.sort(key=len)
    return texts[:n//10]+texts[::len(texts)//(n*7//10)][:n*7//10]+texts[-(n-n//10-n*7//10):]

@pytest.mark.parametrize('n', [80, pytest.param(1000, marks=pytest.mark.slow)])
def test_thousand_reviews_in_any_batch(dls, n):
    "Short and very long reviews, at bs 1, 8, 64, 128, shuffled"
    learn = learner(dls, config=dict(emb_sz=30, n_hid=40))
    loud(learn.model)
    texts = reviews(n)
    lens = [len(o) for o in learn._to_ids(texts, learn._pipeline())]
    assert len(texts)==n and min(lens)<20 and max(lens)>1000
    ref = learn.predict_proba(texts, bs=1)
    assert ref.std(0).min()>.003 # hundreds of times what they may differ
    for bs in (8,64,128):
        perm = torch.randperm(n, generator=torch.Generator().manual_seed(bs))
        assert (learn.predict_proba([texts[i] for i in perm], bs=bs)-ref[perm]).abs().max()<1e-5
    dl = learn.dls.test_dl(texts, bs=64)
    assert (learn.get_preds(dl=dl)[0]-ref).abs().max()<1e-5

def write(path, text):
    path.write_text(text, encoding='utf8')
    return path

def test_file_to_file(dls, df, tmp_path):
    import csv, gzip
    learn = learner(dls)
    texts = ['Good, "very" good.', 'line one\nline two', 'ü', 'x '*300, *df.text[:40]]
    p = learn.predict_proba(texts)
    df = pd.DataFrame(dict(id=range(len(texts)), review=texts))
    df.to_csv(tmp_path/'a.csv', index=False)
    df.to_csv(tmp_path/'a.tsv.gz', index=False, sep='\t')
    df.to_json(tmp_path/'a.jsonl', orient='records', lines=True)
    for name in ('a.csv','a.tsv.gz','a.jsonl'):
        for out in ('o.csv','o.jsonl'):
            assert learn.predict_file(tmp_path/name, tmp_path/out, text_col='review', chunk=7)==len(texts)
            got = pd.read_csv(tmp_path/out) if out=='o.csv' else pd.read_json(tmp_path/out, lines=True)
            assert got.text.tolist()==texts and got.label.tolist()==[dls.vocab[1][i] for i in p.argmax(1)]
            assert np.allclose(got[['p_negative','p_positive']], p, atol=1e-5)
    assert learn.predict_file(iter(texts), tmp_path/'o.csv')==len(texts)
    assert learn.predict_file(write(tmp_path/'t.txt', 'a\n\nb\n'),
        tmp_path/'t.csv')==2 and pd.read_csv(tmp_path/'t.csv').text.tolist()==['a','b']
    for bad,says in (('{"text":1}\n', 'line 1'), ('{"text":"a"}\n{"txt":"b"}\n', "line 2"), ('[1]\n', 'not an object'),
        ('{\n', 'not JSON')):
        with pytest.raises(ValueError, match=says):
            learn.predict_file(write(tmp_path/'bad.jsonl', bad), tmp_path/'o.csv', text_col='text')
    assert len(pd.read_csv(tmp_path/'o.csv'))==len(texts) and not list(tmp_path.glob('.*'))

labels_a_file = """
import resource,sys,torch
torch.set_num_threads(1)
from ulmfit_nb.classifier import load_classifier
learn = load_classifier(sys.argv[1])
with learn.no_bar(): n = learn.predict_file(sys.argv[2], sys.argv[3])
print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

def label_in_a_process(*args, **kw):
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', labels_a_file, *map(str, args)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, 'OMP_NUM_THREADS':'1'}, **kw)

@pytest.mark.parametrize('n', [12_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_many_texts_flat_memory_and_killed(dls, df, tmp_path, n):
    """From a file to a file: as much memory as for a tenth of it; killed on the way, nothing half-written is there, and
    the next run is whole"""
    folder = learner(dls, path=tmp_path).export('clas')
    texts = df.text.tolist()
    def lines(n): return write(tmp_path/f'{n}.txt', ''.join(f'{texts[i%len(texts)]} {i}\n' for i in range(n)))
    out = tmp_path/'out.jsonl'
    write(out, 'earlier')
    p = label_in_a_process(folder, lines(n), out)
    part = None
    while part is None or part.stat().st_size==0: # wait until it has begun to write
        assert p.poll() is None, 'it ended before it could be killed'
        part = next(tmp_path.glob('.out.jsonl.*.part'), None)
    p.kill()
    p.wait()
    assert out.read_text()=='earlier'
    used = {}
    for k in (max(5000, n//10),n):
        p = label_in_a_process(folder, lines(k), out)
        got,used[k] = map(int, p.communicate()[0].split())
        assert got==k and not list(tmp_path.glob('.*.part'))
    with open(out, encoding='utf8') as f:
        assert [json.loads(o)['text'] for o in f]==[f'{texts[i%len(texts)]} {i}' for i in range(n)]
    small,large = used.values()
    assert large<small*1.15, used

def test_bad_questions(dls, df):
    learn = learner(dls)
    with pytest.raises(TypeError, match='a list of texts, not a str'): learn.predict_proba('Good.')
    with pytest.raises(TypeError, match='not a DataFrame'): learn.predict_proba(df)
    with pytest.raises(ValueError, match='missing at position 1'): learn.predict_proba(['Good.', None, float('nan')])
    assert learn.predict_proba([]).shape==(0,2)
    assert learn.predict_proba(['']).shape==(1,2) # a text of nothing is its beginning mark

def test_fastai_tools(dls, capsys):
    learn = learner(dls)
    learn.show_results(max_n=2)
    interp = ClassificationInterpretation.from_learner(learn)
    assert interp.confusion_matrix().sum()==len(dls.valid_ds)
    assert len(interp.top_losses(3)[0])==3
    import fastai.text.learner # brings fastai's table of the worst texts
    shown = []
    with pytest.MonkeyPatch.context() as m:
        m.setattr(fastai.text.learner, 'display_df', shown.append)
        interp.plot_top_losses(3)
    table, = shown
    assert len(table)==3 and table.loss.astype(float).tolist()==pytest.approx(interp.top_losses(3)[0].tolist(),
        abs=1e-3)

def test_one_setting(dls, dls_of):
    with pytest.raises(ValueError, match='made with seq_len=72, but seq_len=80'): learner(dls, seq_len=80)
    assert learner(dls_of(seq_len=24)).model[0].bptt==24
    with pytest.raises(ValueError, match='forwards'): learner(dls, backwards=True)
    with pytest.raises(ValueError, match='backwards'): learner(dls_of(backwards=True), backwards=False)
    assert learner(dls_of(backwards=True)).describe()['backwards'] is True

def test_one_class(df, dls_of):
    with pytest.raises(ValueError, match='nothing to tell apart.*negative'):
        learner(dls_of(data=df[df.label=='negative']))

def test_no_pretrained_model(dls, monkeypatch, capsys):
    monkeypatch.setattr(language_model, 'default_pretrained', 'no-such-model')
    monkeypatch.setattr('ulmfit_nb.learner._said', set())
    learn = learner(dls, pretrained=True)
    learner(dls, pretrained=True)
    assert capsys.readouterr().out.count('no-such-model')==1
    assert all(p.requires_grad for p in learn.model.parameters())
    with pytest.raises(FileNotFoundError, match='looked for'): learner(dls, pretrained='nowhere')

def test_pretrained_and_encoder(df, dls, dls_of, tmp_path):
    dls_lm = TextDataLoaders.from_df(df, path=tmp_path, text_col='text', is_lm=True, valid_pct=.1, bs=8, seq_len=16,
        text_vocab=dls.vocab[0])
    lm = language_model_learner(dls_lm, AWD_LSTM, config=tiny, pretrained=False)
    folder = lm.export('lm')
    # sizes of the folder, words matched
    learn = learner(dls_of(text_vocab=dls.vocab[0][:9]+dls.vocab[0][9:][::-1]), config=None, pretrained=folder)
    i,j = (o.index('good') for o in (learn.vocab,lm.vocab))
    assert i!=j and torch.equal(learn.encoder.encoder.weight[i], lm.encoder.encoder.weight[j])
    assert learn.encoder.n_hid==16
    trained = [p.requires_grad for p in learn.encoder.parameters()]
    assert not any(trained) and all(p.requires_grad for p in learn.model[1].parameters())
    lm.save_encoder('enc')
    learn = learner(dls, path=tmp_path).load_encoder('enc')
    for p,q in zip(learn.encoder.parameters(), lm.encoder.parameters()): assert torch.equal(p, q)
    with pytest.raises(ValueError, match="'n_hid': 16"):
        learner(dls, path=tmp_path, config=dict(emb_sz=12, n_hid=20)).load_encoder('enc')

cases = dict(category=('label', {}, {}), numbers_as_labels=('number', {}, {}), many=('tags', dict(label_delim=';'), {}),
    number=('stars', dict(y_block=RegressionBlock()), dict(y_range=(0,5), lin_ftrs=[20,10], max_len=None)),
    backwards=('label', dict(backwards=True), {}))

elsewhere = """
import json,sys
from ulmfit_nb.classifier import load_classifier
learn = load_classifier(sys.argv[1])
learn.remove_cbs([c for c in learn.cbs if c.name=='progress'])
texts = json.loads(sys.argv[2])
print(json.dumps([learn.predict_proba(texts).tolist(), str(learn.predict(texts[0])[0])]))
"""

@pytest.mark.parametrize('name', cases)
def test_targets_saved_and_loaded_elsewhere(name, dls_of, tmp_path):
    col,data_kw,kw = cases[name]
    learn = learner(dls_of(col, **data_kw), path=tmp_path, **kw)
    learn.fit_one_cycle(1, 1e-3)
    texts = ['Good.', 'A bad phone, and the food was worse.', 'great '*200]
    p = learn.predict_proba(texts)
    label = learn.predict(texts[0])[0]
    folder = learn.export(name)
    assert not [o for o in folder.rglob('*') if o.suffix in ('.pkl','.pth','.pickle')]
    args = [sys.executable, '-W', 'ignore', '-c', elsewhere, str(folder), json.dumps(texts)]
    out = subprocess.run(args, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS':'1'})
    assert out.returncode==0, out.stderr
    probs,label2 = json.loads(out.stdout.splitlines()[-1])
    assert (torch.tensor(probs)-p).abs().max()<1e-6 and label2==str(label)

def test_saved_without_labels_or_of_another_kind(dls, df, tmp_path):
    learn = learner(dls, path=tmp_path)
    folder = learn.export('clas')
    meta = json.loads((folder/'model.json').read_text())
    write_meta(folder/'model.json', {**meta, 'target':None})
    with pytest.raises(ValueError, match='without its labels'): load_classifier(folder)
    of_head = 'drop_mult','n_out','lin_ftrs','ps','max_len','y_range','pool','target'
    meta = {k:v for k,v in meta.items() if k not in of_head}
    write_meta(folder/'model.json', {**meta, 'kind':'language_model'})
    with pytest.raises(ValueError, match='holds a language_model'): load_classifier(folder)

def test_module_is_ours():
    import ulmfit_nb.classifier as m
    for n in ('SentenceEncoder','masked_concat_pool','PoolingLinearClassifier','get_text_classifier',
        'text_classifier_learner','TextClassifierLearner'):
        assert getattr(m, n).__module__=='ulmfit_nb.classifier'
    assert issubclass(TextClassifierLearner, TextLearner)

def one_hot(df):
    "The table with a column of 0 and 1 for each of three labels"
    rng = np.random.default_rng(0)
    return df.assign(**{o:rng.integers(0, 2, len(df)) for o in ('toxic','threat','insult')})

@pytest.mark.parametrize('block', [None, True], ids=['asked','found'])
def test_one_hot_labels(df, tmp_path, block):
    "Trained, counted, exported, loaded, in an ensemble: several labels, as with names in one column"
    from fastai.data.block import MultiCategoryBlock
    from ulmfit_nb.ensemble import Ensemble
    tags,d = ['toxic','threat','insult'],one_hot(df)
    kw = dict(y_block=MultiCategoryBlock(encoded=True, vocab=tags)) if block is None else {}
    dls = TextDataLoaders.from_df(d, path=tmp_path, text_col='text', label_col=tags, bs=8, seed=1, **kw)
    learn = learner(dls, path=tmp_path)
    learn.fit(1, 1e-3)
    assert label_counts(dls).tolist()==d.loc[dls.train_ds.items.index, tags].sum().tolist()
    assert classifier_loss(dls, 'balanced').func.pos_weight.shape==(3,)
    learn.export('m')
    new = load_learner(tmp_path/'m')
    assert new.predict('good food')[0]==learn.predict('good food')[0]
    assert torch.allclose(new.predict_proba(['good food']), learn.predict_proba(['good food']), atol=1e-6)
    x,ys = next(iter(new.dls.test_dl(d.head(4), with_labels=True)))
    order = new.dls.test_dl(d.head(4)).get_idxs()
    assert ys.tolist()==d.loc[[d.index[i] for i in order], tags].values.tolist()
    ens = Ensemble([learn, new])
    assert ens.many and ens.predict(['good food'])==[list(learn.predict('good food')[0])]

def test_new_texts_for_a_loaded_learner(df, tmp_path):
    "`test_dl` reads the columns that were trained on, labels too; where there is no label it says so"
    d = df.rename(columns=dict(text='review', label='verdict'))
    dls = TextDataLoaders.from_df(d, path=tmp_path, text_col='review', label_col='verdict', bs=8, seed=1)
    learn = learner(dls, path=tmp_path, metrics=accuracy)
    learn.fit(1, 1e-3)
    learn.export('m')
    new = load_learner(tmp_path/'m')
    new = load_learner(new.export('again')) # saved again from what was loaded
    want = learn.get_preds(dl=dls.test_dl(d.head(9)))[0]
    for items in (d.head(9), d.head(9).review, d.head(9).review.tolist(), d.head(9)[['review']]):
        assert torch.allclose(new.get_preds(dl=new.dls.test_dl(items))[0], want, atol=1e-6)
    probs,ys = new.get_preds(dl=new.dls.test_dl(d.head(9), with_labels=True))
    assert [new.dls.vocab[1][i] for i in ys]==d.head(9).verdict.tolist()
    assert new.validate(dl=new.dls.test_dl(d, with_labels=True))[0]==pytest.approx(learn.validate(dl=dls.test_dl(d,
        with_labels=True))[0], abs=1e-5)
    for items in (d.review.tolist()[:5], ['', 'Good.']):
        with pytest.raises(ValueError, match='has no label: with_labels=True is for rows'):
            list(new.dls.test_dl(items, with_labels=True))
    with pytest.raises(ValueError, match="no label column 'verdict'"):
        list(new.dls.test_dl(d[['review']], with_labels=True))
    with pytest.raises(ValueError, match="no column 'review'"): list(new.dls.test_dl(df.head(3)))
    with pytest.raises(KeyError, match="'neutral'"):
        list(new.dls.test_dl(d.head(3).assign(verdict='neutral'), with_labels=True))

def test_a_row_is_one_text(df, tmp_path):
    "A row of a table gets the answer of its text; a column of texts gets one each"
    dls = TextDataLoaders.from_df(df.assign(id=range(len(df))), path=tmp_path, text_col='text', label_col='label', bs=8,
        seed=1)
    learn = learner(dls, path=tmp_path)
    learn.export('m')
    want = learn.predict(df.text.iloc[0])
    for l in (learn, load_learner(tmp_path/'m')):
        for row in (df.iloc[0], df.assign(id=range(len(df))).iloc[0], df.assign(label=None).iloc[0],
            df[['text']].iloc[0], df.iloc[0].to_dict()):
            got = l.predict(row)
            assert got[0]==want[0] and torch.allclose(got[2], want[2], atol=1e-6)
        assert len(l.predict(df.text[:3])[0])==3
        with pytest.raises(TypeError, match='not a row'): l.predict_proba(df.iloc[0])
        with pytest.raises(TypeError, match='not a table'): l.predict(df)
        with pytest.raises(TypeError, match='at position 1 is a number and no text'): l.predict(pd.Series(['a', 5]))
    many = TextDataLoaders.from_df(df.assign(title='A title'), path=tmp_path, text_col=['title','text'],
        label_col='label', bs=8, seed=1)
    learn = learner(many, path=tmp_path)
    learn.export('n')
    row = df.assign(title='A title').iloc[0]
    assert torch.allclose(load_learner(tmp_path/'n').predict(row)[2], learn.predict('xxfld 1 A title xxfld 2 '
        f'{row.text}')[2], atol=1e-6)

@pytest.mark.parametrize('name,label', [('interval', lambda n: pd.cut(pd.Series([1,4]*n)[:n], [0,2,5])),
    ('date', lambda n: pd.to_datetime(pd.Series(['2020-01-01','2021-01-01']*n)[:n]))])
def test_labels_that_no_file_can_hold(df, tmp_path, name, label):
    d = df.assign(label=label(len(df)).to_numpy())
    with pytest.raises(ValueError,
        match=r"is of the type \w+, and labels are str, int, float or bool: .*astype\(str\)"):
        learner(TextDataLoaders.from_df(d, path=tmp_path, text_col='text', label_col='label', bs=8, seed=1))
    learn = learner(TextDataLoaders.from_df(d.assign(label=d.label.astype(str)), path=tmp_path, text_col='text',
        label_col='label', bs=8, seed=1), path=tmp_path)
    assert load_learner(learn.export('m')).predict('good')[0]==learn.predict('good')[0]

def test_labels_that_cannot_be_learned_are_told_before_training(df):
    from fastai.data.all import ColReader, DataBlock, ColSplitter, CategoryBlock
    from ulmfit_nb.batching import TextBlock
    d = df.reset_index(drop=True).assign(is_valid=[i>=len(df)-5 for i in range(len(df))])
    d.loc[len(d)-2, 'label'] = 'neutral'
    with pytest.raises(ValueError, match=f"label of row {len(d)-2} is missing, or no training text has it .*neutral.* "
        "in the validation part"):
        learner(TextDataLoaders.from_df(d, text_col='text', label_col='label', valid_col='is_valid', bs=8))
    def block(d, y):
        return DataBlock((TextBlock.from_df('text'), y), get_x=ColReader('text'), get_y=ColReader('label'),
            splitter=ColSplitter()).dataloaders(d, bs=8)
    d.loc[len(d)-2, 'label'] = 'positive'
    d.loc[4, 'label'] = None
    with pytest.raises(ValueError, match="label of row 4 is missing.* in the training part"):
        learner(block(d, CategoryBlock))
    with pytest.raises(ValueError, match="label of row 7, in the training part, is missing"):
        learner(block(d.assign(label=[float('nan') if i==7 else i/9 for i in range(len(d))]), RegressionBlock()))

def test_batches_of_one(df):
    with pytest.raises(ValueError, match='bs is 1, but a classifier needs batches of two'):
        learner(TextDataLoaders.from_df(df, text_col='text', label_col='label', bs=1))
    d = pd.DataFrame(dict(text=['good','bad'], label=['x','x'], is_valid=[False,True]))
    with pytest.raises(ValueError, match='there is one training text'):
        learner(TextDataLoaders.from_df(d, text_col='text', label_col='label', valid_col='is_valid'))

def test_few_texts_are_trained_on(df):
    learn = learner(TextDataLoaders.from_df(df[:20], text_col='text', label_col='label', seed=1))
    before = [o.detach().clone() for o in learn.model.parameters()]
    learn.fit_gradual()
    assert not any(torch.equal(a, b) for a,b in zip(before, learn.model.parameters()) if a.std()>0)
    assert learn.recorder.values[-1][0]==learn.recorder.values[-1][0] # not nan

def test_summary_counts_what_is_there(dls, dls_of):
    "As many parameters as the model has; what is trained follows `freeze_to`; a shared embedding counts once"
    from ulmfit_nb.language_model import LMLearner
    lm = language_model_learner(TextDataLoaders.from_df(pd.DataFrame({'text':['a good film']*60}), text_col='text',
        is_lm=True, bs=4), AWD_LSTM, config=tiny, pretrained=False)
    for learn in (learner(dls), lm):
        for n in (-1,-2,-3,0):
            learn.freeze_to(n)
            got = [int(o.replace(',','')) for o in re.findall(r'(?:Total|trainable) params: ([\d,]+)',
                str(learn.summary()))]
            ps = list(learn.model.parameters())
            total,trained = sum(o.numel() for o in ps),sum(o.numel() for o in ps if o.requires_grad)
            assert got==[total, trained, total-trained]

# --- rules and tokenizers of one's own ---

def no_stars(t): return t.replace('*', '')

class Letters:
    "Every second letter is a token of its own"
    def __call__(self, items):
        return ([o for w in t.split(' ') for o in ([w] if w.startswith('xx') else w[::2])] for t in items)

def test_own_rule_and_tokenizer_in_every_learner(df, tmp_path):
    "Trained from the default model, saved by name, asked for when loaded, and then as before"
    from functools import partial
    from ulmfit_nb.ensemble import Ensemble
    rules = [no_stars, *text_proc_rules[:-1], partial(lowercase, add_eos=True)]
    for kw,own in ((dict(rules=rules), dict(rules=rules)),
        (dict(tok_tfm=Letters(), rules=rules), dict(tok=Letters, rules=rules)),
        (dict(tok_tfm=Letters), dict(tok=Letters()))):
        lm_dls = TextDataLoaders.from_df(df, path=tmp_path, text_col='text', is_lm=True, bs=4, seed=1, **kw)
        lm = language_model_learner(lm_dls, AWD_LSTM) # pretrained: the default model
        lm.save_encoder('enc')
        lm.save('lm')
        lm.load('lm')
        lm_folder = lm.export('lm')
        dls = TextDataLoaders.from_df(df, path=tmp_path, text_col='text', label_col='label', bs=8, seed=1,
            text_vocab=lm_dls.vocab, **kw)
        learn = text_classifier_learner(dls, AWD_LSTM)
        learn.path = tmp_path
        learn.load_encoder('enc')
        folder = learn.export('m')
        texts = ['A *good* film.', 'BAD!!!! food']
        for f,read in ((folder,load_learner), (folder,load_classifier), (lm_folder,load_learner),
            (lm_folder,language_model.load_language_model)):
            with pytest.raises(ValueError, match='which is not from ulmfit_nb and was not saved: give it when you '
                'load, (rules=\\[no_stars, lowercase\\(add_eos=True\\)\\]|tok=Letters)'):
                read(f)
            assert read(f, **own).vocab==lm.vocab
        new = load_learner(folder, **own)
        assert torch.allclose(new.predict_proba(texts), learn.predict_proba(texts), atol=1e-6)
        assert new.dls.train_ds.tokenizer(texts[0])==dls.train_ds.tokenizer(texts[0])
        assert Ensemble.load(Ensemble([learn]).save(tmp_path/'ens'),
            **own).predict(texts)==Ensemble([learn]).predict(texts)
        again = load_learner(new.export('again'), **own)
        assert torch.allclose(again.predict_proba(texts), learn.predict_proba(texts), atol=1e-6)

def test_a_rule_of_the_same_name_as_ours_is_not_taken_for_it(df, tmp_path):
    def lowercase(t): return t.upper()
    dls = TextDataLoaders.from_df(df, path=tmp_path, text_col='text', label_col='label', bs=8, rules=[lowercase])
    folder = learner(dls, path=tmp_path).export('m')
    with pytest.raises(ValueError, match="the rule 'lowercase', which is not from ulmfit_nb"): load_learner(folder)
    assert load_learner(folder, rules=[lowercase]).dls.train_ds.tokenizer('good')[0]=='GOOD'
