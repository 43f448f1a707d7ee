"""The house stands: modules import one way, in the order of `ulmfit_nb/all.py`, and `tools/check.py` notices each limit
that is broken"""
import ast, json, shutil, subprocess, sys
from pathlib import Path
import pytest
from conftest import root, script

package = root/'ulmfit_nb'

def tree(name): return ast.parse((package/f'{name}.py').read_text(encoding='utf8'))

def rooms():
    "The modules in the order in which they build on each other; the command stands on all of them"
    return [o.module for o in tree('all').body if isinstance(o, ast.ImportFrom) and o.level] + ['cli']

def imports(code):
    "Pairs of a line and a module of the package that is imported there, at the top of `code` or inside a function"
    def ours(o): return o.removeprefix('ulmfit_nb.') if o.startswith('ulmfit_nb.') else ''
    for o in ast.walk(code):
        if isinstance(o, ast.Import): found = [ours(a.name) for a in o.names]
        elif isinstance(o, ast.ImportFrom) and (o.level or o.module.split('.')[0]=='ulmfit_nb'):
            module = (o.module or '').removeprefix('ulmfit_nb').lstrip('.')
            found = [module] if module else [a.name for a in o.names if a.name!='__version__']
        elif isinstance(o, ast.Call) and ast.unparse(o.func).split('.')[-1] in ('import_module','__import__'):
            found = [ours(a.value) for a in o.args if isinstance(a, ast.Constant)]
        else: continue
        yield from ((o.lineno,k) for k in found if k)

def upwards(name, code, order):
    "Imports by the module `name` of itself, of one that comes after it, or of none that there is"
    before = order[:order.index(name)]
    return [f'ulmfit_nb/{name}.py:{line} imports {o}' for line,o in imports(code) if o not in before]

# What is excepted, with its reason
allowed = {('classifier','ensemble'): '`load_classifier` answers with an `Ensemble` where a folder holds one, and '
    'imports it when it meets one, so that there is no circle when a module is imported'}

@pytest.mark.parametrize('name', rooms())
def test_imports_go_down(name):
    "That no import goes up also means that there is no circle"
    assert not [o for o in upwards(name, tree(name), rooms()) if (name,o.split()[-1]) not in allowed]

def test_what_is_excepted_is_there_and_inside_a_function():
    for name,other in allowed:
        assert [o.split()[-1] for o in upwards(name, tree(name), rooms())]==[other], name
        top = ast.Module([o for o in tree(name).body if isinstance(o, (ast.Import,ast.ImportFrom))], [])
        assert not upwards(name, top, rooms()), name

def test_every_module_has_its_place():
    there = {o.stem for o in package.glob('*.py') if not o.name.startswith('_')}
    assert there=={*rooms(),'all'} and len(rooms())==len(set(rooms()))
    assert not list(imports(tree('__init__'))) # else every import would load what it imports
    assert [o for _,o in imports(tree('__main__'))]==['cli']

def test_an_import_upwards_is_seen():
    order = ['files','texts','model']
    def seen(code, name='texts'): return [o.split()[-1] for o in upwards(name, ast.parse(code), order)]
    for code in ('import numpy', 'from .files import *', 'from fastai.text import all',
        'from ulmfit_nb import __version__'): assert not seen(code), code
    for code in ('from .model import f', 'from ulmfit_nb.model import f', 'from . import model',
        'import ulmfit_nb.model', 'from ulmfit_nb import model as m', 'def f():\n    from .model import g',
        "import_module('ulmfit_nb.model')", 'class A:\n    def f(self):\n        if self: import ulmfit_nb.model as m'):
        assert seen(code)==['model'], code
    assert seen('from .texts import f')==['texts'] and seen('from .all import *')==['all']

# What can be counted

check = script('check')

def cell(source, kind='code', i=[0]):
    i[0] += 1
    return dict(cell_type=kind, id=f'c{i[0]}', source=source, metadata={}, **({} if kind=='markdown' else
        dict(outputs=[], execution_count=None)))

