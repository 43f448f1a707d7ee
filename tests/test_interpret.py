"Attributions against brute force, and tables against scikit-learn"
import numpy as np, pytest, torch
from fastai.basics import set_seed
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from ulmfit_nb.awd_lstm import AWD_LSTM
from ulmfit_nb.batching import TextDataLoaders
from ulmfit_nb.classifier import text_classifier_learner
from ulmfit_nb.ensemble import Ensemble
from ulmfit_nb.interpret import *
from ulmfit_nb.texts import sentences

tiny = dict(emb_sz=12, n_hid=16)

@pytest.fixture(scope='module')
def df():
    res = sentences().sample(160, random_state=0).reset_index(drop=True)
    return res.assign(text=np.where(res.label=='positive', 'Good. ', 'Bad. ')+res.text, tags=res.label+';'+res.source,
        stars=(res.label=='positive')*3.+1, is_valid=res.index%4==0)

@pytest.fixture(scope='module')
def make(df, tmp_path_factory):
    path = tmp_path_factory.mktemp('int')
    def f(backwards=False, label_col='label', max_len=72*20, seq_len=72, epochs=5, **kw):
        set_seed(0)
        dls = TextDataLoaders.from_df(df, path=path, text_col='text', label_col=label_col, valid_col='is_valid', bs=16,
            backwards=backwards, seq_len=seq_len, **kw)
        learn = text_classifier_learner(dls, AWD_LSTM, config=tiny, pretrained=False, max_len=max_len, drop_mult=.1)
        learn.logger = lambda *_: None
        with learn.no_bar(): learn.fit_one_cycle(epochs, 2e-2)
        learn.remove_cbs([o for o in learn.cbs if o.name=='progress'])
        return learn
    return f

@pytest.fixture(scope='module')
def learn(make): return make()

def brute(learn, text, idx, n=2000):
    "The integral as a plain sum of many steps, through the classifier as it is, with the embedding layer replaced"
    ds = learn.dls.train_ds
    toks = ds.tokenizer(text)
    ids = torch.as_tensor(ds.numericalize(toks)).as_subclass(torch.Tensor)
    if learn.dls.backwards: ids = ids.flip(0)
    emb = learn.encoder.encoder.weight.detach()[ids]
    base = emb.clone()
    base[[i for i,o in enumerate(ids) if learn.vocab[o]!='xxbos']] = 0
    total = torch.zeros(len(ids))
    enc,head = learn.model[0],learn.model[1]
    learn.model.eval()
    for a in (torch.arange(n)+.5).split(500):
        e = (base+(a/n)[:,None,None]*(emb-base)).requires_grad_()
        enc.module.reset()
        out = enc.module(e, from_embeds=True)
        s = head((out, torch.zeros(out.shape[:2], dtype=torch.bool)))[0]
        p = s.softmax(1)[:,idx]
        g, = torch.autograd.grad(torch.logit(p.double()).sum(), e)
        total += ((emb-base)*g.sum(0)/n).sum(-1)
    return total.flip(0) if learn.dls.backwards else total

@pytest.mark.parametrize('backwards', [False,True])
def test_shares_as_by_brute_force(make, backwards):
    learn = make(backwards)
    text = 'The Bad food was good, and the waiter a BAD man!!!'
    a = attribute(learn, text, 'positive', n_steps=100)
    want = brute(learn, text, 1)
    assert torch.allclose(a.shares, want, atol=.02*float(want.abs().max())+1e-3)
    assert a.error<.02*abs(a.score-a.base)+1e-3

def test_score_is_the_models(learn):
    text = 'A good film, and a bad one.'
    p = learn.predict_proba([text])[0]
    for i,l in enumerate(learn.dls.vocab[1]):
        a = attribute(learn, text, l)
        assert abs(a.score-float(torch.logit(p[i].double())))<1e-3 and abs(a.probability-float(p[i]))<1e-6
    assert attribute(learn, text).label==learn.dls.vocab[1][int(p.argmax())]

def test_learned_words_come_out(learn, df):
    "The model can only have learned the planted words, so they have the largest shares"
    tops = [attribute(learn, t).top(1)[0][0].lower() for t in df.text[df.is_valid][:20]]
    assert sum(o in ('good','bad') for o in tops)>=14

