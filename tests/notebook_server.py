"""Runs notebooks, each in a process of its own, which begins with the large libraries imported: they take longer than
many a page. Reads a job per line, `{path, skip, env, out}` as JSON, and answers with its exit status"""
import json, os, sys
from pathlib import Path

def run(job):
    "In a process that was forked for it"
    os.environ.clear()
    os.environ.update(job['env'])
    path,out = Path(job['path']),os.open(job['out'], os.O_WRONLY|os.O_CREAT|os.O_TRUNC)
    os.chdir(path.parent)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for o in (1,2): os.dup2(out, o)
    ok,_ = test_nb(path.name, skip_flags=job['skip'])
    return 0 if ok else 1

if __name__=='__main__': # processes that a page starts import this module, too, and need none of it
    import matplotlib.pyplot, sklearn.pipeline, spacy, torch, fastai.text.all # noqa: F401
    from nbdev.test import test_nb
    for line in sys.stdin:
        if pid := os.fork(): print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        else:
            status = 1
            try: status = run(json.loads(line))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
