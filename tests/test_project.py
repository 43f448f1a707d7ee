"""What the project says about itself is true: one version, current README, documented and tested names, pages that
speak to everybody"""
import ast, json, re, sys, tomllib
from configparser import ConfigParser
import pytest
from conftest import notebooks, root

nbs = notebooks()
modules = sorted(o for o in (root/'ulmfit_nb').glob('*.py') if not o.name.startswith('_'))

def settings():
    ini = ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini', encoding='utf8')
    return ini['DEFAULT']

def test_one_version_and_one_name():
    cfg,proj = settings(),tomllib.loads((root/'pyproject.toml').read_text())['project']
    from ulmfit_nb import __version__
    assert __version__==cfg['version']
    assert proj['name']==cfg['lib_name']
    assert set(proj)=={'name','dynamic'}, 'pyproject.toml states what setup.py should give'
    assert 'version' in proj['dynamic'] and 'dependencies' in proj['dynamic']
    assert re.search(rf"^## {re.escape(cfg['version'])}\b", (root/'CHANGELOG.md').read_text(),
        re.M), 'CHANGELOG.md has no section for this version'

def test_constraints_meet_requirements():
    from packaging.requirements import Requirement
    pins = {r.name:r for r in map(Requirement, (o for o in (root/'constraints.txt').read_text().splitlines() if o
        and o[0]!='#'))}
    for key in (o for o in settings() if o.endswith('requirements')):
        for r in map(Requirement, settings()[key].split()):
            assert r.name in pins, f'{r} has no pin in constraints.txt'
            version = next(iter(pins[r.name].specifier)).version
            assert version in r.specifier, f'constraints.txt pins {version}, settings.ini asks {r}'

def test_readme_is_current():
    sys.path.insert(0, str(root/'tools'))
    from readme import readme
    assert (root/'README.md').read_text(encoding='utf8')==readme(
        ), 'README.md is not what nbs/index.ipynb gives: run make readme'

# Names: documented and asserted

def exported(tree):
    "The names in a module's `__all__`, and its definitions by name"
    names = [ast.literal_eval(o.value) for o in tree.body if isinstance(o, ast.Assign)
        and any(getattr(t, 'id', '')=='__all__' for t in o.targets)]
    defs = {o.name:o for o in tree.body if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    return [n for o in names for n in o],defs

def undocumented(tree):
    names,defs = exported(tree)
    return [o for o in names if o in defs and not ast.get_docstring(defs[o])]

def parse_cell(src):
    from IPython.core.inputtransformer2 import TransformerManager
    return ast.parse(TransformerManager().transform_cell(src))

def asserts(tree):
    "Does the code hold an assert, or call something named test_… or pytest.raises?"
    calls = [o.func for o in ast.walk(tree) if isinstance(o, ast.Call)]
    return any(isinstance(o, ast.Assert) for o in ast.walk(tree)) or any(
        getattr(o, 'id', getattr(o, 'attr', '')).startswith(('test_','raises')) for o in calls)

def mentioned(tree):
    "Every name and attribute that the code uses"
    return {o.id for o in ast.walk(tree) if isinstance(o, ast.Name)} | {o.attr for o in ast.walk(tree)
        if isinstance(o, ast.Attribute)}

def asserted(cells, tests):
    "Names used in a notebook cell that asserts (one that does not define them), or in a test function that asserts"
    trees = [parse_cell(o) for o in cells if not re.search(r'^#\|\s*(export|exporti|exports)\b', o, re.M)]
    for t in tests:
        helpers = [o for o in t.body if not isinstance(o, (ast.FunctionDef, ast.ClassDef))]
        trees += [o for o in t.body if isinstance(o, (ast.FunctionDef, ast.ClassDef))]
        trees += [o for h in helpers for o in ast.walk(h) if isinstance(o, ast.Call)]
    return set().union(*(mentioned(o) for o in trees if asserts(o)))

def code_cells(path):
    nb = json.loads(path.read_text(encoding='utf8'))
    return [''.join(c['source']) for c in nb['cells'] if c['cell_type']=='code']

@pytest.fixture(scope='module')
def asserted_names():
    tests = [ast.parse(o.read_text(encoding='utf8')) for o in sorted((root/'tests').glob('test_*.py'))]
    return asserted([c for o in nbs for c in code_cells(o)], tests)

@pytest.mark.parametrize('path', modules, ids=lambda o: o.stem)
def test_names_are_documented(path): assert not undocumented(ast.parse(path.read_text(encoding='utf8')))

@pytest.mark.parametrize('path', modules, ids=lambda o: o.stem)
def test_names_are_asserted(path, asserted_names):
    names,_ = exported(ast.parse(path.read_text(encoding='utf8')))
    assert not [o for o in names if o not in asserted_names], 'exported, and in no cell or test that asserts something'

def test_these_two_can_fail():
    tree = ast.parse("__all__ = ['f','g','C']\ndef f():\n    'Documented'\ndef g(): pass\nclass C:\n    'So is this'\n")
    assert undocumented(tree)==['g']
    cells = ["f(1)", "#| export\nassert C", "test_eq(g(), 1)", "%time x = 1"]
    assert asserted(cells, [])&{'f','g','C'}=={'g'}
    tests = [ast.parse("from m import f, C\nx = f()\ndef test_c(): assert C()==1\ndef test_nothing(): f()")]
    assert asserted(cells, tests)&{'f','g','C'}=={'g','C'}

# Pages: for everybody, everywhere

private = ['../shared', '/work/', '/root/', 'pypi.org', 'pythonhosted.org', 'registry.npmjs', 'deb.debian.org',
    'download.pytorch.org']
patterns = ('*.md','NOTICE','Makefile','settings.ini','setup.py','pyproject.toml','constraints.txt','MANIFEST.in',
    'nbs/**/*.ipynb','nbs/**/*.yml',
    'docs/**/*.*','tools/**/*.py','experiments/**/*.*','ulmfit_nb/**/*.py')
pages = [o for pat in patterns for o in sorted(root.glob(pat)) if not {'.ipynb_checkpoints','_build'}&set(o.parts)]

def test_pages_are_found():
    assert {'README.md','NOTICE','00_texts.ipynb','texts.py','setup.py'} <= {o.name for o in pages}

@pytest.mark.parametrize('path', pages, ids=lambda o: str(o.relative_to(root)))
def test_page_speaks_of_the_project_alone(path):
    try: text = path.read_text(encoding='utf8')
    except UnicodeDecodeError: pytest.skip('not text')
    assert not [o for o in private if o in text]
    assert not re.search(r'\b(issue|session) \d', text), 'names an issue or a session'

def links(path):
    "The relative links of a page's Markdown"
    text = path.read_text(encoding='utf8')
    if path.suffix=='.ipynb':
        text = '\n'.join(''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type']=='markdown')
    return [o for o in re.findall(r'\]\(([^)\s]+)\)', text) if not re.match(r'[a-z]+:|#', o)]

# the site's own pages link to each other by what Sphinx makes of them: its build checks those
@pytest.mark.parametrize('path', [o for o in pages if o.suffix in ('.md','.ipynb')
    and o.relative_to(root).parts[0]!='docs'], ids=lambda o: o.name)
def test_links_lead_somewhere(path): assert not [o for o in links(path) if not (path.parent/o.split('#')[0]).exists()]
