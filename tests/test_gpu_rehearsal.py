"""The GPU path without a GPU, on tensors that pretend to be on one: nothing is mixed, nobody waits more than said, and
16 bits are the ones that were asked for"""
import json, math
import numpy as np, pandas as pd, pytest, torch
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from fastai.basics import Callback, CategoryBlock, ColReader, ColSplitter, DataBlock, accuracy
from torch import nn
from pretend import Card, cuda, on_card
import ulmfit_nb.generation
from ulmfit_nb import cli
from ulmfit_nb.awd_lstm import *
from ulmfit_nb.batching import *
from ulmfit_nb.classifier import *
from ulmfit_nb.ensemble import *
from ulmfit_nb.estimator import ULMFiTClassifier
from ulmfit_nb.interpret import *
from ulmfit_nb.inference import *
from ulmfit_nb.learner import *
from ulmfit_nb.metrics import *
from ulmfit_nb.language_model import *
from ulmfit_nb.tokenization import Tokenizer, WordTokenizer
from ulmfit_nb.checkpoint import Checkpointer
from ulmfit_nb.pretraining import lm_loss, pretrain

formats = ['fp32','fp16','bf16']
words = [f'w{i}' for i in range(60)]
small = dict(emb_sz=8, n_hid=12, n_layers=2)

def some_texts(n, seed=0):
    rng = np.random.default_rng(seed)
    return [' '.join(rng.choice(words, rng.integers(4, 30))) for _ in range(n)]

df = pd.DataFrame(dict(text=some_texts(32), label=['a','b']*16, is_valid=[i%8>5 for i in range(32)]))
texts = df.text[:10].tolist()

tokenizer = Tokenizer(WordTokenizer()) # one for all: to make it takes half a second

@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch): monkeypatch.setattr(Tokenizer, 'from_config', lambda *a, **k: tokenizer)

@pytest.fixture
def card():
    torch.manual_seed(0)
    with Card() as c: yield c

def lm_learner(path, device='cuda', **kw):
    block = TextBlock(tokenizer, is_lm=True)
    dls = DataBlock(block, get_x=ColReader('text'), splitter=ColSplitter()).dataloaders(df, bs=8, seq_len=12, path=path,
        device=torch.device(device))
    return language_model_learner(dls, AWD_LSTM, config=small, pretrained=False, **kw)

def clas_learner(path, device='cuda', vocab=None, **kw):
    blocks = TextBlock(tokenizer, vocab or [*special, *words]),CategoryBlock
    dblock = DataBlock(blocks, get_x=ColReader('text'), get_y=ColReader('label'), splitter=ColSplitter())
    dls = dblock.dataloaders(df, bs=5, seq_len=10, path=path, device=torch.device(device))
    return text_classifier_learner(dls, AWD_LSTM, config=small, pretrained=False, metrics=accuracy, max_len=20, **kw)
special = 'xxunk xxpad xxbos xxeos xxfld xxrep xxwrep xxup xxmaj'.split()

@contextmanager
def silent(learn):
    with learn.no_bar(), learn.no_logging(): yield

def fit(learn, n=1, cbs=None):
    with silent(learn): learn.fit_one_cycle(n, 1e-2, cbs=cbs)
    assert learn.device.type=='cuda' and all(p.isfinite().all() for p in learn.model.parameters())

class Steps(Callback):
    "Waits of each training step, from one to the next"
    order = 1000
    def __init__(self, card): self.card,self.seen,self.last = card,[],None
    def before_train(self): self.last = None
    def after_batch(self):
        if not self.training: return
        if self.last is not None: self.seen.append(self.card.waits-self.last)
        self.last = self.card.waits.copy()

def waits_of(card, learn, cbs=()):
    "The most waits in a step"
    steps = Steps(card)
    fit(learn, cbs=[steps, *cbs])
    assert len(steps.seen)>=3
    worst = max(steps.seen, key=lambda o: o.total())
    print(learn.model.__class__.__name__, dict(worst))
    return worst.total()

# The stage itself

