"Pretraining as a function; checkpoints that survive `kill -9`, and those that must not be used"
import gzip, json, lzma, os, random, shutil, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from fastai.text import all as fa
from safetensors.torch import load_file, save_file
from ulmfit_nb import checkpoint as ck, pretraining as pt
from ulmfit_nb.batching import TextDataLoaders
from ulmfit_nb.awd_lstm import AWD_LSTM, awd_lstm_lm_config, get_language_model
from ulmfit_nb.language_model import language_model_learner, load_language_model
from ulmfit_nb.numericalization import Corpus
from ulmfit_nb.texts import sentences
from ulmfit_nb.tokenization import Tokenizer

tiny = dict(emb_sz=8, n_hid=12)

def killed(kind, kills, folder):
    """The report of `killed.py`, which runs in a process of its own because it forks; the seed of its kills is in what
    a failure shows"""
    env,seed = os.environ | {'OMP_NUM_THREADS':'1'},random.SystemRandom().randrange(10**6)
    r = subprocess.run([sys.executable, Path(__file__).with_name('killed.py'), kind, str(kills), str(seed), folder],
        capture_output=True, text=True, env=env)
    assert r.returncode==0, f'seed {seed}: {r.stderr[-3000:]}'
    return dict(json.loads(r.stdout.splitlines()[-1]), seed=seed)

@pytest.mark.parametrize('kind', ['finetune','sampled','pretrain'])
def test_killed_training_ends_with_the_same_weights(kind, tmp_path):
    res = killed(kind, 3, tmp_path)
    assert res['kills']>0 and res['differ']==[] and res['tensors']>40, res
    assert len(res['left'])<=1, res # what the last kill left behind goes with the next checkpoint

@pytest.mark.slow
@pytest.mark.parametrize('kind', ['finetune','sampled','backwards','bf16','classify','pretrain'])
def test_killed_twenty_times(kind, tmp_path):
    kills = 0
    for i in range(20):
        res = killed(kind, 20-kills, tmp_path/str(i))
        assert res['differ']==[], res
        kills += res['kills']
        if kills>=20: break
    assert kills>=20

@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
    "A folder with a checkpoint in the middle of training"
    path = tmp_path_factory.mktemp('stopped')
    class Stop(fa.Callback):
        order = 300
        def after_batch(self):
            if self.learn.train_iter==20: raise KeyboardInterrupt
    learn = learner(path)
    with pytest.raises(KeyboardInterrupt), learn.no_bar():
        learn.fit_one_cycle(1, 1e-2, cbs=[pt.Checkpointer('ck', steps=5), Stop()])
    return path

def learner(path, n=300, bs=8, seq_len=12, backwards=False, config=tiny, **kwargs):
    fa.set_seed(1)
    dls = TextDataLoaders.from_df(sentences()[:n][['text']], path=path, is_lm=True, bs=bs, seq_len=seq_len, seed=1,
        backwards=backwards)
    return language_model_learner(dls, AWD_LSTM, config=config, pretrained=False, **kwargs)

def start_again(path, to, lr=1e-2, epochs=1, **kwargs):
    shutil.copytree(path/'models', to/'models')
    learn = learner(to, **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, lr, cbs=pt.Checkpointer('ck', steps=5))
    return learn

def test_goes_on_in_the_middle(stopped, tmp_path):
    learn = start_again(stopped, tmp_path)
    whole = learner(tmp_path/'whole')
    with whole.no_bar(), whole.no_logging(): whole.fit_one_cycle(1, 1e-2)
    assert [float(o) for o in learn.recorder.losses]==[float(o) for o in whole.recorder.losses]
    assert [float(o) for o in learn.recorder.hps['mom']]==[float(o) for o in whole.recorder.hps['mom']]
    for (k,a),b in zip(learn.model.state_dict().items(), whole.model.state_dict().values()): assert torch.equal(a, b), k

mismatches = {
    'other data': (dict(n=310), 'data'),
    'batch size': (dict(bs=4), 'batch size was 8, here it is 4'),
    'seq_len': (dict(seq_len=10), 'seq_len was 12, here it is 10'),
    'direction': (dict(backwards=True), 'direction was forwards, here it is backwards'),
    'sizes': (dict(config=dict(emb_sz=8, n_hid=16)), 'architecture 0.rnns.0.weight_ih_l0 0 was 48, here it is 64'),
    'dropout': (dict(drop_mult=.5), 'dropout 0.encoder_dp.embed_p was 0.02, here it is 0.01'),
    'schedule': (dict(lr=2e-2), 'schedule of lr'),
    'epochs': (dict(epochs=2), 'epochs was 1, here it is 2'),
    'weight decay': (dict(wd=.5), 'optimizer 0 wd'),
}

