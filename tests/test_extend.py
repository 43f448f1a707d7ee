"""What a newcomer adds in one cell: a tokenizer, an architecture (poolings: test_extend_pooling). The cells are
those of the guides; a process that doesn't know the class is told what to do, and gets no code from the file"""
import json, os, subprocess, sys
import pytest
from conftest import root

def cell(guide):
    "The cell of the guide that defines, registers, trains, saves and loads"
    cells = json.loads((root/'nbs'/'guides'/f'{guide}.ipynb').read_text(encoding='utf8'))['cells']
    code = [''.join(o['source']) for o in cells if o['cell_type']=='code']
    return next(o for o in code if 'load_learner(folder)' in o and '#| hide' not in o)

def run(code, cwd):
    env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(root), MPLBACKEND='Agg')
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=cwd, env=env, capture_output=True,
        text=True, timeout=600)

start = 'import tempfile\nfrom ulmfit_nb.all import *\nfrom torch import nn\n'
end = '''
import json
print(json.dumps([str(folder), learn.predict(text)[2].tolist(), again.predict(text)[2].tolist()]))'''
alone = '''
from ulmfit_nb.all import *
try: load_learner({folder!r})
except ValueError as e: print(e)
else: print('it was loaded')'''

@pytest.mark.parametrize('guide,says', [('add_a_tokenizer',"tokenizers['endings'] = its class, before you load"),
    ('add_an_architecture','architectures[GRU] = dict')])
def test_one_cell_is_enough(guide, says, tmp_path):
    r = run(start+cell(guide)+end, tmp_path)
    assert not r.returncode, r.stderr[-3000:]
    folder,mine,loaded = json.loads(r.stdout.splitlines()[-1])
    assert mine==pytest.approx(loaded, abs=1e-6)
    said = run(alone.format(folder=folder), tmp_path).stdout
    assert says in said and 'it was loaded' not in said

def test_settings_of_a_tokenizer_come_back(tmp_path):
    "Settings that differ from the defaults; a tokenizer of subwords is joined when a model writes"
    code = start+'''
class Halves(BaseTokenizer):
    kind,joins_pieces = 'halves',True
    def __init__(self, n=3): self.n = n
    def __call__(self, items): return ([o[:self.n] for o in t.split()] for t in items)
    def join(self, tokens): return '+'.join(tokens)
    def config(self): return dict(kind=self.kind, n=self.n)
tokenizers['halves'] = Halves
tok = Tokenizer.from_config(Tokenizer(Halves(n=2)).config())
print(tok.tok.n, list(tok('word'))[-1], make_tokenizer('halves').n)'''
    assert run(code, tmp_path).stdout.split()==['2','wo','3']
