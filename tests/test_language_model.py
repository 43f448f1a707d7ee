"Saving, loading and refusing; fastai's files; nothing pickled"
import ast, json, os, pickle, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from fastai.text import all as fa
from ulmfit_nb import all as u
import ulmfit_nb.language_model as lm
from ulmfit_nb import files, learner as learner_module

small = dict(emb_sz=16, n_hid=24)

def data(n=300, **kw):
    kw = dict(is_lm=True, **kw)
    return fa.DataBlock(u.TextBlock.from_df('text', **kw), get_x=fa.ColReader('text'),
        splitter=fa.RandomSplitter(0.2, seed=1)).dataloaders(u.sentences()[:n], bs=8, seq_len=20)

@pytest.fixture
def learn(tmp_path):
    fa.set_seed(0)
    return u.language_model_learner(data(), u.AWD_LSTM, config=small, pretrained=False, path=tmp_path,
        metrics=[fa.accuracy, fa.Perplexity()])

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
    before,opt = weights(learn),[{k:(v.clone() if torch.is_tensor(v) else v) for k,v in s.items()}
        for s in learn.opt.state_dict()['state']]
    with learn.no_bar(): learn.lr_find(num_it=12, show_plot=False)
    assert equal(before, weights(learn))
    for a,b in zip(opt, learn.opt.state_dict()['state']):
        assert all(torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k]==b[k] for k in a)
    assert not list((learn.path/'models').rglob('*_tmp*'))

def test_save_model_callback_restores_the_best(learn):
    from fastai.callback.tracker import SaveModelCallback
    with learn.no_bar(), learn.no_logging():
        learn.fit(3, 1e3, cbs=SaveModelCallback(fname='best')) # a rate that destroys: the first epoch is the best
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
    monkeypatch.setattr('safetensors.torch.save_file', boom)
    with pytest.raises(KeyboardInterrupt): learn.save('a')
    assert {o.name:o.read_bytes() for o in f.parent.iterdir()}==old

def test_encoder_of_other_data_is_refused(learn, tmp_path):
    learn.save_encoder('enc')
    v = list(learn.vocab)
    v[20],v[21] = v[21],v[20]
    other = u.language_model_learner(data(vocab=v), u.AWD_LSTM, config=small, pretrained=False, path=tmp_path)
    before = weights(other)
    with pytest.raises(ValueError, match='first difference at id 20'): other.load_encoder('enc')
    back = u.language_model_learner(data(vocab=learn.vocab, backwards=True), u.AWD_LSTM, config=small, pretrained=False,
        path=tmp_path)
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
    with pytest.raises(pickle.UnpicklingError, match='system'):
        u.load_fastai_weights(tmp_path/'w.pth', tmp_path/'itos.pkl')
    torch.save(Evil(), tmp_path/'evil.pth')
    with pytest.raises(pickle.UnpicklingError): u.load_fastai_weights(tmp_path/'evil.pth', tmp_path/'itos.pkl')
    assert not (tmp_path/'ran').exists()

def test_wrong_architecture_is_named():
    with pytest.raises(ValueError, match='no architecture'):
        u.language_model_learner(data(), fa.AWD_LSTM, pretrained=False)

def test_no_pretrained_model_is_said_and_nothing_frozen(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('ULMFIT_HOME', str(tmp_path))
    monkeypatch.setattr(lm, 'default_pretrained', 'surely-not-there')
    monkeypatch.setattr(learner_module, '_said', set())
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
    """Nothing pickled is written or read from a file; torch.load only with weights_only=True. (Worker processes are
    handed their job as bytes, in memory.)"""
    in_memory = {(f'{m}.py',f'pickle.{o}') for m in ('parallel','distributed') for o in ('loads','dumps')}
    forbidden = {'pickle.load','pickle.loads','pickle.dump','pickle.dumps','torch.save','load_pickle','save_pickle',
        'joblib.load'}
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


# ---- 16 bits on a CPU ----

def test_bf16_on_a_cpu_really_is(learn):
    """Matrix products and LSTMs get bfloat16; weights, gradients and the loss are float32; off again afterwards, also
    after an error"""
    from fastai.callback.core import Callback
    seen,kinds = set(),set()
    class Look(Callback):
        order = 60
        def after_loss(self): kinds.update({self.learn.loss.dtype, self.learn.loss_grad.dtype})
        def before_step(self): kinds.update(p.grad.dtype for p in self.model.parameters())
    learn.model[0].rnns[1].register_forward_hook(lambda m, i, o: seen.add(o[0].dtype) and None)
    learn.to_bf16()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2, cbs=Look())
    assert seen=={torch.bfloat16} and kinds=={torch.float32} and not torch.is_autocast_enabled('cpu')
    class Boom(Callback):
        def after_pred(self): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2, cbs=Boom())
    assert not torch.is_autocast_enabled('cpu')
    seen.clear()
    with learn.to_fp32().no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    assert seen=={torch.float32}

