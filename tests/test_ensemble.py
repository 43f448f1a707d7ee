"Both directions: averaged, calibrated, signed on disk, loaded by another process"
import json, os, subprocess, sys
from types import SimpleNamespace
import numpy as np, pytest, torch
from fastai.basics import set_seed
from scipy.special import log_softmax
from ulmfit_nb.awd_lstm import AWD_LSTM
from ulmfit_nb.bag_of_words import mix
from ulmfit_nb.batching import TextDataLoaders
from ulmfit_nb.classifier import load_classifier, text_classifier_learner
from ulmfit_nb.ensemble import *
from ulmfit_nb.files import _signature, write_manifest
from ulmfit_nb.texts import sentences

tiny = dict(emb_sz=12, n_hid=16)
texts = ['Good.', '', 'The food was cold and the waiter rude.', 'great '*200]

@pytest.fixture(scope='module')
def df():
    res = sentences().sample(160, random_state=0).reset_index(drop=True)
    return res.assign(tags=res.label+';'+res.source, stars=(res.label=='positive')*3.+1, is_valid=res.index%4==0)

@pytest.fixture(scope='module')
def make(df, tmp_path_factory):
    path = tmp_path_factory.mktemp('ens')
    def f(backwards=False, seed=0, label_col='label', **kw):
        set_seed(seed)
        dls = TextDataLoaders.from_df(df, path=path, text_col='text', label_col=label_col, valid_col='is_valid', bs=16,
            backwards=backwards, **kw)
        learn = text_classifier_learner(dls, AWD_LSTM, config=tiny, pretrained=False)
        learn.logger = lambda *_: None
        with learn.no_bar(): learn.fit_one_cycle(1, 1e-2)
        return learn
    return f

@pytest.fixture(scope='module')
def pair(make): return make(False),make(True)

def test_average_and_order(pair):
    ens = Ensemble(pair)
    a,b = (Ensemble([o]).predict_proba(texts) for o in pair)
    assert (a-b).abs().max()>1e-4 # two that differ
    assert torch.allclose(ens.predict_proba(texts), (a+b)/2, atol=1e-6)
    assert torch.allclose(ens.predict_proba(texts[::-1], bs=1).flip(0), ens.predict_proba(texts), atol=1e-5)
    assert ens.predict(texts)==[ens.labels[i] for i in ens.predict_proba(texts).argmax(1)]
    with pytest.raises(TypeError, match='a list of texts'): ens.predict_proba('Good.')

def test_backwards_reads_from_the_end(pair):
    "The backwards member's answer is that of its model for the ids in reverse"
    learn = pair[1]
    ds = learn.dls.train_ds
    ids = torch.as_tensor(ds.numericalize(ds.tokenizer(texts[2]))).as_subclass(torch.Tensor).flip(0)
    with torch.no_grad(): p = learn.model.eval()(ids[None])[0].softmax(1)
    assert torch.allclose(p, Ensemble([learn]).predict_proba([texts[2]]), atol=1e-5)

def test_temperature_changes_no_answer_and_is_undone():
    torch.manual_seed(0)
    p = torch.randn(50, 4).softmax(1)
    for t in .1,1.,7.:
        q = with_temperature(p, t)
        assert torch.equal(q.argmax(1), p.argmax(1)) and torch.allclose(q.sum(1), torch.ones(50))
        assert torch.allclose(with_temperature(q, 1/t), p, atol=1e-4)
    one = torch.tensor([[1.,0.],[0.,1.]]) # certainty stays finite
    assert torch.isfinite(with_temperature(one, 2.)).all() and torch.isfinite(with_temperature(one, 2.,
        many=True)).all()

def test_temperature_is_the_best_one():
    "No other temperature on a grid has less cross-entropy"
    torch.manual_seed(0)
    scores = torch.randn(400, 3)*2
    ys = torch.multinomial((scores/2.5).softmax(1), 1)[:,0]
    def nll(t): return float(torch.nn.functional.cross_entropy(scores/t, ys))
    t = fit_temperature(scores.softmax(1), ys)
    assert nll(t) <= min(nll(o) for o in np.geomspace(.05, 20, 200))+2e-3

