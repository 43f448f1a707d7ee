"A pooling of one's own: one class, the same answers by every path, saved by its name, and asked for when loaded"
import json, subprocess, sys
import pandas as pd, pytest, torch
from torch import nn
from fastai.basics import Learner, accuracy, set_seed
from ulmfit_nb.awd_lstm import *
from ulmfit_nb.classifier import *
from ulmfit_nb.ensemble import *
from ulmfit_nb.estimator import *
from ulmfit_nb.files import write_meta
from ulmfit_nb.interpret import *
from ulmfit_nb.numericalization import *
from ulmfit_nb.batching import *
from ulmfit_nb.texts import *

class FirstLowLast(ConcatPool):
    "[first | least | mean of the last k]: as wide as the default, so that mixing them up is no error of shapes"
    def __init__(self, k=3): self.k,self.name = k,f'first, least, last {k}'

    def start(self, out):
        none = out.new_zeros(len(out), out.shape[-1])
        n = torch.zeros(len(out), 1, dtype=torch.long, device=out.device)
        return none,torch.full_like(none, torch.inf),out.new_zeros(len(out), self.k, out.shape[-1]),n

    def update(self, state, out, mask):
        first,least,last,n = state
        toks,rows = ~mask,torch.arange(len(out), device=out.device)
        begins = (n==0) & toks.any(1, keepdim=True)
        first = torch.where(begins, out[rows, toks.int().argmax(1)], first)
        least = torch.minimum(least, out.masked_fill(mask[...,None], torch.inf).amin(1))
        # the newest tokens after the old ones: those that count come last, in their order
        counts = torch.cat([toks.new_ones(len(out), self.k), toks], 1).int().argsort(dim=1, stable=True)[:,-self.k:]
        last = torch.cat([last, out], 1)[rows[:,None], counts]
        return first,least,last,n+toks.sum(1, keepdim=True)

    def result(self, state):
        first,least,last,n = state
        return torch.cat([first, least, last.sum(1)/n.clamp(max=self.k)], 1)

@pytest.fixture(scope='module')
def df(): return split_texts(sentences()[::6], valid=.3, seed=1)

def learner(df, **kwargs):
    set_seed(5)
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='label', valid_col='is_valid', bs=32, device='cpu')
    res = text_classifier_learner(dls, AWD_LSTM, config=dict(emb_sz=16, n_hid=24, n_layers=2), max_len=288,
        pretrained=False, metrics=accuracy, **kwargs)
    with res.no_bar(), res.no_logging(): res.fit_gradual(epochs=(0,0,0,2), lrs=(1e-2,)*4, seed=2)
    for o,by in (res.encoder.encoder,8), *((r,1.7) for r in res.encoder.rnns), (res.model[1].layers[-1][-1],5):
        for w in o.parameters(): w.data *= by # as far apart as after a longer training, so that differences show
    return res

@pytest.fixture(scope='module')
def learn(df): return learner(df, pool=FirstLowLast())

@pytest.fixture(scope='module')
def texts(df):
    "From one word to more than is pooled"
    some = df.text[df.is_valid].tolist()
    return ['Good.', *some[:20], *(' '.join(some[:n]) for n in (2,3,5,8,13,30)), ' '.join(some[:60])]

def paths(learn, texts, tmp_path):
    "What each way of asking says: the probability of each class for each text"
    test_dl,labels = learn.dls.test_dl(texts),list(learn.dls.vocab[1])
    with learn.no_bar():
        res = dict(get_preds=learn.get_preds(dl=test_dl)[0], predict_proba=learn.predict_proba(texts),
            singly=learn.predict_proba(texts, bs=1), in_64s=learn.predict_proba(texts, bs=64),
            predict=torch.stack([learn.predict(t)[2] for t in texts]), predict_list=learn.predict(texts)[2],
            fastai=torch.stack([Learner.predict(learn, t)[2] for t in texts]),
            ensemble=Ensemble([learn, learn]).predict_proba(texts))
        learn.predict_file(texts, tmp_path/'out.csv')
    res['file'] = torch.tensor(pd.read_csv(tmp_path/'out.csv')[[f'p_{o}' for o in labels]].to_numpy()).float()
    p = torch.tensor([attribute(learn, t, labels[1], n_steps=1).score for t in texts]).sigmoid()
    return {**res, 'attribution':torch.stack([1-p,p], 1)}

