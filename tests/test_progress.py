"""What is seen of a training: bars at a terminal, a line per epoch in a file, nothing where that is asked for; and
fastai's loggers"""
import csv, os, subprocess, sys, types
import pandas as pd, pytest
from fastai.basics import Learner, defaults
from fastai.callback.progress import CSVLogger, ProgressCallback
from fastai.metrics import accuracy
from conftest import root
from ulmfit_nb.all import (AWD_LSTM, TextDataLoaders, TextProgress, language_model_learner, sentences,
    text_classifier_learner)

small = dict(emb_sz=8, n_hid=8, n_layers=2)

@pytest.fixture(scope='module')
def dls(tmp_path_factory):
    df = sentences().sample(60, random_state=0).assign(is_valid=[False]*40+[True]*20)
    return TextDataLoaders.from_df(df, text_col='text', label_col='label', valid_col='is_valid',
        path=tmp_path_factory.mktemp('progress'), bs=16)

def learner(dls, **kwargs):
    return text_classifier_learner(dls, AWD_LSTM, config=small, pretrained=False, metrics=accuracy, **kwargs)

script = '''
import sys, warnings
warnings.filterwarnings('ignore')
from pathlib import Path
from ulmfit_nb.all import *
from ulmfit_nb.checkpoint import Checkpointer
some = sentences().sample(80, random_state=0)
dls = TextDataLoaders.from_df(some, text_col='text', is_lm=True, bs=8, seq_len=16, seed=1, path=Path(sys.argv[1]))
def learner(): 
    set_seed(1)
    return language_model_learner(dls, AWD_LSTM, config=dict(emb_sz=8, n_hid=8, n_layers=2), pretrained=False)
class Stop(Callback):
    order = 300
    def after_batch(self):
        if self.epoch==1 and self.training: raise KeyboardInterrupt
print('FIRST')
learn = learner()
try: learn.fit_one_cycle(3, 1e-2, cbs=[Checkpointer(steps=1), Stop()])
except KeyboardInterrupt: print()
print('AGAIN')
learner().fit_one_cycle(3, 1e-2, cbs=Checkpointer(steps=1))
print('LOOKS')
learn.validate(), learn.get_preds(), learn.lr_find(num_it=5, show_plot=False)
with learn.no_bar(), learn.no_logging(): learn.fit(1)
print('END')
'''

def env():
    return {k:v for k,v in os.environ.items() if k!='PYCHARM_HOSTED'} | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(root),
        MPLBACKEND='Agg', COLUMNS='120')

def test_a_file_gets_a_line_per_epoch(tmp_path):
    with open(tmp_path/'log', 'w') as f:
        r = subprocess.run([sys.executable, '-c', script, str(tmp_path)], stdout=f, stderr=subprocess.PIPE, text=True,
            env=env())
    assert r.returncode==0, r.stderr[-3000:]
    log = (tmp_path/'log').read_bytes().decode()
    assert '\r' not in log and '█' not in log
    first,again,looks = (o.split('\n') for o in log.split('FIRST\n')[1].split('END')[0].replace('LOOKS\n',
        'AGAIN\n').split('AGAIN\n'))
    def epochs(part): return [o.split()[0] for o in part if o.strip()]
    assert epochs(first)==['epoch','0'] and epochs(again)==['epoch','1','2'] and epochs(looks)==[]

@pytest.mark.skipif(not hasattr(os, 'openpty'), reason='no terminals of this kind here')
def test_a_terminal_gets_a_bar_that_moves(tmp_path):
    "Also where a training goes on in its second epoch, at which fastai's bar fails"
    import pty
    out,inp = pty.openpty()
    p = subprocess.Popen([sys.executable, '-c', script, str(tmp_path)], stdout=inp, stderr=subprocess.PIPE, text=True,
        env=env())
    os.close(inp)
    seen = b''
    while True:
        try: part = os.read(out, 65536)
        except OSError: break # closed
        if not part: break
        seen += part
    err = p.communicate()[1]
    assert p.returncode==0, err[-3000:]
    first,again = seen.decode().split('FIRST')[1].split('LOOKS')[0].split('AGAIN')
    assert 'Epoch 1/3' in first and 'Epoch 2/3' in first and '█' in first and '\r' in first
    assert 'Epoch 2/3' in again and 'Epoch 3/3' in again and '100.00%' in again and 'Epoch 1/3' not in again