def test_mixing_is_seen(card):
    x = torch.randn(3, 4).to('cuda')
    assert (x@x.T).device==cuda and not x.cpu().is_cuda and torch.zeros(2, device=x.device).is_cuda
    (x*2+1.5+torch.tensor(2.)).sum() # numbers may come from the host
    for f in (lambda: x+torch.randn(3, 4), lambda: torch.cat([x, torch.randn(3, 4)]), lambda: nn.Linear(4, 2)(x),
        lambda: x.numpy(),
            lambda: torch.randn(3).add_(x[:,0]), lambda: torch.multinomial(x.abs(), 1,
            generator=torch.Generator().manual_seed(1))):
        with pytest.raises((RuntimeError,TypeError), match='device|cuda'): f()
    layer = nn.Linear(4, 2).to('cuda')
    layer(x).sum().backward()
    assert layer.weight.grad.is_cuda

def test_a_mixed_device_fails_the_rehearsal(card, tmp_path):
    class Host(Callback):
        def after_pred(self): self.learn.pred = self.pred*torch.ones(self.pred.shape)
    with pytest.raises(RuntimeError, match='same device'): fit(clas_learner(tmp_path), cbs=Host())

def test_a_wait_is_counted(card, tmp_path):
    x = torch.arange(6.).to('cuda')
    for f in (lambda: float(x[0]), lambda: x.tolist(), lambda: x[x>2], lambda: x.nonzero(), lambda: x.cpu(),
        lambda: torch.tensor(1., device='cuda'), lambda: torch.zeros(2).to('cuda'),
            lambda: torch.equal(x, x), lambda: bool(x.any()), lambda: x[torch.tensor([1,2])],
            lambda: torch.zeros(2).to('cuda', non_blocking=True), torch.cuda.synchronize):
        card.reset()
        f()
        assert card.waits.total()==1, card.waits
    card.reset()
    torch.zeros(2).pin_memory().to('cuda', non_blocking=True)+x[:2]
    assert not card.waits
    class Look(Callback):
        def after_loss(self): float(self.loss)
    assert waits_of(card, clas_learner(tmp_path).to_fp16(), [Look()])==waits_of(card,
        clas_learner(tmp_path).to_fp16())+1

def test_without_the_stage_all_is_as_before():
    with Card(): pass
    assert torch.zeros(2).device.type=='cpu' and not torch.is_autocast_enabled('cpu') and torch.Generator(
        ).device.type=='cpu'
    if not torch.cuda.is_available(): assert pick_device().type=='cpu'

# Training

@pytest.mark.parametrize('precision', formats)
def test_language_model(card, tmp_path, precision):
    "Trains in the format that was asked for, waits once a step at most, and can be stored, read and used"
    learn = lm_learner(tmp_path, metrics=[accuracy]).to_precision(precision)
    card.reset()
    assert waits_of(card, learn)<=1
    assert set(card.lstms)=={dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)[precision]}
    learn.save('x')
    learn.load('x').to_fp32()
    learn.save_encoder('enc')
    assert learn.device==cuda and len(learn.get_preds()[0]) and len(learn.validate())==2
    assert math.isfinite(lm_loss(learn, learn.dls.valid, precision))

@pytest.mark.parametrize('precision', formats)
def test_classifier(card, tmp_path, precision):
    lm = lm_learner(tmp_path)
    lm.save_encoder('enc')
    learn = clas_learner(tmp_path, vocab=lm.vocab).to_precision(precision).load_encoder('enc')
    learn.unfreeze()
    card.reset()
    assert waits_of(card, learn)<=2
    assert set(card.lstms)=={dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)[precision]}
    fit(clas_learner(tmp_path, class_weight='balanced').to_precision(precision))

def test_gradients_that_float16_loses(card):
    "bfloat16 really is one: gradients that are zero in float16 come through"
    enc = AWD_LSTM(60, 8, 12, 1, weight_p=.1).to('cuda')
    ids = torch.arange(40).reshape(4, 10).to('cuda')
    def grad(dtype):
        enc.zero_grad()
        enc.reset()
        with torch.autocast('cuda', dtype): out = enc(ids)
        (out.float().mean()*1e-7).backward()
        return enc.rnns[0].weight_ih_l0.grad
    assert not grad(torch.float16).any() and grad(torch.bfloat16).ne(0).float().mean()>.5
    enc.eval()
    with torch.autocast('cuda', torch.bfloat16): assert enc(ids).dtype==torch.bfloat16 # reading, too

