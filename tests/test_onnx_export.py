"A classifier as an ONNX file: the same probabilities for texts of all lengths and mixtures, also without torch"
import json, subprocess, sys
import numpy as np, pytest, torch
pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
from ulmfit_nb.onnx_export import Graph, OnnxClassifier, alike, export_onnx

def learner(tmp_path, **how):
    "An untrained classifier, tiny, with large weights, and a batch normalization that is not a new one's"
    from ulmfit_nb.all import AWD_LSTM, TextDataLoaders, sentences, text_classifier_learner
    df = sentences().sample(60, random_state=1)
    of_data = {k:how.pop(k) for k in ('label_col','y_block','label_delim','backwards') if k in how}
    df['stars'],df['both'] = np.arange(60)%5/4,[f'a;{o}' if i%3 else 'a' for i,o in enumerate(df.label)]
    dls = TextDataLoaders.from_df(df, path=tmp_path, text_col='text', **{'label_col':'label', **of_data}, bs=8,
        seq_len=20, valid_pct=.2, seed=1)
    torch.manual_seed(1)
    config = dict(emb_sz=8, n_hid=12, n_layers=2)
    learn = text_classifier_learner(dls, AWD_LSTM, pretrained=False, config=config, **how)
    for w in learn.encoder.parameters(): w.data.mul_(4)
    for o in learn.model.modules():
        if isinstance(o, torch.nn.BatchNorm1d):
            for w in (o.running_mean,o.weight.data,o.bias.data): w.normal_(1., .5)
            o.running_var.uniform_(.5, 2)
    return learn

words = 'good bad Never AGAIN xxbos xxpad soooo ! film 日本'.split()
def texts(): # of 0 to 150 words
    rng = np.random.default_rng(0)
    return [' '.join(rng.choice(words, n)) for n in (0,1,2,5,19,20,21,39,40,41,60,61,150,3,80,100)]

from fastai.data.block import MultiCategoryBlock, RegressionBlock
kinds = {'classes':{}, 'backwards':dict(backwards=True), 'short memory':dict(max_len=40),
    'all of it':dict(max_len=None),
    'wide head':dict(lin_ftrs=[20,10], ps=[.1,.1]), 'number':dict(label_col='stars', y_block=RegressionBlock),
    'range':dict(label_col='stars', y_block=RegressionBlock, y_range=(0,1)),
    'several labels':dict(label_col='both', label_delim=';', y_block=MultiCategoryBlock)}

@pytest.mark.parametrize('kind', kinds)
def test_same_answers(tmp_path, kind):
    "Of any target, head and length of memory, whatever a text is read with"
    learn = learner(tmp_path, **kinds[kind])
    reader = OnnxClassifier(export_onnx(learn, tmp_path/'onnx'))
    want = learn.predict_proba(texts()).numpy()
    assert want.std()>.003
    for bs in (1,3,16): assert np.abs(reader.predict_proba(texts(), bs=bs)-want).max()<1e-5

@pytest.mark.parametrize('kind', ['classes','several labels'])
def test_ensemble_with_a_temperature(tmp_path, kind):
    "Of members that know different words and read in different directions"
    from ulmfit_nb.ensemble import Ensemble
    a,b = (learner(tmp_path, **kinds[kind], backwards=o) for o in (False,True))
    vocab = b.dls.train_ds.numericalize.vocab
    vocab[9:] = vocab[:8:-1]
    b.dls.train_ds.numericalize._set(vocab)
    for t in (.6, 2.5):
        ens = Ensemble([a,b], t)
        reader = OnnxClassifier(export_onnx(ens, tmp_path/'onnx'))
        assert np.abs(reader.predict_proba(texts())-ens.predict_proba(texts()).numpy()).max()<1e-5
        assert reader.predict(texts())==ens.predict(texts())

def test_without_torch(tmp_path):
    learn = learner(tmp_path)
    export_onnx(learn, tmp_path/'onnx')
    code = ('import sys, json; sys.modules["torch"] = None\nfrom ulmfit_nb.onnx_export import OnnxClassifier\n'
        'p = OnnxClassifier(sys.argv[1]).predict_proba(json.loads(sys.argv[2]))\n'
        'print(json.dumps(p.tolist()), "fastai" in sys.modules)')
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, tmp_path/'onnx', json.dumps(texts())],
        capture_output=True, text=True)
    assert out.returncode==0 and out.stdout.endswith(' False\n'), out.stderr[-3000:]
    got = np.array(json.loads(out.stdout.rsplit(' ', 1)[0]))
    assert np.abs(got-learn.predict_proba(texts()).numpy()).max()<1e-5

def test_a_graph_that_errs_is_not_written(tmp_path, monkeypatch):
    "Gates in PyTorch's order, say"
    monkeypatch.setattr('ulmfit_nb.onnx_export.np.split', lambda a, n: [np.array_split(a, n)[i] for i in (0,2,3,1)])
    with pytest.raises(ValueError, match='answers otherwise'): export_onnx(learner(tmp_path), tmp_path/'onnx')
    assert not (tmp_path/'onnx').exists()

def test_groups():
    for lens in ([], [3], [1,2,400,2,401,3]):
        groups = alike(lens, 2)
        assert sorted(i for o in groups for i in o)==list(range(len(lens))) and all(len(o)<=2 for o in groups)
        assert all(lens[o[-1]]<=1.25*lens[o[0]]+4 for o in groups)
    assert Graph().nodes==[]
