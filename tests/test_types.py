"What an editor and a type checker learn of the package: annotations that resolve, typical uses that check"
import importlib, inspect, os, subprocess, sys, typing
import pytest
from conftest import root

modules = sorted(o.stem for o in (root/'ulmfit_nb').glob('*.py') if not o.name.startswith('_'))

def functions(module):
    "Exported functions, and the methods that exported classes define"
    m = importlib.import_module(f'ulmfit_nb.{module}')
    for name in getattr(m, '__all__', []):
        o = getattr(m, name)
        if inspect.isfunction(o): yield name,o
        elif inspect.isclass(o):
            own = {k:v for k,v in vars(o).items() if inspect.isfunction(v) and v.__module__==m.__name__
                and v.__code__.co_filename!='<string>'} # a dataclass explains its fields
            yield from ((f'{name}.{k}',v) for k,v in own.items() if k=='__init__' or not k.startswith('_'))

def unexplained(function):
    "Parameters with neither a type nor a comment"
    from fastcore.docments import docments
    said,hints = docments(function, args_kwargs=True),typing.get_type_hints(function)
    names = [o for o in inspect.signature(function).parameters if o!='self' and o[0]!='_']
    return [o for o in names if not said.get(o) and o not in hints]

@pytest.mark.parametrize('module', modules)
def test_annotations_resolve(module):
    for name,f in functions(module): typing.get_type_hints(f)

# says what it takes in the name of its attribute
obvious = {'Interner.__init__':['names']}

@pytest.mark.parametrize('module', modules)
def test_parameters_are_explained(module):
    "Of functions and of classes; a method that fastai asks for takes what fastai gives"
    found = {name:unexplained(f) for name,f in functions(module) if '.' not in name or name.endswith('.__init__')}
    assert {k:v for k,v in found.items() if v and obvious.get(k)!=v}=={}

def test_an_unexplained_parameter_is_found():
    def f(
        a,     # Said
        b:int, #
        c
    ): pass
    assert unexplained(f)==['c']
    def g(a:'Nowhere'): pass
    with pytest.raises(NameError): typing.get_type_hints(g)

def test_the_package_says_that_it_is_typed(): assert (root/'ulmfit_nb'/'py.typed').exists()

right = '''
from ulmfit_nb.all import *
from ulmfit_nb.texts import read_texts
df = read_texts('reviews.csv', label_col='stars')
dls = TextDataLoaders.from_df(df, text_col='text', is_lm=True, seq_len=72)
learn = language_model_learner(dls, AWD_LSTM, drop_mult=0.3)
learn.fit_one_cycle(1, 2e-3)
learn.generate('The film', 20, temperature=0.75)
clf = ULMFiTClassifier(size='tiny', lm_lr=1e-3, epochs=(1,1,1,2), num_sampled=None)
again: ULMFiTClassifier = clf.fit(df.text, df.label, unlabelled=['More.'])
again.predict_proba(['Good.']).sum(1)
lm: LMLearner = pretrain('texts.jsonl', 'model', max_time=10, tokenizer='subword')
'''

wrong = { # a line, and what the checker says
    "ULMFiTClassifier(lm_lr='fast')": 'Argument "lm_lr"',
    "ULMFiTClassifier(lm_learning_rate=1)": 'Unexpected keyword argument "lm_learning_rate"',
    "ULMFiTClassifier(epochs=4)": 'Argument "epochs"',
    "n: int = ULMFiTClassifier().predict(['a'])": 'Incompatible types in assignment',
    "ULMFiTClassifier().predict(['a']).shapes": 'has no attribute "shapes"',
    "pretrain('a', 'b', max_time='long')": 'Argument "max_time"',
    "pretrain('a', 'b', max_tim=3)": 'Unexpected keyword argument "max_tim"',
}

def mypy(code, tmp_path_factory):
    "What mypy says of a file that uses the package, without what it says of the package itself"
    pytest.importorskip('mypy')
    folder = tmp_path_factory.mktemp('types')
    (folder/'use.py').write_text(code)
    r = subprocess.run([sys.executable, '-m', 'mypy', '--follow-imports=silent', '--no-error-summary',
        '--cache-dir',str(tmp_path_factory.getbasetemp()/'mypy'), 'use.py'], cwd=folder, capture_output=True, text=True,
        env=os.environ | {'MYPYPATH':str(root)})
    return r.stdout+r.stderr

def test_typical_uses_check(tmp_path_factory): assert mypy(right, tmp_path_factory)==''

def test_mistakes_are_found(tmp_path_factory):
    said = mypy('\n'.join(['from ulmfit_nb.all import *', *wrong]), tmp_path_factory).splitlines()
    for i,says in enumerate(wrong.values(), 2): assert any(f'use.py:{i}:' in o and says in o for o in said), (i, said)