def test_every_path_is_the_same(learn, texts, tmp_path):
    res = paths(learn, texts, tmp_path)
    for name,p in res.items():
        assert p.shape==(len(texts),2) and (p-res['get_preds']).abs().max()<=1e-6, name

def test_it_tells_texts_apart(learn, texts): assert learn.predict_proba(texts).std(0).min()>.02

def test_validate_is_the_same(learn, df):
    held = df[df.is_valid]
    p = learn.predict_proba(held.text)
    y = torch.tensor([learn.dls.vocab[1].o2i[o] for o in held.label])
    with learn.no_bar(): loss,acc = learn.validate()
    assert abs(loss+float(p.log()[range(len(y)),y].mean()))<1e-5
    assert abs(acc-float((p.argmax(1)==y).float().mean()))<1e-6

def test_a_path_that_keeps_the_old_pooling_is_seen(learn, texts, tmp_path, monkeypatch):
    "As if prediction step by step, or the head, still pooled in the default way: both give other answers"
    right = learn.predict_proba(texts)
    with monkeypatch.context() as m:
        whole = SentenceEncoder.pooled
        m.setattr(SentenceEncoder, 'pooled', lambda self, inp, step=16, pool=None: whole(self, inp, step))
        assert (learn.predict_proba(texts)-right).abs().max()>1e-3
        with pytest.raises(AssertionError, match='^predict_proba'): test_every_path_is_the_same(learn, texts, tmp_path)
    with monkeypatch.context() as m:
        m.setattr(FirstLowLast, '__call__', lambda self, out, mask: ConcatPool()(out, mask))
        with pytest.raises(AssertionError, match='^predict_proba'): test_every_path_is_the_same(learn, texts, tmp_path)

@pytest.mark.parametrize('given', ['registered','pools','object'])
def test_saved_by_name(learn, texts, tmp_path, monkeypatch, given):
    folder = learn.export(tmp_path/'model')
    meta = json.loads((folder/'model.json').read_text())
    assert meta['pool']=='first, least, last 3' and 'FirstLowLast' not in json.dumps(meta)
    if given=='registered': monkeypatch.setitem(poolings, meta['pool'], FirstLowLast)
    pools = dict(registered=None, pools=[FirstLowLast], object=FirstLowLast(3))[given]
    again = load_learner(folder, pools=pools)
    assert type(again.model[1].pool) is FirstLowLast and again.model[1].pool.k==3
    want = learn.predict_proba(texts)
    for name,p in paths(again, texts, tmp_path).items(): assert (p-want).abs().max()<=1e-6, name
    ens = Ensemble([learn, again])
    ens.save(tmp_path/'both')
    assert (Ensemble.load(tmp_path/'both', pools=pools).predict_proba(texts)-want).abs().max()<=1e-6

def test_loaded_without_it(learn, tmp_path):
    "In a process of its own: the error says what to do; a name is looked up, and nothing is imported or run"
    learn.export(tmp_path/'model')
    other = learn.export(tmp_path/'other')
    meta = json.loads((other/'model.json').read_text())
    write_meta(other/'model.json', {**meta, 'pool':'a_module.Pool'})
    (tmp_path/'a_module.py').write_text("open('was_run', 'w').close()\nclass Pool: pass")
    code = """
import sys
from ulmfit_nb.classifier import load_learner
for o in 'model','other':
    try: load_learner(o)
    except ValueError as e: print(e)
print('a_module' in sys.modules)
"""
    r = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    lines = r.stdout.splitlines()
    assert len(lines)==3, r.stderr
    assert lines[0].startswith("there is no pooling 'first, least, last 3'; there are concat.")
    assert "poolings['first, least, last 3'] = its class, before you load" in lines[0]
    assert lines[1].startswith("there is no pooling 'a_module.Pool'") and lines[2]=='False'
    assert not (tmp_path/'was_run').exists()

def test_another_setting_is_another_pooling(learn, tmp_path):
    with pytest.raises(ValueError, match="no pooling 'first, least, last 3'"):
        load_learner(learn.export(tmp_path/'model'), pools=[FirstLowLast(4)])