def test_calibration_error_of_known_models():
    g = torch.Generator().manual_seed(0)
    p1 = torch.rand(50000, generator=g)
    p = torch.stack([1-p1,p1], 1)
    honest = (torch.rand(50000, generator=g)<p1).long()
    assert calibration_error(p, honest)<.01
    assert abs(calibration_error(torch.tensor([[.1,.9]]*1000), torch.tensor([0]*500+[1]*500))-.4)<1e-6
    from sklearn.calibration import calibration_curve
    top = p.max(1).values
    frac,mean = calibration_curve((p.argmax(1)==honest).numpy(), top.numpy(), n_bins=10)
    r = reliability(p, honest, 10)
    np.testing.assert_allclose(r.accuracy, frac, atol=1e-6)
    np.testing.assert_allclose(r.confidence, mean, atol=1e-6)

def test_several_labels_and_numbers(make, df):
    ens = Ensemble([make(label_col='tags', label_delim=';'), make(True, label_col='tags', label_delim=';')])
    assert ens.many and set(ens.labels)=={'negative','positive','imdb','amazon','yelp'}
    p = ens.predict_proba(texts)
    ens.calibrate(df.text[:40], [o.split(';') for o in df.tags[:40]])
    q = ens.predict_proba(texts)
    assert torch.allclose(torch.logit(q), torch.logit(p)/ens.temperature, atol=1e-3)
    assert all(set(o)<=set(ens.labels) for o in ens.predict(texts))
    from fastai.data.block import RegressionBlock
    num = Ensemble([make(label_col='stars', y_block=RegressionBlock())])
    assert num.predict_proba(texts).shape==(4,1) and all(isinstance(o, float) for o in num.predict(texts))
    with pytest.raises(ValueError, match='no probabilities to calibrate'): num.calibrate(texts, [1,2,3,4])
    with pytest.raises(ValueError, match='other labels'): Ensemble([num.learners[0], ens.learners[0]])

elsewhere = '''
import json,sys
from ulmfit_nb.ensemble import Ensemble
print(json.dumps(Ensemble.load(sys.argv[1]).predict_proba(json.loads(sys.argv[2])).tolist()))
'''

def test_saved_and_loaded_elsewhere(pair, tmp_path):
    ens = Ensemble(pair, 1.7)
    folder = ens.save(tmp_path/'both')
    assert not [o for o in folder.rglob('*') if o.suffix in ('.pkl','.pth','.pickle')]
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', elsewhere, str(folder), json.dumps(texts)],
        capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS':'1'})
    assert r.returncode==0, r.stderr
    assert torch.allclose(torch.tensor(json.loads(r.stdout.splitlines()[-1])), ens.predict_proba(texts), atol=1e-6)
    ens.temperature = 2.
    assert Ensemble.load(ens.save(folder)).temperature==2. # replaced as a whole
    assert not list(tmp_path.glob('.both*'))

def damaged(folder):
    w = folder/'0_forwards'/'weights.safetensors'
    def swap(f):
        a,b = f/'0_forwards'/'weights.safetensors',f/'1_backwards'/'weights.safetensors'
        x,y = a.read_bytes(),b.read_bytes()
        a.write_bytes(y), b.write_bytes(x)
    return {'is missing':lambda f: (f/w.relative_to(folder)).unlink(),
        'cut off':lambda f: (f/w.relative_to(folder)).write_bytes(w.read_bytes()[:-1]),
        'content has changed|cut off':swap,
        'does not exist':lambda f: (f/'ensemble.json').unlink(),
        'damaged':lambda f: (f/'ensemble.json').write_text('{'),
        'format version 7':lambda f: (f/'ensemble.json').write_text(
        json.dumps({**json.loads((f/'ensemble.json').read_text()), 'format_version':7})),
        'changed after it was saved':lambda f: (f/'ensemble.json').write_text(
        json.dumps({**json.loads((f/'ensemble.json').read_text()), 'temperature':9}))}

