"The chapter's code runs unchanged after one import, without leaning on what it replaces, and without changing fastai"
import os, subprocess, sys
from pathlib import Path
import pytest
from ulmfit_nb.texts import sentences

here = Path(__file__).parent

@pytest.fixture(scope='module')
def reviews(tmp_path_factory):
    "300 reviews of five sentences each, as `train|test/label/n.txt` and `unsup/n.txt`"
    path = tmp_path_factory.mktemp('chapter')/'reviews'
    for label,df in sentences().groupby('label'):
        texts = df.sample(frac=.5, random_state=0).text.tolist()
        for i in range(0, len(texts), 5):
            part = ('train','train','test','unsup')[i//5%4]
            f = path/part/label/f'{i}.txt' if part!='unsup' else path/part/f'{label}{i}.txt'
            f.parent.mkdir(parents=True, exist_ok=True)
            f.write_text(' '.join(texts[i:i+5]), encoding='utf8')
    return path

@pytest.mark.parametrize('flags', [pytest.param([], marks=pytest.mark.slow, id='plain'),
    pytest.param(['--without-fastai-text'], id='without-fastai-text')]) # the same steps, and more would be noticed
def test_chapter(reviews, flags, tmp_path):
    r = subprocess.run([sys.executable, here/'chapter.py', reviews, *flags], capture_output=True, text=True,
        encoding='utf8', cwd=tmp_path)
    assert r.returncode==0, r.stderr[-3000:]
    assert r.stdout.strip().endswith('chapter: done')

snapshot = '''
import inspect, sys
import fastai.text.all as fa
from fastcore.basics import defaults
from plum import Function

theirs = 'fastai','fasttransform','fastcore'
changing = '_abc','__abstract','__weakref','__dict', '__annotations', '__doc__'

def state():
    "Everything that could have been changed: classes and their members, dispatch tables, functions, defaults"
    res = {'defaults': {k: list(v) if isinstance(v, list) else v for k,v in vars(defaults).items()}}
    for m in [m for n,m in sorted(sys.modules.items()) if m is not None and n.startswith(theirs)]:
        for k,v in list(vars(m).items()):
            if k.startswith('__'): continue
            key = f'{m.__name__}.{k}'
            res[key] = id(v)
            if inspect.isclass(v) and v.__module__.startswith(theirs):
                res[key+'.members'] = {a:id(b) for a,b in vars(v).items() if not a.startswith(changing)}
            if type(v) is Function: res[key+'.table'] = [str(o.signature) for o in v.methods]
    return res

show_batch = fa.show_batch
assert len(show_batch.methods)>2 # the dispatch tables are really looked at
before = state()
import ulmfit_nb.all
import ulmfit_nb.cli
after = state()
changed = [k for k in before if before[k]!=after.get(k)]
assert not changed, changed
assert any(k.endswith('.table') for k in before) and len(before)>1000
if '--break' in sys.argv: # this check can fail
    fa.TextLearner.load_encoder = lambda self: None
    broken = state()
    assert [k for k in before if before[k]!=broken.get(k)]
print('unchanged')
'''

def test_fastai_unchanged(tmp_path):
    (tmp_path/'snap.py').write_text(snapshot)
    r = subprocess.run([sys.executable, tmp_path/'snap.py', '--break'], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode==0, r.stderr[-3000:]
    assert r.stdout.strip()=='unchanged'