def test_format_is_that_of_the_card(tmp_path):
    for bf16,cudnn,want in ((True,91300,'bf16'), (True,91002,'fp16'), (False,91300,'fp16')):
        with Card(bf16, cudnn): assert best_precision('cuda')==want and pick_device()==torch.device('cuda')
    with Card(cudnn=90100) as card:
        fit(clas_learner(tmp_path).to_precision())
        assert set(card.lstms)=={torch.float16}

def test_overflow_leaves_a_step_out(card, tmp_path):
    "As fastai does it: the step is skipped, the scale halved"
    class Big(Callback):
        order = 12
        def before_fit(self): self.before,self.scales = None,[]
        def after_loss(self):
            if self.training and self.learn.iter==1: self.learn.loss_grad = self.learn.loss_grad*1e38*1e10
        def before_batch(self): self.before = [p.detach().clone() for p in self.model.parameters()]
        def after_batch(self):
            if not self.training: return
            same = all(torch.equal(a, b) for a,b in zip(self.before, self.model.parameters()))
            self.scales.append((self.learn.scaler.get_scale(), same))
    learn,big = clas_learner(tmp_path).to_fp16(init_scale=16.),Big()
    fit(learn, cbs=big)
    assert big.scales[:3]==[(16.,False), (8.,True), (8.,False)]

def test_like_the_cpu(tmp_path):
    "The same weights after some steps as on the CPU, but for TF32"
    def trained(device, make, precision='fp32'):
        torch.manual_seed(3)
        learn = make(tmp_path, device)
        learn.unfreeze()
        learn.dls.train.rng.seed(1)
        with silent(learn): learn.to_precision(precision).fit(1, 1e-2)
        return [p.detach().cpu() for p in learn.model.parameters()]
    for make in (lm_learner, clas_learner):
        want = trained('cpu', make)
        with Card(): res = {k:trained('cuda', make, k) for k in formats}
        for k,eps in (('fp32',5e-3), ('fp16',3e-2), ('bf16',6e-2)):
            assert max((a-b).abs().mean() for a,b in zip(res[k], want))<eps, k

# Stopping and going on

class Stop(Callback):
    order = 300
    def after_batch(self):
        if self.learn.train_iter==3: raise KeyboardInterrupt

@pytest.mark.parametrize('make', [lm_learner, clas_learner])
@pytest.mark.parametrize('precision', formats)
def test_checkpoint(card, tmp_path, precision, make):
    "A training that was stopped ends where one ends that wasn't; started again when it is over, it is over"
    def learner(name):
        torch.manual_seed(3)
        learn = make(tmp_path).to_precision(precision)
        learn.dls.train.rng.seed(1)
        return learn,partial(Checkpointer, name, steps=2)
    whole,ckpt = learner('whole')
    fit(whole, 2, ckpt())
    stopped,ckpt = learner('stopped')
    with pytest.raises(KeyboardInterrupt): fit(stopped, 2, [ckpt(), Stop()])
    for _ in range(2):
        again,ckpt = learner('stopped')
        fit(again, 2, ckpt())
        for (k,a),b in zip(again.model.named_parameters(), whole.model.parameters()): assert torch.equal(a, b), k

@pytest.mark.parametrize('precision', ['fp16','bf16'])
def test_pretrain(tmp_path, precision):
    "Stopped, gone on, exported; a rerun finds all done"
    file = tmp_path/'texts.jsonl'
    file.write_text('\n'.join(json.dumps(dict(text=o)) for o in some_texts(100)), encoding='utf8')
    args = dict(size='tiny', config=small, bs=8, seq_len=10, min_freq=1, valid=.1, log_every=5, eval_every=12,
        checkpoint_steps=3, device='cuda')
    with Card(bf16=precision=='bf16') as card:
        learn = pretrain(file, tmp_path/'whole', **args)
        assert set(card.lstms)=={dict(fp16=torch.float16, bf16=torch.bfloat16)[precision]}
        write = ulmfit_nb.pretraining._Run.write_loss
        with pytest.MonkeyPatch.context() as m:
            def stop(self):
                write(self)
                if self.learn.train_iter==10: raise KeyboardInterrupt
            m.setattr(ulmfit_nb.pretraining._Run, 'write_loss', stop)
            with pytest.raises(KeyboardInterrupt): pretrain(file, tmp_path/'out', **args)
        for _ in range(2): again = pretrain(file, tmp_path/'out', **args)
        for a,b in zip(again.model.parameters(), learn.model.parameters()): assert torch.equal(a, b)
        assert load_language_model(tmp_path/'out'/'model').device==cuda

