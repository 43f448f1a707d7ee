"Saving, loading and refusing; fastai's files; nothing pickled"
import ast, json, os, pickle, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from fastai.text import all as fa
from ulmfit_nb import all as u
import ulmfit_nb.language_model as lm

small = dict(emb_sz=16, n_hid=24)

def data(n=300, **kw):
    kw = dict(is_lm=True, **kw)
    return fa.DataBlock(u.TextBlock.from_df('text', **kw), get_x=fa.ColReader('text'), splitter=fa.RandomSplitter(0.2, seed=1)).dataloaders(u.sentences()[:n], bs=8, seq_len=20)

@pytest.fixture
def learn(tmp_path):
    fa.set_seed(0)
    return u.language_model_learner(data(), u.AWD_LSTM, config=small, pretrained=False, path=tmp_path, metrics=[fa.accuracy, fa.Perplexity()])

def weights(o): return {k:v.clone() for k,v in o.model.state_dict().items()}
def equal(a, b): return a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)

def quiet(o, *args, **kw):
    with o.no_bar(), o.no_logging(): o.fit_one_cycle(*args, **kw)

def test_resume_goes_on_as_if_nothing_had_happened(learn, tmp_path):
    "Weights and optimizer state after save, load and one more step are those without the detour"
    quiet(learn, 1, 1e-2)
    learn.save('a')
    other = u.language_model_learner(learn.dls, u.AWD_LSTM, config=small, pretrained=False, path=tmp_path).load('a')
    assert equal(weights(learn), weights(other))
    b = learn.dls.valid.one_batch()
    for o in (learn,other):
        fa.set_seed(3)
        o.model.train(); o.model.reset()
        o.opt.set_hypers(lr=1e-3)
        fa.CrossEntropyLossFlat()(o.model(b[0])[0], b[1]).backward()
        o.opt.step()
    assert equal(weights(learn), weights(other))

def test_lr_find_leaves_everything_as_it_was(learn):
    quiet(learn, 1, 1e-2)
    before,opt = weights(learn),[{k:(v.clone() if torch.is_tensor(v) else v) for k,v in s.items()} for s in learn.opt.state_dict()['state']]
    with learn.no_bar(): learn.lr_find(num_it=12, show_plot=False)
    assert equal(before, weights(learn))
    for a,b in zip(opt, learn.opt.state_dict()['state']): assert all(torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k]==b[k] for k in a)
    assert not list((learn.path/'models').rglob('*_tmp*'))

def test_save_model_callback_restores_the_best(learn):
    from fastai.callback.tracker import SaveModelCallback
    with learn.no_bar(), learn.no_logging(): learn.fit(3, 1e3, cbs=SaveModelCallback(fname='best')) # a rate that destroys: the first epoch is the best
    losses = [o[1] for o in learn.recorder.values]
    with learn.no_bar(): assert abs(learn.validate()[0]-min(l for l in losses if l==l))<1e-4

@pytest.mark.parametrize('what,make,msg', [
    ('cut off', lambda f: f.write_bytes(f.read_bytes()[:-100]), 'not the file that was saved'),
    ('changed', lambda f: f.write_bytes(f.read_bytes()[:-1]+b'\x7f'), 'not the file that was saved'),
    ('missing', lambda f: f.unlink(), 'is missing'),
    ('no json', lambda f: f.with_suffix('.json').unlink(), 'does not exist'),
    ('bad json', lambda f: f.with_suffix('.json').write_text('{'), 'damaged'),
    ('other json', lambda f: f.with_suffix('.json').write_text('{}'), 'does not describe'),
])
def test_damage_is_refused(learn, what, make, msg):
    f = learn.save('a')
    make(f)
    before = weights(learn)
    with pytest.raises((ValueError,FileNotFoundError), match=msg): learn.load('a')
    assert equal(before, weights(learn))

def test_interrupted_save_keeps_the_old_pair(learn, monkeypatch):
    f = learn.save('a')
    old = {o.name:o.read_bytes() for o in f.parent.iterdir()}
    def boom(*a, **k): raise KeyboardInterrupt
    monkeypatch.setattr(lm, 'save_file', boom)
    with pytest.raises(KeyboardInterrupt): learn.save('a')
    assert {o.name:o.read_bytes() for o in f.parent.iterdir()}==old

def test_encoder_of_other_data_is_refused(learn, tmp_path):
    learn.save_encoder('enc')
    v = list(learn.vocab)
    v[20],v[21] = v[21],v[20]
    other = u.language_model_learner(data(vocab=v), u.AWD_LSTM, config=small, pretrained=False, path=tmp_path)
    before = weights(other)
    with pytest.raises(ValueError, match='first difference at id 20'): other.load_encoder('enc')
    back = u.language_model_learner(data(vocab=learn.vocab, backwards=True), u.AWD_LSTM, config=small, pretrained=False, path=tmp_path)
    with pytest.raises(ValueError, match='reads forwards'): back.load_encoder('enc')
    assert equal(before, weights(other))

def test_with_opt(learn, tmp_path):
    quiet(learn, 1, 1e-2)
    learn.save('no_opt', with_opt=False)
    with pytest.raises(ValueError, match='no optimizer state'): learn.load('no_opt', with_opt=True)
    learn.load('no_opt')

def fastai_learner(dls_ours, tmp_path):
    cfg = {**fa.awd_lstm_lm_config, **small}
    model = fa.get_language_model(fa.AWD_LSTM, len(dls_ours.vocab), config=cfg)
    return model, cfg