def test_bf16_learns_like_float32(tmp_path):
    "From the same weights, over the same batches: the same losses to 2% of what was learned"
    curves = []
    for half in (False,True):
        fa.set_seed(0)
        o = u.language_model_learner(data(), u.AWD_LSTM, config=small, drop_mult=0.3, pretrained=False, path=tmp_path)
        if half: o.to_bf16()
        with o.no_bar(), o.no_logging(): o.fit_one_cycle(6, 1e-2)
        curves.append([*[float(l) for l in o.recorder.losses], o.recorder.values[-1][1]])
    a,b = map(np.array, curves)
    assert np.abs(a-b).max() < 0.02*(a[0]-a[-1]) and a[0]-a[-1] > 1

def test_training_never_makes_logits(learn, monkeypatch):
    "... and validation does, as do training metrics and another loss, which still work"
    monkeypatch.setattr(u.LazyLogits, 'logits', lambda self: 1/0)
    quiet(learn, 1, 1e-2)
    monkeypatch.undo()
    from fastai.learner import Recorder
    learn.recorder.train_metrics = True
    quiet(learn, 1, 1e-3)
    assert len(learn.recorder.values[-1])==6
    learn.loss_func = fa.CrossEntropyLossFlat(label_smoothing=0.1)
    quiet(learn, 1, 1e-3)

def test_same_training_as_with_stored_logits(tmp_path):
    ends = []
    for lazy in (False,True):
        fa.set_seed(0)
        o = u.language_model_learner(data(), u.AWD_LSTM, config=small, pretrained=False, path=tmp_path)
        o.model[1].lazy = lazy
        quiet(o, 2, 1e-2)
        ends.append(weights(o))
    for k in ends[0]: torch.testing.assert_close(ends[0][k], ends[1][k], atol=1e-4, rtol=0)

# ---- every token counts the same ----

def test_validation_counts_tokens(learn):
    "Loss, accuracy and perplexity of `validate` are those over all tokens at once, though the last batch is shorter"
    dl = learn.dls.valid
    lens = [y.shape[1] for _,y in dl]
    assert lens[-1]!=lens[0]
    learn.model.eval(); learn.model.reset()
    with torch.no_grad(): pairs = [(learn.model(x)[0].flatten(0,1),y.flatten()) for x,y in dl]
    p,y = (torch.cat([o[i].as_subclass(torch.Tensor) for o in pairs]) for i in (0,1))
    want = torch.nn.functional.cross_entropy(p, y).item()
    with learn.no_bar(): loss,acc,ppl = learn.validate()
    assert abs(loss-want)<1e-5 and abs(acc-(p.argmax(-1)==y).float().mean().item())<1e-6 and abs(
        ppl-np.exp(want))<1e-3*ppl

def test_a_classifier_counts_texts_as_before():
    from fastai.learner import AvgLoss, AvgMetric
    dls = fa.DataBlock((u.TextBlock.from_df('text'),fa.CategoryBlock), get_x=fa.ColReader('text'),
        get_y=fa.ColReader('label')).dataloaders(u.sentences()[:100], bs=8)
    o = u.text_classifier_learner(dls, u.AWD_LSTM, config=dict(u.awd_lstm_clas_config, **small), pretrained=False,
        metrics=fa.accuracy)
    assert type(o.recorder.loss) is AvgLoss and type(o.metrics[0]) is AvgMetric

def test_a_batch_of_one_token_is_no_nan(learn):
    x = torch.randint(2, 30, (1,1))
    dls = fa.DataLoaders([(x,x)], [(x,x)])
    dls.vocab = learn.vocab
    o = u.TextLearner(dls, learn.model, loss_func=u.LMCrossEntropy(), path=learn.path)
    quiet(o, 1, 1e-3)
    assert np.isfinite(float(o.recorder.losses[-1])) and all(p.isfinite().all() for p in o.model.parameters())

