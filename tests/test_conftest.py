"The tests of a file stay in one process, whatever `-n` says: what they share is made once"
import os, re, shutil, subprocess, sys
from pathlib import Path
from conftest import group
import pytest

pytest.importorskip('xdist', reason="no pytest-xdist: install the extra 'dev'")

def test_groups_are_in_force(tmp_path):
    "Two processes would share each file's tests out otherwise; of notebooks, that is what we want"
    shutil.copy(Path(__file__).with_name('conftest.py'), tmp_path)
    code = "import pytest\n@pytest.mark.parametrize('i', range(8))\ndef test_it(i): pass\n"
    for o in ('a','b'): (tmp_path/f'test_{o}.py').write_text(code)
    command = [sys.executable, '-m', 'pytest', '-n','2', '--dist','loadgroup', '-v', '-p','no:cacheprovider',
        '--rootdir',str(tmp_path), str(tmp_path)]
    env = {k:v for k,v in os.environ.items() if not k.startswith('PYTEST_')}
    r = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    ran = re.findall(r'\[(gw\d)\].* PASSED (\S+?)::(\S+)', r.stdout)
    assert r.returncode==0 and len(ran)==16, r.stdout[-3000:]+r.stderr[-3000:]
    by_file = {f:{gw for gw,file,_ in ran if file==f} for f in ('test_a.py','test_b.py')}
    assert len(by_file['test_a.py'])==len(by_file['test_b.py'])==1
    assert group('tests/test_notebooks.py::test_runs[a]')!=group('tests/test_notebooks.py::test_runs[b]')
