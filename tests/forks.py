"Notebooks and commands in processes of their own that need not import the large libraries first"
import atexit, functools, json, os, select, signal, subprocess, sys, tempfile
from pathlib import Path

@functools.cache
def server():
    "Of this process: `fork_server.py`"
    env = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg')
    res = subprocess.Popen([sys.executable, Path(__file__).with_name('fork_server.py')], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env=env, text=True, start_new_session=True)
    atexit.register(end, res)
    return res

def end(server):
    "It and what runs in its fork"
    if server.poll() is None: os.killpg(server.pid, signal.SIGKILL)
    server.wait()

def forked(job, seconds=1200, parts=('said',)):
    "Exit status of a process that did `job`, and what it said; with two `parts`, errors are said apart"
    with tempfile.TemporaryDirectory() as d:
        files = [Path(d)/o for o in parts]
        server().stdin.write(json.dumps(dict(job, out=list(map(str, files))))+'\n')
        server().stdin.flush()
        ended = select.select([server().stdout], [], [], seconds)[0]
        line = server().stdout.readline() if ended else ''
        status = int(line) if line else 'the server died' if ended else f'still running after {seconds} s'
        if not line:
            end(server())
            server.cache_clear()
        return status,*(o.read_text(encoding='utf8', errors='replace') if o.exists() else '' for o in files)

def ulmfit(*args, cwd=None, **env):
    "What the command `ulmfit` does: exit status and what it printed, as of `subprocess.run`"
    env = os.environ | dict(OMP_NUM_THREADS='1') | env
    job = dict(args=list(map(str, args)), cwd=str(Path(cwd or '.').absolute()), env=env)
    return subprocess.CompletedProcess(args, *forked(job, parts=('out','err')))