@pytest.mark.parametrize('name', mismatches)
def test_other_training_is_refused(stopped, tmp_path, name):
    kwargs,says = mismatches[name]
    with pytest.raises(ValueError, match='is from another training') as e: start_again(stopped, tmp_path, **kwargs)
    assert says in str(e.value) and 'ck.ckpt' in str(e.value) and 'resume=False' in str(e.value)

def test_other_vocabulary_is_named(stopped, tmp_path):
    state = pt.load_checkpoint(stopped/'models'/'ck.ckpt')
    state['identity']['vocabulary'][9] = 'old'
    pt.save_checkpoint(tmp_path/'old'/'models'/'ck.ckpt', state)
    with pytest.raises(ValueError, match='vocabulary 9 was old, here it is '): start_again(tmp_path/'old', tmp_path)

def flip(b, at): return b[:at]+bytes([b[at]^255])+b[at+1:]
damages = {
    'empty': lambda b: b'', 'cut in the header': lambda b: b[:300], 'cut in the data': lambda b: b[:-100],
    'no checkpoint': lambda b: b'hello '*1000,
    'a byte of the data': lambda b: flip(b, -50), 'a byte of the state': lambda b: b.replace(b'train_iter',
    b'train_itez', 1),
}

@pytest.mark.parametrize('name', damages)
def test_damaged_file_is_refused(stopped, tmp_path, name):
    whole = (stopped/'models'/'ck.ckpt').read_bytes()
    bad = damages[name](whole)
    assert bad!=whole
    (tmp_path/'bad.ckpt').write_bytes(bad)
    with pytest.raises(ValueError, match='bad.ckpt') as e: pt.load_checkpoint(tmp_path/'bad.ckpt')
    assert 'delete it to start from the beginning' in str(e.value)

def test_every_cut_is_refused(tmp_path):
    "No prefix of a checkpoint passes for one"
    pt.save_checkpoint(tmp_path/'a.ckpt', dict(a=torch.arange(20), b=[1.5,'x',None,True], c=dict(d=np.arange(3.))))
    whole = (tmp_path/'a.ckpt').read_bytes()
    for n in range(0, len(whole), 7):
        (tmp_path/'b.ckpt').write_bytes(whole[:n])
        with pytest.raises(ValueError): pt.load_checkpoint(tmp_path/'b.ckpt')

def test_state_comes_back(tmp_path):
    w = torch.randn(3,4)
    s = dict(w=w, tied=w, empty=torch.zeros(0), row=w[1], half=w.bfloat16(), n=[1,2.5,None,True,'é'], d={'x':{'y':[]}},
        a=np.arange(3, dtype=np.int32), scalar=np.float64(.1))
    pt.save_checkpoint(tmp_path/'s.ckpt', s)
    r = pt.load_checkpoint(tmp_path/'s.ckpt')
    for k in ('w','tied','empty','row','half'): assert torch.equal(r[k], s[k]) and r[k].dtype==s[k].dtype
    assert r['n']==s['n'] and r['d']==s['d'] and r['a'].tolist()==[0,1,2] and r['scalar']==.1
    assert len(load_file(tmp_path/'s.ckpt'))==5 # the tied one is stored once

def test_no_code_in_a_checkpoint(tmp_path):
    with pytest.raises(TypeError, match='function cannot be kept'):
        pt.save_checkpoint(tmp_path/'f.ckpt', dict(f=len.__class__ and (lambda: 0)))
    assert not list(tmp_path.iterdir())

def test_random_state_of_all():
    def draw(): return random.random(),np.random.rand(),np.random.randn(),float(torch.rand(1)),float(torch.randn(1))
    random.gauss(0, 1), np.random.randn() # both keep a second number in store
    state = ck._unpack(*[json.loads(json.dumps(ck._pack(pt.random_state(), t:={}, {}))), t])
    a = draw(),random.gauss(0, 1)
    draw()
    pt.set_random_state(state)
    assert (draw(),random.gauss(0, 1))==a

# texts and corpus

