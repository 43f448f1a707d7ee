"""Runs notebooks and commands, each in a process of its own, which begins with the large libraries imported: they take
longer than many a page. Reads a job per line as JSON, `{path, skip, env, out}` or `{args, cwd, env, out}`, and answers
with its exit status"""
import json, os, sys, traceback
from pathlib import Path

def notebook(path, skip):
    path = Path(path)
    os.chdir(path.parent)
    ok,_ = test_nb(path.name, skip_flags=skip)
    return 0 if ok else 1

def command(args, cwd):
    "As `python -m ulmfit_nb` does it"
    os.chdir(cwd)
    sys.argv = ['ulmfit', *args]
    try: main(args)
    except SystemExit as e:
        if isinstance(e.code, str): print(e.code, file=sys.stderr)
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    return 0

def run(job):
    "In a process that was forked for it"
    os.environ.clear()
    os.environ.update(job.pop('env'))
    out = [os.open(o, os.O_WRONLY|os.O_CREAT|os.O_TRUNC) for o in job.pop('out')]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for i,o in zip((1,2), (out[0],out[-1])): os.dup2(o, i)
    return (notebook if 'path' in job else command)(**job)

if __name__=='__main__': # processes that a page starts import this module, too, and need none of it
    import matplotlib.pyplot, sklearn.pipeline, spacy, torch, fastai.text.all # noqa: F401
    from nbdev.test import test_nb
    from ulmfit_nb.cli import main
    for line in sys.stdin:
        if pid := os.fork(): print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        else:
            status = 1
            try: status = run(json.loads(line))
            except BaseException: traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