# ---- fewer bytes ----

def test_quantized_model_loads_like_any_other(learn, tmp_path):
    quiet(learn, 1, 1e-2)
    folder = learn.export('full')
    want = {k:v.clone() for k,v in learn.model.state_dict().items()}
    for dtype,tol in (('int8',1/254),('float16',2**-11),('bfloat16',2**-8)):
        o = u.load_language_model(u.quantize_weights(folder, tmp_path/dtype, dtype))
        for k,v in o.model.state_dict().items():
            bound = v.abs().amax(-1, keepdim=True) if dtype=='int8' and v.ndim>1 else v.abs()
            assert v.dtype==torch.float32 and ((v-want[k]).abs() <= tol*1.01*bound+1e-6
                +(2**-11*v.abs() if v.ndim==1 else 0)).all(), k
        tuned = u.language_model_learner(learn.dls, u.AWD_LSTM, pretrained=tmp_path/dtype, path=tmp_path)
        assert tuned.encoder.n_hid==small['n_hid']
    direct = learn.export('direct', dtype='int8')
    assert (direct/'weights.safetensors').read_bytes()==(tmp_path/'int8'/'weights.safetensors').read_bytes()

def test_damaged_quantized_weights_are_refused(learn, tmp_path):
    from safetensors.torch import load_file, save_file
    folder = learn.export('small', dtype='int8')
    meta = json.loads((folder/'model.json').read_text())
    meta = {k:v for k,v in meta.items() if k!='contents'}
    def rewrite(change):
        t = load_file(folder/'weights.safetensors')
        change(t)
        save_file(t, tmp_path/'w.safetensors')
        files.write_meta(tmp_path/'w.json', dict(meta, sha256=lm.sha256_of(tmp_path/'w.safetensors')))
        return lambda: u.load_weights(tmp_path/'w.safetensors')
    k = '0.rnns.0.weight_hh_l0'
    rewrite(lambda t: None)()
    for change in (lambda t: t.pop(f'{k}.step'), lambda t: t.update({f'{k}.step':t[f'{k}.step'][:-1]}),
        lambda t: t.update({k:t[k].float()}), lambda t: t.pop(k)):
        with pytest.raises(ValueError, match='not what is there'): rewrite(change)()
    b = bytearray((folder/'weights.safetensors').read_bytes())
    b[len(b)//2] ^= 4
    (folder/'weights.safetensors').write_bytes(b)
    with pytest.raises(ValueError, match='not the file that was saved'): u.load_language_model(folder)

def test_a_pair_of_compact_models_fits_12_MB(tmp_path):
    vocab = ['xxunk','xxpad','xxbos','xxeos','xxfld','xxrep','xxwrep','xxup',
        'xxmaj'] + [f'wrd{i}' for i in range(19991)]
    model = u.get_language_model(u.AWD_LSTM, len(vocab), u.awd_lstm_compact_config)
    meta = dict(kind='language_model', arch='AWD_LSTM', config=u.awd_lstm_compact_config, vocab=vocab)
    u.save_weights(tmp_path/'weights.safetensors', model.state_dict(), meta, tmp_path/'model.json', dtype='int8')
    n = sum(p.numel() for p in model.parameters())
    assert n > 5.5e6 and 2*sum(o.stat().st_size for o in tmp_path.iterdir()) < 12*2**20

# ---- from elsewhere ----

class Server(__import__('http.server').server.ThreadingHTTPServer):
    "Hands out `data`, breaking off after `most` bytes; without ranges if told so"
    def __init__(self, data, most=None, ranges=True):
        from http.server import BaseHTTPRequestHandler
        import threading
        class Answer(BaseHTTPRequestHandler):
            def do_GET(h):
                asked = h.headers['Range'] if ranges else None
                self.asked.append(h.headers['Range'])
                start,n = int(asked[6:-1]) if asked else 0,len(self.data)
                h.send_response(200 if not asked else 206 if start<n else 416)
                h.send_header('Content-Range', f'bytes {start}-{n-1}/{n}' if start<n else f'bytes */{n}')
                h.send_header('Content-Length', max(n-start, 0))
                h.end_headers()
                h.wfile.write(self.data[start:][:self.most])
            def log_message(h, *a): pass
        super().__init__(('127.0.0.1', 0), Answer)
        self.data,self.most,self.asked = data,most,[]
        self.url = f'http://127.0.0.1:{self.server_port}/x.tgz'
        threading.Thread(target=self.serve_forever, daemon=True).start()

def tgz(files, links=()):
    import io, tarfile
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode='w:gz') as tar:
        for name,b in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(b)
            tar.addfile(info, io.BytesIO(b))
        for name,to in links:
            info = tarfile.TarInfo(name)
            info.type,info.linkname = tarfile.SYMTYPE,to
            tar.addfile(info)
    return f.getvalue()