# Using

@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    "A language model and a classifier, exported on the host"
    d = tmp_path_factory.mktemp('models')
    torch.manual_seed(0)
    lm = lm_learner(d, 'cpu')
    return dict(path=d, lm=lm.export('lm'), clas=clas_learner(d, 'cpu', vocab=lm.vocab).export('clas'))

def test_loaded_where_it_was_asked_for(card, folders):
    for f,k in ((load_language_model,'lm'), (load_classifier,'clas'), (load_learner,'lm'), (load_learner,'clas')):
        assert f(folders[k]).device==cuda and f(folders[k], device='cpu').device==torch.device('cpu')
    Ensemble([load_classifier(folders['clas'])]).save(folders['path']/'ens')
    assert Ensemble.load(folders['path']/'ens').learners[0].device==cuda and Ensemble.load(folders['path']/'ens',
        device='cpu').learners[0].device.type=='cpu'

def test_language_model_writes_and_scores(card, folders):
    lm = load_language_model(folders['lm'])
    assert len(lm.generate(['w1 w2','w3'], 5, seed=1))==2 and lm.generate(['w1'], 3,
        beams=2) and ''.join(lm.stream('w1', 3, seed=1))
    assert lm.generate(['w1'], 3, bf16=True)
    here,there = load_language_model(folders['lm'], device='cpu').score(texts),lm.score(texts)
    assert np.allclose(here.log_likelihood, there.log_likelihood, rtol=1e-3)

def test_prediction(card, folders, monkeypatch):
    "The host's answers, one wait a batch, and 16 bits where the card has them, whatever the processor has"
    clas = load_classifier(folders['clas'])
    want = load_classifier(folders['clas'], device='cpu').predict_proba(df.text, progress=False)
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: False)
    for bf16,dtype,eps in ((False,torch.float32,1e-4), (True,torch.bfloat16,1e-2)):
        card.reset()
        got = clas.predict_proba(df.text, bs=8, bf16=bf16, progress=False)
        assert card.waits.total()<=6, card.waits
        assert not got.is_cuda and (got-want).abs().max()<eps and set(card.lstms)=={dtype}
    assert clas.predict(texts[0])[0] in ('a','b')
    with clas.no_bar(): assert (clas.get_preds(dl=clas.dls.test_dl(texts))[0]-want[:len(texts)]).abs().max()<1e-4
    with Card(bf16=False) as old:
        load_classifier(folders['clas']).predict_proba(texts, bf16=True)
        assert set(old.lstms)=={torch.float16}

def test_interpretation_of_a_loaded_classifier(card, folders):
    clas = load_classifier(folders['clas'])
    a,b = (attribute(o, texts[0], n_steps=8) for o in (clas, load_classifier(folders['clas'], device='cpu')))
    assert np.allclose(a.shares, b.shares, atol=1e-3)
    moved = load_classifier(folders['clas'], device='cpu')
    moved.model.to('cuda') # without a word to its loaders
    assert np.allclose(attribute(moved, texts[0], n_steps=8).shares, b.shares, atol=1e-3)
    labels = df.label[:10].tolist()
    assert len(deletion_test(clas, texts[:2], n_steps=4))==2 and len(top_losses(clas, texts,
        labels)) and len(text_report(clas, texts, labels))
    assert confusion_table(clas, texts, labels).to_numpy().sum()==10

def test_ensemble(card, folders):
    ens = Ensemble([load_classifier(folders['clas']) for _ in range(2)]).calibrate(texts, df.label[:10].tolist())
    assert len(ens.predict(texts))==10

