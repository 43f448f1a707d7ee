"What the tests share: where the repository is, and where larger data may be"
import os
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
os.environ.setdefault('HF_HUB_OFFLINE', '1') # no test asks a hub for anything
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1') # processes that share the cores: a thread each

def pytest_configure(config):
    config.addinivalue_line('markers', 'data: needs data that the repository does not hold')
    config.addinivalue_line('markers', 'slow: takes minutes; run with --slow')
    config.addinivalue_line('markers', 'xdist_group(name): with `-n`, tests of one name run in one process')

def pytest_addoption(parser): parser.addoption('--slow', action='store_true', help='run the tests that take minutes, too')

def pytest_collection_modifyitems(config, items):
    "With `-n`, a file's tests stay in one process, which keeps what they share; notebooks are shared out one by one"
    for o in items:
        if getattr(o, 'originalname', '')!='test_runs': o.add_marker(pytest.mark.xdist_group(o.path.name))
    if config.getoption('--slow'): return
    for o in items:
        if 'slow' in o.keywords: o.add_marker(pytest.mark.skip(reason='takes minutes: --slow runs it'))

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