def test_damaged_folders_are_refused(pair, tmp_path):
    import shutil
    folder = Ensemble(pair).save(tmp_path/'both')
    for says,harm in damaged(folder).items():
        shutil.rmtree(tmp_path/'copy', ignore_errors=True)
        shutil.copytree(folder, tmp_path/'copy')
        harm(tmp_path/'copy')
        with pytest.raises((ValueError,FileNotFoundError), match=says): Ensemble.load(tmp_path/'copy')
    assert Ensemble.load(folder).temperature==1
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'x').write_text('')
    with pytest.raises(ValueError, match='is no ensemble'): Ensemble(pair).save(tmp_path/'mine')

def test_a_smaller_copy_with_a_card(pair, tmp_path):
    "Eight bits for each weight, almost the same answers, and the card comes along"
    ens = Ensemble(pair, 1.5)
    whole,small = ens.save(tmp_path/'whole'),ens.save(tmp_path/'small', 'int8', dict(limits='none known'))
    def size(folder): return sum(o.stat().st_size for o in folder.rglob('*.safetensors'))
    assert size(small)<.5*size(whole)
    again = Ensemble.load(small)
    off = (again.predict_proba(texts)-ens.predict_proba(texts)).abs().max()
    assert 0<off<.02 and again.temperature==1.5
    assert again.card=={'limits':'none known'} and Ensemble.load(whole).card is None
    assert Ensemble.load(again.save(tmp_path/'again')).card==again.card

def test_a_folder_of_both_is_loaded_by_either_name(pair, tmp_path):
    folder = Ensemble(pair).save(tmp_path/'both')
    same = load_classifier(folder)
    assert isinstance(same, Ensemble)
    assert torch.equal(same.predict_proba(texts), Ensemble.load(folder).predict_proba(texts))

def test_a_member_is_a_folder_inside(pair, tmp_path):
    "A folder that names itself as its member is refused, and not read for ever"
    folder = Ensemble(pair[:1]).save(tmp_path/'own')
    meta = json.loads((folder/'ensemble.json').read_text())
    for o in (folder/'0_forwards').iterdir(): o.rename(folder/o.name)
    (folder/'0_forwards').rmdir()
    (folder/'ensemble.json').unlink()
    write_manifest(folder, {k:meta[k] for k in ('kind','temperature')} | {'members':['.']}, 'ensemble.json')
    meta = json.loads((folder/'ensemble.json').read_text())
    files = {f'./{k}':v for k,v in meta['files'].items()}
    (folder/'ensemble.json').unlink()
    signed = {k:v for k,v in meta.items() if k!='sha256'} | {'files':files}
    (folder/'ensemble.json').write_text(json.dumps({**signed, 'sha256':_signature(signed)}))
    for load in Ensemble.load,load_classifier:
        with pytest.raises(ValueError, match='is no ensemble'): load(folder)

# A bag of words beside networks that know little

def test_luck_with_few_texts_does_not_silence_the_bag():
    """Networks from random weights are right by luck in some samples of 50 held-out texts: the mixture is no worse
    than the bag for it, whichever sample it was"""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4000)
    noise,other = rng.normal(size=(2, len(y)))
    def log_probs(x): return log_softmax(np.stack([-x, x], 1), 1)
    network,bag = log_probs(.5*(.4*(2*y-1)+.3*noise+.95*other)),log_probs(.5*(.7*(2*y-1)+noise))
    def right(opinion, i): return (opinion[i].argmax(1)==y[i]).mean()
    assert right(network, slice(None))<.7<.75<right(bag, slice(None))
    stub = SimpleNamespace(many=False, labels=[0,1], ys=torch.tensor,
        networks_proba=lambda i: torch.tensor(network[i]).exp())
    counts = SimpleNamespace(n_classes=2, log_proba=lambda i: bag[i])
    gains = []
    for _ in range(200):
        held,rest = np.split(rng.permutation(len(y)), [50])
        weights = Ensemble.listen(stub, counts, held.tolist(), y[held], trust=.1).weights
        gains.append(right(mix((network, bag), weights), rest)-right(bag, rest))
    assert min(gains)>-.005 and np.mean(gains)>0, (min(gains), np.mean(gains))