goes_on = '''
import sys, warnings
warnings.filterwarnings('ignore')
from pathlib import Path
import fastai.callback.progress as bars, fastprogress.fastprogress as kinds
from fastai.callback.progress import ShowGraphCallback
from IPython.core.interactiveshell import InteractiveShell
from ulmfit_nb.all import *
from ulmfit_nb import learner as own
InteractiveShell.instance()
some = sentences().sample(60, random_state=0)
def train(folder, mode, stop):
    kind = 'NB' if mode=='notebook' else 'Console'
    own.on_screen = lambda: mode!='off'
    own.master_bar,bars.progress_bar = getattr(kinds, f'{kind}MasterBar'),getattr(kinds, f'{kind}ProgressBar')
    set_seed(1)
    dls = TextDataLoaders.from_df(some, text_col='text', is_lm=True, bs=8, seq_len=16, seed=1, path=folder)
    learn = language_model_learner(dls, AWD_LSTM, config=dict(emb_sz=8, n_hid=8, n_layers=2), pretrained=False)
    class Stop(Callback):
        order = 300
        def after_batch(self):
            if self.training and self.train_iter==stop: raise KeyboardInterrupt
    graph = [ShowGraphCallback()] if mode=='notebook' else []
    try: learn.fit_one_cycle(2, 1e-2, cbs=[Checkpointer(steps=1), Stop(), *graph])
    except KeyboardInterrupt: pass
    return learn.model.state_dict()
before,now,out = sys.argv[1:]
whole = train(Path(out)/'whole', 'off', None)
set_seed(1)
n = len(TextDataLoaders.from_df(some, text_col='text', is_lm=True, bs=8, seq_len=16, seed=1, path=out).train)
for stop in (2, n+1, None): # in the first epoch, in the second, after the end
    train(Path(out)/str(stop), before, stop)
    again = train(Path(out)/str(stop), now, None)
    assert all(torch.equal(whole[k], again[k]) for k in whole), stop
'''

@pytest.mark.parametrize('before,now', [('off','console'), ('console','off'), ('notebook','notebook'),
    ('off','notebook')])
def test_a_training_goes_on_under_any_bars(before, now, tmp_path):
    "Bit-equal, in the first epoch, in a later one and after the end; a graph of the losses goes on, too"
    r = subprocess.run([sys.executable, '-c', goes_on, before, now, str(tmp_path)], capture_output=True, text=True,
        env=env())
    assert r.returncode==0, r.stderr[-3000:]

def test_fastai_is_left_alone(dls):
    assert ProgressCallback in defaults.callbacks and TextProgress not in defaults.callbacks
    theirs,ours = Learner(dls, learner(dls).model),learner(dls)
    assert type(theirs.progress) is ProgressCallback and type(ours.progress) is TextProgress
    with ours.no_bar(), theirs.no_bar(): assert not hasattr(ours, 'progress')
    assert type(theirs.progress) is ProgressCallback and type(ours.progress) is TextProgress and len(
        ours.cbs.filter(lambda o: isinstance(o, ProgressCallback)))==1

def rows(path):
    with open(path) as f: return [r for r in csv.reader(f) if r]

@pytest.mark.parametrize('where', ['fit','learner','after no_bar'])
def test_csv_logger(dls, where, capsys):
    logger = CSVLogger()
    learn = learner(dls, cbs=[] if where=='fit' else [logger])
    if where=='after no_bar':
        with learn.no_bar(): pass
    capsys.readouterr()
    learn.fit_one_cycle(2, 1e-2, cbs=[logger] if where=='fit' else None)
    head,*got = rows(dls.path/'history.csv')
    assert head==['epoch','train_loss','valid_loss','accuracy','time'] and [r[0] for r in got]==['0','1']
    assert [[float(o) for o in r[1:4]] for r in got]==[list(map(float, o)) for o in learn.recorder.values]
    # the table is there, too
    assert [o.split()[0] for o in capsys.readouterr().out.splitlines() if o.strip()]==['epoch','0','1']

def test_csv_logger_over_all_steps(dls):
    learner(dls).fit_gradual(epochs=(1,0,0,2), cbs=CSVLogger('steps.csv', append=True))
    assert [r[0] for r in rows(dls.path/'steps.csv')]==['epoch','0','epoch','0','1']

class Writer:
    "As much of a TensorBoard writer as is needed to see what it is given"
    made = []
    def __init__(self, log_dir=None): self.got,self.closed = [],False; self.made.append(self)
    def add_scalar(self, name, value, step): self.got.append((name, float(value), step))
    def close(self): self.closed = True

@pytest.mark.parametrize('kind', ['classifier','language model'])
def test_tensorboard(dls, kind, monkeypatch, tmp_path):
    "fastai's callback draws graphs of picture models and shows predicted pictures: for texts both are switched off"
    for name,content in (('tensorboard',{}), ('torch.utils.tensorboard',dict(SummaryWriter=Writer))):
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, 'fastai.callback.tensorboard', raising=False)
    from fastai.callback.tensorboard import TensorBoardCallback
    if kind=='classifier': learn = learner(dls)
    else:
        texts = TextDataLoaders.from_df(sentences().sample(60, random_state=0), text_col='text', is_lm=True, bs=8,
            seq_len=16, path=tmp_path)
        learn = language_model_learner(texts, AWD_LSTM, config=small, pretrained=False)
    learn.fit_one_cycle(2, 1e-2, cbs=TensorBoardCallback(tmp_path/'tb', trace_model=False, log_preds=False))
    got = Writer.made[-1].got
    assert Writer.made[-1].closed and [v for k,v,_ in got if k=='valid_loss']==[float(o[1])
        for o in learn.recorder.values]
    assert len([1 for k,_,_ in got if k=='train_loss'])>=2*len(learn.dls.train) and {'lr_0','mom_0'} <= {k for k,_,
        _ in got}