def test_both_directions_are_averaged(make):
    pair = make(),make(True)
    text = 'Good. The food was cold.'
    both,one,two = (attribute(o, text, 'positive') for o in (Ensemble(pair),*pair))
    assert torch.allclose(both.shares, (one.shares+two.shares)/2, atol=1e-5)
    assert abs(both.score-(one.score+two.score)/2)<1e-5 and both.tokens==one.tokens

def test_longer_than_pooled(make):
    "A text of which only the last chunks are pooled: the score is the classifier's own, and the shares add up"
    learn = make(seq_len=8, max_len=16, epochs=1)
    text = 'good film '*30
    a = attribute(learn, text, n_steps=64)
    p = float(torch.logit(learn.predict_proba([text])[0].max().double()))
    assert len(a.tokens)>60 and abs(a.score-p)<1e-3
    assert a.error<.05*abs(a.score-a.base)+1e-3

def test_several_labels_and_a_number(make, df):
    from fastai.data.block import RegressionBlock
    many = make(label_col='tags', label_delim=';', epochs=1)
    a = attribute(many, 'Good food.', 'yelp')
    p = many.predict_proba(['Good food.'])[0][list(many.dls.vocab[1]).index('yelp')]
    assert abs(a.score-float(torch.logit(p)))<1e-3 and a.error<.05
    assert set(text_report(many, df.text[:20], [o.split(';') for o in df.tags[:20]]).index)>={'yelp','positive'}
    assert len(top_losses(many, df.text[:9], [o.split(';') for o in df.tags[:9]], 3))==3
    num = make(label_col='stars', y_block=RegressionBlock(), epochs=1)
    a = attribute(num, 'Good food.')
    assert a.label is None and abs(a.score-float(num.predict_proba(['Good food.'])[0,0]))<1e-4 and a.error<.05
    for f in (confusion_table, top_losses, text_report):
        with pytest.raises(ValueError, match='the target is a number'): f(num, ['a'], [1.])

def test_tables_as_sklearn(learn, df):
    v = df[df.is_valid]
    pred = Ensemble([learn]).predict(v.text)
    assert (confusion_table(learn, v.text, v.label).to_numpy()==confusion_matrix(v.label, pred)).all()
    r = text_report(learn, v.text, v.label).loc[['negative','positive']]
    np.testing.assert_allclose(r.to_numpy(), np.array(precision_recall_fscore_support(v.label, pred)).T)
    t = top_losses(learn, v.text, v.label, k=40)
    assert t.loss.is_monotonic_decreasing and sorted(t.index)==list(range(len(v))) and t.text.tolist()==[v.text.iloc[i]
        for i in t.index]

def test_bad_questions(learn):
    with pytest.raises(ValueError, match="'blue' is unknown"): attribute(learn, 'a', 'blue')
    with pytest.raises(TypeError, match='one text'): attribute(learn, ['a'])
    with pytest.raises(TypeError, match='not a dict'): as_ensemble({})
    with pytest.raises(ValueError, match='3 texts, but 1 labels'): confusion_table(learn, ['a']*3, ['positive'])
    a = attribute(learn, '')
    assert a.words()==[] and abs(a.score-a.base)<1e-6 and 'div' in a._repr_html_()

def test_html_is_safe_and_says_more_than_colours():
    h = Attribution(['xxbos','<b>','"x"','xxmaj','fine'], [0.,1.,-1.,.1,.2], '<i>', 1., 0., .9)._repr_html_()
    # the one bold tag is ours
    assert h.count('<b>')==1 and '&lt;b&gt;' in h and '&lt;i&gt;' in h and '<i>' not in h and '&quot;x&quot;' in h
    assert 'solid' in h and 'dashed' in h and '>Fine<' in h and 'title="+0.300"' in h

def test_deletion(learn, df):
    res = deletion_test(learn, df.text[df.is_valid][:30])
    assert (res.p-res.p_top).mean()>(res.p-res.p_random).mean()
    assert res.p.tolist()==pytest.approx(learn.predict_proba(df.text[df.is_valid][:30]).max(1).values.tolist(),
        abs=1e-4)
    assert len(deletion_test(learn, ['', 'Good.']))==1 # nothing can be deleted from nothing

def test_attribution_has_a_state_of_its_own(learn, df):
    "So that threads don't read in each other's state"
    own = learn.encoder.hidden
    attribute(learn, df.text[0], n_steps=4)
    assert learn.encoder.hidden is own