@pytest.fixture
def house(tmp_path):
    "A small tree in which no limit is broken, and functions that write a file or a notebook into it"
    class House:
        root = tmp_path
        def file(self, name, text):
            (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path/name).write_text(text, encoding='utf8')
        def notebook(self, name, *cells):
            self.file(f'nbs/{name}.ipynb', json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
        def breaches(self): return list(check.breaches(tmp_path))
    h = House()
    h.file('ulmfit_nb/files.py', 'def save(): pass\ndef _own(): pass\n')
    h.file('tests/test_files.py', 'def test_save(): pass\n')
    h.notebook('book/00_files', cell('# Files\n\nHow they are saved.', 'markdown'), cell('#| export\ndef save(): pass'),
        cell('save()'), cell('#| hide\nassert save() is None'))
    assert h.breaches()==[]
    return h

def test_a_house_in_order(house, capsys):
    assert check.main(['--root', str(house.root)])==0 and 'no limit is broken' in capsys.readouterr().out

def one(house, *words):
    "The one breach says each of `words`, and the command ends with 1"
    said, = house.breaches()
    for o in words: assert o in said, said
    assert check.main(['--root', str(house.root)])==1

def test_long_module(house):
    house.file('ulmfit_nb/texts.py', 'x = 1\n'*check.module_lines)
    assert not house.breaches()
    house.file('ulmfit_nb/texts.py', 'x = 1\n'*(check.module_lines+1))
    one(house, 'ulmfit_nb/texts.py: 601 lines', 'at most 600')

@pytest.mark.parametrize('part', ['ulmfit_nb','tests','tools','experiments','docs'])
def test_long_line(house, part):
    text = 'x = 1\nx = "{}"\n'
    house.file(f'{part}/long.py', text.format('o'*(check.line-6)))
    assert not house.breaches()
    house.file(f'{part}/long.py', text.format('o'*(check.line-5)))
    one(house, f'{part}/long.py:2: 121 characters', 'at most 120')

def test_lines_that_nbdev_writes_may_be_long(house):
    made = f'"""{"o"*130}"""\n\n# AUTOGENERATED! DO NOT EDIT!\n\n# %% auto #0\n__all__ = ["{"o"*130}"]\n'
    house.file('ulmfit_nb/texts.py', made+'\n# %% ../nbs/00.ipynb #a\nx = 1\n')
    assert not house.breaches()
    house.file('ulmfit_nb/texts.py', made+f'\n# %% ../nbs/00.ipynb #a\nx = "{"o"*130}"\n')
    one(house, 'ulmfit_nb/texts.py:9')

def test_long_line_that_a_reader_sees(house):
    line = f'x = "{"o"*(check.shown_line-6)}"'
    house.notebook('guides/page', cell(line))
    assert not house.breaches()
    long = line+' # o'
    for o in ('hide','code-fold: true'): # nobody sees it without a click
        house.notebook('guides/page', cell(f'#| {o}\n{long}'))
        assert not house.breaches()
    house.notebook('guides/page', cell(f'y = 1\n{long}'))
    one(house, 'guides/page.ipynb', '1 lines over 89')
    house.notebook('guides/page', cell('y = 1\n'*30+long)) # folded, since it has many lines
    assert not house.breaches()
    house.notebook('guides/page', cell('#| code-fold: false\n'+'y = 1\n'*30+long))
    one(house, 'guides/page.ipynb', '1 lines over 89')

def test_long_line_that_nobody_sees(house):
    house.notebook('guides/page', cell(f'#| hide\nx = "{"o"*(check.line-5)}"'))
    one(house, 'guides/page.ipynb', '1 lines over 120')

@pytest.mark.parametrize('code', ['from .files import _own', 'from ulmfit_nb.files import save, _own',
    'def f():\n    from .files import _own', 'from . import files\nfiles._own()',
    'import ulmfit_nb.files as f\nf._own()', 'import ulmfit_nb.files\nulmfit_nb.files._own()'])
def test_private_name_of_another_module(house, code):
    house.file('ulmfit_nb/texts.py', code+'\n')
    one(house, 'ulmfit_nb/texts.py', '_own of another module')

def test_own_private_names_are_fine(house):
    code = 'from .files import save\nimport os as o\n_x = 1\nprint(_x, o._exit, save.__name__)\n'
    house.file('ulmfit_nb/texts.py', code)
    assert not house.breaches()

@pytest.mark.parametrize('code', ['assert save()', 'test_eq(save(), 1)', 'for o in (1,2): assert o',
    'with open("x") as f: assert f', 'test_eq(1, 1)\nassert 2'])
def test_cell_that_only_asserts(house, code):
    house.notebook('book/01_texts', cell(code))
    one(house, 'book/01_texts.ipynb', 'only tests is not hidden')
    house.notebook('book/01_texts', cell(f'#| hide\n{code}'))
    assert not house.breaches()

def test_cell_that_shows_and_asserts_is_seen(house):
    house.notebook('book/01_texts', cell('x = save()\nassert x is None\nx'), cell('%time save()'))
    assert not house.breaches()

def words(minutes): return cell('word '*round(minutes*check.words_per_minute), 'markdown')

def test_page_too_long(house):
    house.notebook('book/01_texts', words(check.page_minutes))
    house.notebook('guides/page', words(99)) # the book alone is limited
    assert not house.breaches()
    code = '\n'.join(f'x{i} = {i}' for i in range(20)) # 80 s to read
    house.notebook('book/01_texts', words(check.page_minutes-1), cell(code))
    one(house, 'book/01_texts.ipynb: 30.3 minutes', 'at most 30')
    house.notebook('book/01_texts', words(check.page_minutes-1), cell(f'#| hide\n{code}'))
    assert not house.breaches()

def test_book_too_long(house):
    n = check.book_minutes//check.page_minutes
    for i in range(n): house.notebook(f'book/{i+1:02}_page', words(check.page_minutes))
    house.notebook('workshop/page', words(99))
    house.notebook('book/20_page', words(5))
    one(house, 'the book: 275 minutes', f'at most {check.book_minutes}')

def test_table_of_pages(house, capsys):
    house.notebook('book/01_texts', words(3))
    check.main(['--root', str(house.root), '--pages'])
    said = {k:float(v) for k,v in (o.rsplit(None, 1) for o in capsys.readouterr().out.splitlines())}
    assert said['book/01_texts.ipynb']==3 and said['the book']==pytest.approx(3.1, abs=.11)

# What `make check` runs besides

def test_make_check_runs_everything():
    command = ['make','--no-print-directory','-n','check']
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for o in ('bin/nbdev-clean','bin/chkstyle nbs ulmfit_nb','tools/check.py'): assert o in said

def test_unclean_notebook_is_cleaned(tmp_path):
    "nbdev-clean takes out what a run leaves that isn't its result"
    clean = shutil.which('nbdev-clean', path=Path(sys.executable).parent)
    if not clean: pytest.skip("no nbdev: install the extra 'dev'")
    c = dict(cell('1+1'), execution_count=7, metadata=dict(collapsed=True))
    kernel = dict(name='mine', display_name='Mine', language='python')
    nb = dict(cells=[c], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    (tmp_path/'page.ipynb').write_text(json.dumps(nb))
    subprocess.run([clean, '--fname', str(tmp_path/'page.ipynb')], cwd=root, check=True, capture_output=True)
    c, = json.loads((tmp_path/'page.ipynb').read_text())['cells']
    assert c['execution_count'] is None and not c['metadata']

def chkstyle(*args):
    exe = shutil.which('chkstyle', path=Path(sys.executable).parent)
    if not exe: pytest.skip("no chkstyle: install the extra 'dev'")
    return subprocess.run([exe, *args], cwd=root, capture_output=True, text=True)

def test_style_of_the_whole():
    r = chkstyle('nbs', 'ulmfit_nb')
    assert not r.returncode, r.stdout[-3000:]

@pytest.mark.parametrize('code', ['import os\nprint(1)', "x = {'a':1, 'b':2, 'c':3}"])
def test_planted_breach_of_style_is_seen(code, tmp_path):
    (tmp_path/'page.py').write_text(code+'\n')
    assert chkstyle(str(tmp_path)).returncode