def packed(path, texts):
    for suffix,opener in (('',open),('.xz',lzma.open),('.gz',gzip.open)):
        with opener(path/f't.jsonl{suffix}', 'wt', encoding='utf8') as f:
            f.writelines(json.dumps(dict(text=t))+'\n' for t in texts)

def test_corpus_is_reused_until_something_changes(tmp_path, monkeypatch):
    packed(tmp_path, ['a b c d a b']*5)
    src,made = tmp_path/'t.jsonl',[]
    original = Corpus.from_texts
    monkeypatch.setattr(Corpus, 'from_texts', lambda *a, **k: made.append(1) or original(*a, **k))
    def prepare(**kw): return pt.prepare_corpus(src, tmp_path/'corpus', **kw)
    a = prepare()
    b = prepare()
    assert len(made)==1 and a.vocab==b.vocab and (a.ids==b.ids).all() and (a.ids==original(['a b c d a b']*5,
        Tokenizer(), min_freq=3, max_vocab=20000).ids).all()
    prepare(min_freq=6)
    assert len(made)==2
    prepare()
    assert len(made)==3
    packed(tmp_path, ['a b c d a c']*5)
    c = prepare()
    assert len(made)==4 and c.text(0)=='a b c d a c'
    # a corpus is taken as it is
    assert pt.prepare_corpus(tmp_path/'corpus', tmp_path/'other').fingerprint==c.fingerprint and len(made)==4
    with pytest.raises(ValueError, match="no tokenizer 'letters'"): prepare(tokenizer='letters')

def test_documents_kept_aside():
    c = Corpus(np.zeros(1000, np.int32), np.arange(0, 1001, 10), ['a'])
    train,aside = pt._aside(c, 100, 0)
    assert 10<=len(aside)<=11 and sorted([*train,*aside])==list(range(100))
    assert len(pt._aside(c, .25, 0)[1]) in (25,26) and len(pt._aside(c, 10**6, 0)[1])<=11 # at most a tenth
    assert [o.tolist() for o in pt._aside(c, 100, 0)]==[o.tolist() for o in (train,aside)]!=[o.tolist()
        for o in pt._aside(c, 100, 1)]
    less,same = pt._aside(c, 100, 0, 200)
    assert same.tolist()==aside.tolist() and set(less)<=set(train) and 19<=len(less)<=21

# the whole

@pytest.fixture(scope='module')
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp('text')/'s.jsonl'
    sentences()[:1000][['text']].to_json(path, orient='records', lines=True)
    return path

small = dict(config=tiny, bs=8, seq_len=12, vocab_sz=600)

@pytest.mark.parametrize('tokenizer,backwards', [('word',False),('subword',True)])
def test_pretrained_folder_is_a_start(text, tmp_path, tokenizer, backwards):
    learn = pt.pretrain(text, tmp_path, tokenizer=tokenizer, backwards=backwards, log_every=10, eval_every=30, **small)
    log = [json.loads(o) for o in (tmp_path/'log.jsonl').read_text().splitlines()]
    losses = [o['loss'] for o in log if 'loss' in o]
    valid = [o['valid_loss'] for o in log if 'valid_loss' in o]
    assert losses[-1]<losses[0]-.3 and valid[-1]<valid[0] and len(valid)==len(learn.dls.train)//30+1
    assert log[-1]['step']==len(learn.dls.train) and log[-1]['tokens']==learn.dls.train.bl*8
    again = load_language_model(tmp_path/'model')
    assert again.spec['config']['emb_sz']==8 and again.dls.backwards==backwards
    assert pt.lm_loss(again, learn.dls.valid)==pytest.approx(valid[-1], abs=1e-3)
    assert json.loads((tmp_path/'model'/'model.json').read_text())['pretraining']['tokens']==log[-1]['tokens']
    dls = TextDataLoaders.from_df(sentences()[1000:1200][['text']], path=tmp_path, is_lm=True, bs=8, seq_len=12,
        backwards=backwards, tok_tfm=again.dls.train_ds.tokenizer.tok, seed=1)
    start = language_model_learner(dls, AWD_LSTM, pretrained=tmp_path/'model')
    zero = language_model_learner(dls, AWD_LSTM, pretrained=False, config=tiny)
    assert pt.lm_loss(start, dls.valid)<pt.lm_loss(zero, dls.valid)-.3

