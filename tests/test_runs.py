"The log of the long runs: jobs are shared, none is lost, none is done twice"
import json, signal, subprocess, sys, time
from pathlib import Path
import pytest

tools = str(Path(__file__).parent.parent/'tools')
work = f'''
import sys, time
sys.path.insert(0, {tools!r})
from runs import Log
def f(i):
    with open(sys.argv[1]+'.begun', 'a') as o: o.write(f'{{i}}\\n')
    time.sleep(float(sys.argv[2]))
    return dict(square=i*i)
rows = Log(sys.argv[1]).run_all([(lambda i=i: f(i), dict(job=i)) for i in range(6)])
print(*[o['square'] for o in rows])
'''
def start(log, seconds): return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', work, str(log), str(seconds)], stdout=subprocess.PIPE, text=True)
def jobs(log): return [json.loads(o)['job'] for o in log.read_text().splitlines()]

@pytest.fixture
def log(tmp_path): return tmp_path/'log.jsonl'

def wait_for(file, n, seconds=120):
    "Until `file` has `n` lines"
    end = time.monotonic()+seconds
    while not file.exists() or len(file.read_text().splitlines())<n:
        assert time.monotonic()<end, f'{file} has not got {n} lines'
        time.sleep(.05)

def test_two_processes_share_the_jobs(log):
    both = [start(log, 1) for _ in range(2)]
    for o in both: assert o.communicate(timeout=300)[0].splitlines()[-1]=='0 1 4 9 16 25'
    assert sorted(jobs(log))==list(range(6))
    assert len(Path(f'{log}.begun').read_text().split())==6

def test_a_killed_process_loses_one_job_and_blocks_none(log):
    p = start(log, 60)
    wait_for(Path(f'{log}.begun'), 1)
    p.send_signal(signal.SIGKILL)
    p.wait()
    assert not log.exists()
    log.write_text(json.dumps(dict(job=3, square=9))+'\n'+'{"job": 4, "squ') # it also left half a line
    assert start(log, 0).communicate(timeout=300)[0].splitlines()[-1]=='0 1 4 9 16 25'
    done = [o for o in log.read_text().splitlines() if o.endswith('}')]
    assert sorted(json.loads(o)['job'] for o in done)==list(range(6))
    assert Path(f'{log}.begun').read_text().split().count('3')==0