def test_fastai_pretrained_pair(learn, tmp_path):
    "fastai's `.pth` and `.pkl`, other vocabulary order: the same logits word for word"
    model,_ = fastai_learner(learn.dls, tmp_path)
    model.eval()
    vocab = list(learn.vocab)
    rng = np.random.default_rng(0)
    perm = rng.permutation(len(vocab))
    old = [vocab[i] for i in perm]
    (tmp_path/'models').mkdir()
    torch.save(model.state_dict(), tmp_path/'models'/'w.pth')
    fa.save_pickle(tmp_path/'models'/'itos.pkl', old)
    mine = u.language_model_learner(learn.dls, u.AWD_LSTM, config=small, pretrained_fnames=['w','itos'], path=tmp_path)
    place = {w:i for i,w in enumerate(old) if w!='xxfake'}
    ids = torch.tensor([[i for i in learn.dls.valid.one_batch()[0][0].tolist()]])
    theirs_ids = torch.tensor([[place[vocab[i]] for i in ids[0]]])
    mine.model.eval(); mine.model.reset(); model.reset()
    a,b = mine.model(ids)[0],model(theirs_ids)[0]
    cols = [i for i,w in enumerate(vocab) if w!='xxfake']
    assert torch.allclose(a[...,cols], b[...,[place[vocab[i]] for i in cols]], atol=1e-5)
    assert [p.requires_grad for p in mine.model[0].rnns.parameters()]==[False]*12

def test_pickles_that_run_code_are_not_run(tmp_path):
    class Evil:
        def __reduce__(self): return (os.system, (f'touch {tmp_path}/ran',))
    (tmp_path/'itos.pkl').write_bytes(pickle.dumps([Evil()]))
    torch.save({}, tmp_path/'w.pth')
    with pytest.raises(pickle.UnpicklingError, match='system'): u.load_fastai_weights(tmp_path/'w.pth', tmp_path/'itos.pkl')
    torch.save(Evil(), tmp_path/'evil.pth')
    with pytest.raises(pickle.UnpicklingError): u.load_fastai_weights(tmp_path/'evil.pth', tmp_path/'itos.pkl')
    assert not (tmp_path/'ran').exists()

def test_wrong_architecture_is_named():
    with pytest.raises(ValueError, match='no configuration is known'): u.language_model_learner(data(), fa.AWD_LSTM, pretrained=False)

def test_no_pretrained_model_is_said_and_nothing_frozen(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('ULMFIT_HOME', str(tmp_path))
    monkeypatch.setattr(lm, 'default_pretrained', 'surely-not-there')
    monkeypatch.setattr(lm, '_said', set())
    dls = data()
    o = u.language_model_learner(dls, u.AWD_LSTM, config=small)
    u.language_model_learner(dls, u.AWD_LSTM, config=small)
    assert capsys.readouterr().out.count('surely-not-there')==1 and all(p.requires_grad for p in o.model.parameters())
    with pytest.raises(FileNotFoundError) as e: u.language_model_learner(dls, u.AWD_LSTM, pretrained='my-model')
    assert str(tmp_path) in str(e.value) and 'my-model-fwd' in str(e.value)

def test_found_in_the_cache_by_name(learn, tmp_path, monkeypatch):
    monkeypatch.setenv('ULMFIT_HOME', str(tmp_path/'home'))
    learn.path = tmp_path/'home'/'pretrained'
    learn.export('mine-fwd')
    o = u.language_model_learner(data(), u.AWD_LSTM, pretrained='mine')
    assert o.encoder.n_hid==small['n_hid'] and not any(p.requires_grad for p in o.model[0].rnns.parameters())

use = '''
import pickle, sys, torch
from ulmfit_nb.all import *
def boom(*a, **k): raise AssertionError('pickle was used')
pickle.load = pickle.loads = torch.load = boom
learn = load_language_model(sys.argv[1])
x = torch.tensor([[2,9,10,11,12,13]])
learn.model.reset()
print(learn.model(x)[0][0,-1,:5].tolist())
'''

def test_new_process_same_answer_no_pickle(learn, tmp_path):
    folder = learn.export('out')
    assert sorted(o.name for o in folder.iterdir())==['model.json','weights.safetensors']
    r = subprocess.run([sys.executable, '-c', use, folder], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode==0, r.stderr
    learn.model.eval(); learn.model.reset()
    want = learn.model(torch.tensor([[2,9,10,11,12,13]]))[0][0,-1,:5]
    assert torch.allclose(torch.tensor(json.loads(r.stdout.splitlines()[-1])), want, atol=1e-6)

def test_package_pickles_nothing():
    "Nothing pickled is written or read from a file; torch.load only with weights_only=True. (Worker processes are handed their job as bytes, in memory.)"
    in_memory = {('tokenization.py','pickle.loads'), ('tokenization.py','pickle.dumps')}
    forbidden = {'pickle.load','pickle.loads','pickle.dump','pickle.dumps','torch.save','load_pickle','save_pickle','joblib.load'}
    seen = 0
    for f in Path(lm.__file__).parent.glob('*.py'):
        for o in ast.walk(ast.parse(f.read_text(encoding='utf8'))):
            if not isinstance(o, ast.Call): continue
            name = ast.unparse(o.func)
            assert name not in forbidden or (f.name,name) in in_memory, f'{f.name}: {name}'
            if name=='torch.load':
                seen += 1
                assert any(k.arg=='weights_only' and k.value.value is True for k in o.keywords)
            if name=='np.load': assert not any(k.arg=='allow_pickle' for k in o.keywords)
    assert seen