def test_cycle_is_complete_when_the_time_is_over(text, tmp_path):
    learn = pt.pretrain(text, tmp_path, max_time=.05, epochs=1000, log_every=1, **small)
    log = [json.loads(o) for o in (tmp_path/'log.jsonl').read_text().splitlines()]
    lrs = [o['lr'] for o in log if 'lr' in o]
    assert lrs[-1]<.1*max(lrs) and max(lrs)>4e-3 and lrs[0]<1e-3 and log[-1]['step']<1000*len(learn.dls.train)/10

def test_a_line_of_the_log_is_written_once(text, tmp_path, monkeypatch):
    "A process that ends after its last step, before the validation, has written the line that the next one writes"
    class Dies(Exception): pass
    def dies(self): raise Dies('now')
    args = dict(eval_every=10**6, log_every=7, checkpoint_steps=1, **small)
    with monkeypatch.context() as m, pytest.raises(Dies):
        m.setattr(pt._Run, 'validate', dies)
        pt.pretrain(text, tmp_path, **args)
    before = [json.loads(o) for o in (tmp_path/'log.jsonl').read_text().splitlines()]
    pt.pretrain(text, tmp_path, **args)
    after = [json.loads(o) for o in (tmp_path/'log.jsonl').read_text().splitlines()]
    steps = [o['step'] for o in after if 'loss' in o]
    last = after[-1]
    assert steps==[o['step'] for o in before] and last['valid_loss'] and 'resumed' in [o.get('event') for o in after]

def test_validation_leaves_the_model_as_it_was(text, tmp_path):
    a = pt.pretrain(text, tmp_path/'a', eval_every=3, **small)
    b = pt.pretrain(text, tmp_path/'b', eval_every=10**6, **small)
    for (k,v),w in zip(a.model.state_dict().items(), b.model.state_dict().values()): assert torch.equal(v, w), k

def test_loss_is_torchs(text, tmp_path):
    learn = pt.pretrain(text, tmp_path, bf16=False, **small)
    model = learn.model.eval()
    model.reset()
    with torch.no_grad():
        res = [(torch.nn.functional.cross_entropy(model(x.as_subclass(torch.Tensor))[0].flatten(0,1),
            y.as_subclass(torch.Tensor).flatten()).item(), y.numel()) for x,y in learn.dls.valid]
    assert pt.lm_loss(learn, learn.dls.valid)==pytest.approx(sum(l*n for l,n in res)/sum(n for _,n in res), abs=1e-5)

def test_wrong_arguments(text, tmp_path):
    with pytest.raises(ValueError, match='tiny, compact, full'): pt.pretrain(text, tmp_path, size='huge')
    for k in ('vocab_sz','epochs','bs','seq_len','eval_every','log_every'):
        with pytest.raises(ValueError, match=f'{k} is 0, but must be 1 or more'):
            pt.pretrain(text, tmp_path/'never', **{**small, k:0})
    assert not (tmp_path/'never').exists()
    with pytest.raises(ValueError, match='other training|another training'):
        pt.pretrain(text, tmp_path/'a', **small)
        pt.pretrain(text, tmp_path/'a', **{**small, 'bs':4})

@pytest.mark.parametrize('device,times', [('cpu', 2), ('cuda', 0)])
def test_free_memory_goes_back_in_a_long_training(device, times, monkeypatch):
    "Every 200 batches, on a CPU"
    from types import SimpleNamespace
    from ulmfit_nb.learner import TextLearner
    seen,given = [],[]
    monkeypatch.setattr(ck, 'trim_memory', lambda: given.append(len(seen)))
    TextLearner.all_batches(SimpleNamespace(dl=range(450), device=torch.device(device),
        one_batch=lambda i,b: seen.append(i)))
    assert seen==list(range(450)) and given==[200,400][:times]

def test_a_corpus_in_memory(tmp_path):
    "It is kept in the folder, so that a killed training finds it again"
    corpus = Corpus.from_texts(sentences().text[:200], Tokenizer(), min_freq=2)
    learn = pt.pretrain(corpus, tmp_path, config=tiny, bs=8, seq_len=12)
    assert Corpus.open(tmp_path/'corpus').fingerprint==corpus.fingerprint and learn.vocab[:5]==corpus.vocab[:5]

def test_nothing_kept_aside_is_no_perfect_model(text, tmp_path):
    learn = pt.pretrain(text, tmp_path, valid=0, **small)
    assert learn.spec['pretraining']['valid_loss'] is None
    assert not any('valid_loss' in o for o in (tmp_path/'log.jsonl').read_text().splitlines())
    load_language_model(tmp_path/'model')
