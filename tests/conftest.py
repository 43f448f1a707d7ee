"What the tests share: where the repository is, and where larger data may be"
import os
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
os.environ.setdefault('HF_HUB_OFFLINE', '1') # no test asks a hub for anything

def pytest_configure(config):
    config.addinivalue_line('markers', 'data: needs data that the repository does not hold')
    config.addinivalue_line('markers', 'slow: takes minutes; run with --slow')

def pytest_addoption(parser): parser.addoption('--slow', action='store_true', help='run the tests that take minutes, too')

def pytest_collection_modifyitems(config, items):
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