def wt103(vocab, seed=0):
    """A model in the form of fastai's wt103 files (also the copy under `module.` that older ones have), small; and
    fastai's model itself"""
    import io
    fa.set_seed(seed)
    model = fa.get_language_model(fa.AWD_LSTM, len(vocab), config={**fa.awd_lstm_lm_config, **small})
    sd = {**model.state_dict(), **{f'0.rnns.{i}.module.weight_hh_l0':torch.zeros(1) for i in range(3)}}
    f = io.BytesIO()
    torch.save(sd, f)
    return {'wt103-fwd/lstm_fwd.pth':f.getvalue(), 'wt103-fwd/itos_wt103.pkl':pickle.dumps(vocab, protocol=2)}, model

@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('ULMFIT_HOME', str(tmp_path/'home'))
    return tmp_path/'home'/'pretrained'

def offer(monkeypatch, server, sha=None, name='wt103-fwd'):
    monkeypatch.setitem(lm.pretrained_urls, name, dict(url=server.url, sha256=sha))

def test_wt103_by_name(learn, home, monkeypatch):
    """fetched because it was named, unpacked, converted, matched to the vocabulary: the same logits as fastai's model
    word for word"""
    import hashlib
    vocab = [*learn.vocab[:9], *learn.vocab[9:][::-1]]
    files,theirs = wt103(vocab)
    server = Server(tgz(files))
    offer(monkeypatch, server, hashlib.sha256(server.data).hexdigest())
    mine = u.language_model_learner(learn.dls, u.AWD_LSTM, pretrained='wt103', path=learn.path)
    assert mine.encoder.n_hid==small['n_hid'] and [o.name for o in home.iterdir()]==['wt103-fwd']
    ids = learn.dls.valid.one_batch()[0].as_subclass(torch.Tensor)
    to = torch.tensor([vocab.index(w) for w in learn.vocab])
    theirs.eval(); mine.model.eval(); mine.model.reset()
    words = [i for i,w in enumerate(learn.vocab) if w!='xxfake'] # of which there may be several
    torch.testing.assert_close(mine.model(ids)[0][...,words], theirs(to[ids])[0][...,to[words]], atol=1e-5, rtol=0)
    u.language_model_learner(learn.dls, u.AWD_LSTM, pretrained='wt103-fwd', path=learn.path)
    assert len(server.asked)==1
    back = data(vocab=learn.vocab, backwards=True)
    with pytest.raises(ValueError, match='reads forwards'):
        u.language_model_learner(back, u.AWD_LSTM, pretrained='wt103-fwd')

def test_fastais_own_folder_is_read(learn, tmp_path):
    "As fastai leaves it on disk, without any conversion"
    files,theirs = wt103(list(learn.vocab))
    (tmp_path/'wt103-fwd').mkdir()
    for k,v in files.items(): (tmp_path/k).write_bytes(v)
    mine = u.language_model_learner(learn.dls, u.AWD_LSTM, pretrained=tmp_path/'wt103-fwd', path=tmp_path)
    assert torch.equal(mine.model[0].rnns[1].weight_hh_l0, theirs[0].rnns[1].weight_hh_l0_raw)
    with pytest.raises(ValueError, match='other direction'):
        u.language_model_learner(data(vocab=learn.vocab, backwards=True), u.AWD_LSTM, pretrained=tmp_path/'wt103-fwd')

@pytest.mark.parametrize('ranges', [True, False])
def test_interrupted_download_goes_on(tmp_path, ranges):
    import hashlib
    data = np.random.default_rng(0).bytes(200_000)
    server,sha = Server(data, most=70_000, ranges=ranges),hashlib.sha256(data).hexdigest()
    with pytest.raises(ConnectionError, match='70,000 of 200,000'): u.download_file(server.url, tmp_path/'f', sha)
    assert not (tmp_path/'f').exists()
    if ranges:
        with pytest.raises(ConnectionError, match='140,000 of 200,000'): u.download_file(server.url, tmp_path/'f', sha)
    server.most = None
    assert u.download_file(server.url, tmp_path/'f', sha).read_bytes()==data
    assert [o.name for o in tmp_path.iterdir()]==['f'] and server.asked==([None,'bytes=70000-','bytes=140000-']
        if ranges else [None,'bytes=70000-'])

