"""What the long runs share: their arguments, a log that remembers which jobs are done, and texts from a folder. It
imports nothing that is large, so that a script which measures memory can use it too"""
import argparse, fcntl, hashlib, json, lzma, os, time
from pathlib import Path

def parser(
    doc,            # The script's docstring: what it is for, its command, what FOLDER holds
    folder=True,    # Does it read a folder of texts?
    out=None,       # Default of --out; True: it has to be given; None: there is no such argument
    threads=None,   # Default of --threads; None: there is no such argument
    precision=False # Is there --fp32?
):
    "The arguments that the scripts have in common"
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if folder: p.add_argument('folder', type=Path, help='Where the texts are')
    if out is True: p.add_argument('--out', type=Path, required=True, help='Where the results go')
    elif out: p.add_argument('--out', type=Path, default=Path(out), help=f'Where the results go, by default {out}')
    if threads: p.add_argument('--threads', type=int, default=threads, help='Threads of this process')
    if precision: p.add_argument('--fp32', action='store_true', help='Never train in bfloat16')
    return p

def use_threads(n):
    "Compute with `n` threads in this process"
    import torch
    torch.set_num_threads(n)

class Log:
    """JSON lines, one per finished job. A job that is in the file is not run again, and processes that were started
    with the same file share the jobs among themselves"""
    def __init__(self, fname):
        self.fname = Path(fname)
        self.locks = self.fname.with_suffix('.locks')
        self.locks.mkdir(parents=True, exist_ok=True)
        self.read()

    def read(self):
        "Take in what other processes have finished"
        self.rows = []
        if not self.fname.exists(): return
        for line in self.fname.read_text(encoding='utf8').splitlines():
            try: self.rows.append(json.loads(line))
            except ValueError: pass # a process was killed while it wrote this line

    def find(self, **key):
        return next((o for o in self.rows if all(o.get(k)==v for k,v in json.loads(json.dumps(key)).items())), None)

    def run(self, f, **key):
        "The row of the job `key`: from the file, or from `f()`, which gives a dict of numbers"
        return self.run_all([(f,key)])[0]

    def run_all(self, jobs):
        """The rows of `jobs`, pairs of a function and a key, in any order; those that another process is busy with are
        waited for"""
        while left := [o for o in jobs if not self.find(**o[1])]:
            if not sum([self._try(*o) for o in left]):
                time.sleep(5)
                self.read()
        return [self.find(**key) for _,key in jobs]

    def _try(self, f, key):
        """Run a job, unless it is being run elsewhere: its lock goes with the process that holds it, also when that is
        killed"""
        with open(self.locks/hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16], 'w') as lock:
            try: fcntl.flock(lock, fcntl.LOCK_EX|fcntl.LOCK_NB)
            except BlockingIOError: return False
            self.read()
            if not self.find(**key): self._write(f, key)
            return True

    def _write(self, f, key):
        start,cpu = time.time(),time.process_time()
        row = {**key, **f()}
        row.update(seconds=round(time.time()-start, 1), cpu_seconds=round(time.process_time()-cpu, 1),
            threads=os.environ.get('OMP_NUM_THREADS'), at=time.strftime('%Y-%m-%dT%H:%M:%S'))
        torn = self.fname.exists() and not self.fname.read_bytes().endswith(b'\n')
        with open(self.fname, 'a', encoding='utf8') as o: o.write('\n'*torn+json.dumps(row)+'\n')
        self.rows.append(row)
        print(json.dumps(row), flush=True)

def texts(folder):
    "The texts of all .jsonl and .jsonl.xz files of a folder, one after the other"
    for file in sorted(Path(folder).glob('*.jsonl*')):
        with (lzma.open if file.suffix=='.xz' else open)(file, 'rt', encoding='utf8') as lines:
            yield from (json.loads(o)['text'] for o in lines)

def imdb_part(folder, part, n=None, **kw):
    "One of `train`, `test` and `unsup` of IMDb as a table: all of it, or `n` reviews as `stratified_sample` draws them"
    from ulmfit_nb.texts import imdb, stratified_sample
    df = imdb(folder, part)
    return (stratified_sample(df, n, **kw) if n else df).reset_index(drop=True)

def trec(folder, part):
    "`train` or `test` of TREC-6 as a table"
    from ulmfit_nb.texts import read_texts
    return read_texts(Path(folder)/f'trec_{part}.jsonl.xz')
