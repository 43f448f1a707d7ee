"What the tests share: where the repository is, and where larger data may be"
import importlib, os, sys
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent

def notebooks(part=''):
    "The notebooks of a part (`book`, `workshop`, `guides`), or all of them"
    return sorted(o for o in (root/'nbs'/part).rglob('*.ipynb')
        if not any(name[0] in '._' for name in o.relative_to(root).parts))

def script(name):
    "The module of a script in `tools` or `experiments`"
    folder = next(root/o for o in ('tools','experiments') if (root/o/f'{name}.py').exists())
    if str(folder) not in sys.path: sys.path.append(str(folder)) # scripts import each other
    return importlib.import_module(name)

os.environ.setdefault('HF_HUB_OFFLINE', '1') # no test asks a hub for anything
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1') # processes that share the cores: a thread each

def pytest_configure(config):
    config.addinivalue_line('markers', 'data: needs data that the repository does not hold')
    config.addinivalue_line('markers', 'slow: takes minutes; run with --slow')
    if config.pluginmanager.hasplugin('xdist'): config.pluginmanager.register(Groups())

def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run the tests that take minutes, too')

def pytest_collection_modifyitems(config, items):
    if config.getoption('--slow'): return
    for o in items:
        if 'slow' in o.keywords: o.add_marker(pytest.mark.skip(reason='takes minutes: --slow runs it'))

def group(nodeid):
    "What runs in one process: a file's tests, which keeps what they share; notebooks are shared out one by one"
    path,_,test = nodeid.partition('::')
    return nodeid if test.startswith('test_runs[') else path

class Groups:
    """`--dist loadgroup` by `group` of a test's name: the marks that xdist would go by are lost with a pytest from 9.2
    on"""
    def pytest_xdist_make_scheduler(self, config, log):
        from xdist.scheduler import LoadGroupScheduling
        class Scheduling(LoadGroupScheduling):
            def _split_scope(self, nodeid): return group(nodeid)
        if config.getoption('dist')=='loadgroup': return Scheduling(config, log)

def find_data(name):
    "The folder or file `name` under $ULMFIT_DATA or beside the checkout, or None"
    for base in filter(None, [os.getenv('ULMFIT_DATA'), root.parent/'shared'/'data']):
        if (Path(base)/name).exists(): return Path(base)/name

@pytest.fixture(scope='session')
def data_path():
    "A function from a name to its path; the test is skipped where it is missing"
    def f(name):
        path = find_data(name)
        if path is None: pytest.skip(f"no {name}: set ULMFIT_DATA to a folder that holds it")
        return path
    return f

@pytest.fixture(scope='session')
def repo(): return root