def test_all_of_it_had_come(tmp_path):
    "The connection broke between the last byte and the new name"
    server = Server(b'x'*1000)
    (tmp_path/'f.part').write_bytes(b'x'*1000)
    assert u.download_file(server.url, tmp_path/'f').read_bytes()==server.data
    (tmp_path/'g.part').write_bytes(b'y'*2000)
    with pytest.raises(ConnectionError, match='another file'): u.download_file(server.url, tmp_path/'g')
    assert u.download_file(server.url, tmp_path/'g').read_bytes()==server.data

def test_wrong_checksum_is_refused_and_nothing_kept(home, monkeypatch):
    server = Server(tgz(wt103(['a','b'])[0]))
    offer(monkeypatch, server, '0'*64)
    with pytest.raises(ValueError, match='not the file that was expected'): u.download_pretrained('wt103')
    assert not list(home.iterdir())

@pytest.mark.parametrize('what', ['cut','no archive','outside','absolute','link','code','not a pair'])
def test_bad_archives_leave_nothing(what, home, monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self): return (os.system, (f'touch {tmp_path}/ran',))
    files,links = wt103(['xxunk','xxpad','a'])[0],[]
    if what=='outside': files['../../evil.pth'] = b'x'
    if what=='absolute': files[f'{tmp_path}/evil.pth'] = b'x'
    if what=='link': links = [('wt103-fwd/l.pth','/etc/passwd')]
    if what=='code': files['wt103-fwd/itos_wt103.pkl'] = pickle.dumps([Evil()])
    if what=='not a pair': files.pop('wt103-fwd/itos_wt103.pkl')
    b = tgz(files, links)
    server = Server(dict(cut=b[:len(b)//2]).get(what, b'hello' if what=='no archive' else b))
    offer(monkeypatch, server)
    with pytest.raises((ValueError,FileNotFoundError,pickle.UnpicklingError)): u.download_pretrained('wt103')
    assert {o.name
        for o in home.iterdir()} <= {'wt103-fwd.tgz'} and not (tmp_path/'ran').exists() and not list(
        tmp_path.rglob('evil*'))

def test_offline_says_where_it_looked(home, monkeypatch, learn):
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{s.getsockname()[1]}/wt103-fwd.tgz'
    monkeypatch.setitem(lm.pretrained_urls, 'wt103-fwd', dict(url=url, sha256=None))
    with pytest.raises(ConnectionError) as e: u.language_model_learner(learn.dls, u.AWD_LSTM, pretrained='wt103')
    assert all(str(o) in str(e.value) for o in [url, 'ULMFIT_HOME', home, *u.pretrained_places('wt103')])
    with pytest.raises(FileNotFoundError) as e: u.find_pretrained('wt103')
    assert url in str(e.value) and 'download_pretrained' in str(e.value)

def test_the_default_is_never_fetched(home, monkeypatch, learn, capsys):
    server = Server(tgz(wt103(list(learn.vocab))[0]))
    offer(monkeypatch, server, name='not-there-fwd')
    monkeypatch.setattr(lm, 'default_pretrained', 'not-there')
    monkeypatch.setattr(learner_module, '_said', set())
    o = u.language_model_learner(learn.dls, u.AWD_LSTM, config=small)
    assert not server.asked and all(p.requires_grad for p in o.model.parameters())
    assert u.download_pretrained('not-there')==home/'not-there-fwd' and len(server.asked)==1

def test_folder_of_ours_from_elsewhere(learn, home, monkeypatch):
    folder = learn.export('out', dtype='int8')
    server = Server(tgz({f'm-fwd/{o.name}':o.read_bytes() for o in folder.iterdir()}))
    offer(monkeypatch, server, name='m-fwd')
    assert u.load_language_model(u.download_pretrained('m')).vocab==learn.vocab

def test_saved_weights_can_be_read_by_others(tmp_path):
    u.save_weights(tmp_path/'a.safetensors', {'w':torch.zeros(2)}, {})
    (tmp_path/'b').write_text('')
    assert (tmp_path/'a.safetensors').stat().st_mode==(tmp_path/'b').stat().st_mode