def test_gradual_unfreezing(card, tmp_path):
    learn = clas_learner(tmp_path).to_precision()
    with silent(learn):
        learn.fit_gradual((1,0,0,1), monitor='accuracy', seed=1,
            per_step={i:dict(cbs=[Checkpointer(f's{i}', steps=3)]) for i in range(4)})
    assert learn.device==cuda

def test_estimator(card, tmp_path):
    "16 bits unless told, checkpoints, a folder that is read on either side"
    clf = ULMFiTClassifier(pretrained=False, size='tiny', lm_epochs=1, epochs=(1,0,0,1), bs=8, seq_len=10,
        validation_fraction=.3, checkpoint_dir=tmp_path/'c', min_freq=1)
    train = df
    clf.fit(train.text, train.label)
    assert set(card.lstms)=={torch.bfloat16,torch.float32} # what it was trained in, and what it answers in
    card.reset()
    clf.set_params(bf16=False, epochs=(1,0,0,0)).fit(train.text, train.label)
    assert set(card.lstms)=={torch.float32}
    clf.save(tmp_path/'clf')
    for device in (None,'cpu'):
        again = ULMFiTClassifier.load(tmp_path/'clf', device)
        assert np.allclose(again.predict_proba(texts), clf.predict_proba(texts),
            atol=1e-3) and again.language_model().device.type==(device or 'cuda')

def test_commands(folders, capsys):
    "`ulmfit predict` takes what it is told; a few texts need no card"
    def say(*args):
        with pytest.raises(SystemExit) as e: cli.main(list(args))
        return e.value.code,capsys.readouterr()
    ask = 'predict',str(folders['clas']),'--json'
    with Card() as card: code,out = say(*ask, '--', texts[0])
    assert not code and not card.lstms
    with Card() as card: code,out = say(*ask, '--device', 'cuda', '--', texts[0])
    assert not code and card.lstms
    with Card() as card: code,other = say(*ask, '--device', 'cpu', '--', texts[0])
    assert not code and not card.lstms
    assert json.loads(out.out)[0]['p_a']==pytest.approx(json.loads(other.out)[0]['p_a'], abs=1e-3)
    with Card() as card: code,out = say('generate', str(folders['lm']), 'w1', '--n-words', '3', '--json')
    assert not code and card.lstms and json.loads(out.out)
    if torch.cuda.is_available(): return
    code,out = say(*ask, '--device', 'cuda', '--', texts[0])
    assert code==1 and 'no GPU here' in out.err

def test_imdb_page(tmp_path, monkeypatch, capsys):
    "The cells of page 20 as a card would run them, at the smallest size"
    rng,label = np.random.default_rng(0),['neg','pos']
    def review(i):
        return dict(text=' '.join(rng.choice(words, rng.integers(8, 25))), label=label[i%2], rating=0, movie=f'm{i//4}',
            id=i)
    for part in ('train','test','unsup'):
        (tmp_path/f'{part}.jsonl').write_text('\n'.join(json.dumps(review(i)) for i in range(48)), encoding='utf8')
    monkeypatch.setenv('ULMFIT_IMDB', str(tmp_path))
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    monkeypatch.chdir(Path(__file__).parent.parent/'nbs'/'book')
    cells = json.loads((Path(__file__).parent.parent/'nbs'/'book'/'12_imdb.ipynb').read_text(encoding='utf8'))['cells']
    def at(heading): return next(i for i,c in enumerate(cells) if ''.join(c['source']).startswith(heading))
    imports = next(c for c in cells if 'ulmfit_nb.all' in ''.join(c['source']))
    space = {}
    with Card() as card:
        for c in [imports, *cells[at('## One cell of settings'):at('## With 2,000 labels')]]:
            if c['cell_type']!='code' or '#| eval: false' in ''.join(c['source']): continue
            exec(compile(''.join(c['source']), f"page 20, cell {c['id']}", 'exec'), space)
            if 'on_gpu =' in ''.join(c['source']):
                assert space['on_gpu'] and space['cfg']['n_labelled'] is None
                space['cfg'].update(max_vocab=100, config=small, bs=8, seq_len=10, lm_epochs=1, valid=.25,
                    recipe=dict(epochs=(1,0,0,1), lrs=(1e-2,)*4))
    assert set(card.lstms)=={torch.bfloat16,torch.float32} and len(space['results'])==3