def test_files_of_the_first_version(df, tmp_path):
    "They name no pooling, and have the only one that there was"
    learn = learner(df)
    folder = learn.export(tmp_path/'model')
    meta = json.loads((folder/'model.json').read_text())
    assert meta.pop('pool')=='concat'
    write_meta(folder/'model.json', meta)
    for pools in None,[FirstLowLast]:
        again = load_learner(folder, pools=pools)
        assert type(again.model[1].pool) is ConcatPool
        assert torch.equal(again.predict_proba(['Good.']), learn.predict_proba(['Good.']))

@pytest.mark.parametrize('pool,says', [
    (type('Same', (ConcatPool,), {}), "Same needs a name of its own, such as name = 'same'"),
    (type('Same', (ConcatPool,), dict(name='concat')), 'Same needs a name of its own'),
    (type('Heir', (FirstLowLast,), dict(name='heir', __init__=lambda self: setattr(self, 'k', 2))),
        "Heir has k=2, but is called 'heir' with any other"),
    ('mine', "there is no pooling 'mine'; there are concat")])
def test_names_that_do_not_say_it(pool, says):
    with pytest.raises(ValueError, match=says): pooling_of(pool)

def test_learned_numbers_are_saved_with_the_weights(df, tmp_path):
    "A pooling that is a module, too, is part of the model"
    class Scaled(ConcatPool, nn.Module):
        name = 'scaled'
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
        def result(self, state): return super().result(state)*self.scale
        __call__ = ConcatPool.__call__
    learn = learner(df, pool=Scaled)
    assert learn.model[1].pool.scale.item()!=1
    again = load_learner(learn.export(tmp_path/'model'), pools=[Scaled])
    assert torch.equal(again.predict_proba(['Good.']), learn.predict_proba(['Good.']))

@pytest.mark.parametrize('n', [1,5,72])
def test_default_is_that_of_the_first_version_to_the_last_bit(n):
    "Its summaries, and its gradients in the order in which they are added"
    torch.manual_seed(n)
    out = torch.randn(7, n, 9, requires_grad=True)
    mask = torch.arange(n)>=torch.randint(1, n+1, (7,1))
    toks,pad = ~mask,mask[...,None]
    at = (toks*torch.arange(1, n+1)).argmax(1)
    mean = out.masked_fill(pad, 0).sum(1)/toks.sum(1, keepdim=True)
    was = torch.cat([out[torch.arange(7), at], out.masked_fill(pad, -torch.inf).amax(1), mean], 1)
    now,w = ConcatPool()(out, mask),torch.randn(7, 27)
    assert torch.equal(was, now)
    assert torch.equal(*(torch.autograd.grad((o*w).sum(), out)[0] for o in (was,now)))

def test_counts_in_16_bits():
    "A sum of ones in bfloat16 ends at 256"
    out,mask = torch.ones(1, 600, 2, dtype=torch.bfloat16),torch.zeros(1, 600, dtype=torch.bool)
    pool = ConcatPool()
    state = pool.start(out)
    for o,m in zip(out.split(1, 1), mask.split(1, 1)): state = pool.update(state, o, m)
    assert state[-1].item()==600

def test_estimator(df, texts, tmp_path, monkeypatch):
    monkeypatch.setitem(poolings, 'first, least, last 3', FirstLowLast)
    clf = ULMFiTClassifier(pool='first, least, last 3', size='tiny', pretrained=False, lm_epochs=0, epochs=(0,0,0,1),
        device='cpu', random_state=1)
    clf.fit(df.text.tolist()[:150], df.label.tolist()[:150])
    assert type(clf.ensemble_.learners[0].model[1].pool) is FirstLowLast
    want = clf.predict_proba(texts)
    assert abs(ULMFiTClassifier.load(clf.save(tmp_path/'clf')).predict_proba(texts)-want).max()<=1e-6
    monkeypatch.delitem(poolings, 'first, least, last 3')
    with pytest.raises(ValueError, match="no pooling 'first, least, last 3'"): ULMFiTClassifier.load(tmp_path/'clf')
    with pytest.raises(ValueError, match='give its name, once it is in `poolings`'):
        ULMFiTClassifier(pool=FirstLowLast).fit(['a','b'], [0,1])
