"""Memory of building a corpus on disk: for so many MB of distinct text, the largest sum over all processes of
proportional set size, above what it was when everything was imported.

    python experiments/measure_memory.py FOLDER 15 60

FOLDER holds JSON lines with a text in each. The texts are unpacked to a file first: what xz unpacks (up to 64 MB) it
keeps, and that isn't the corpus's."""
import json, os, subprocess, sys, tempfile, threading, time
from pathlib import Path
from runs import parser, texts

def pss(pid):
    "Proportional set size of a process and those that it started, in MB"
    res = 0
    try:
        res = next(int(l.split()[1]) for l in open(f'/proc/{pid}/smaps_rollup') if l.startswith('Pss:'))/1024
        for p in Path(f'/proc/{pid}/task').glob('*/children'): res += sum(map(pss, p.read_text().split()))
    except (OSError,StopIteration): pass # it has just ended
    return res

def first(texts, mb):
    "Texts until `mb` MB are full"
    n = 0
    for t in texts:
        n += len(t.encode())
        if n>mb*1e6: return
        yield t

def nothing(chunk):
    import spacy.lang.en
    time.sleep(.1)

def build(file, workers=2):
    "One build in this process; what imports take is measured with workers that have nothing to do"
    from ulmfit_nb.numericalization import Corpus
    from ulmfit_nb.parallel import run_chunks
    peak,done = [0],False
    def watch():
        while not done:
            peak[0] = max(peak[0], pss(os.getpid()))
            time.sleep(.1)
    with tempfile.TemporaryDirectory() as d:
        threading.Thread(target=watch, daemon=True).start()
        import spacy.lang.en
        list(run_chunks(nothing, ['a']*50, n_workers=workers, chunk_sz=1))
        before,peak[0] = peak[0],0
        with open(file, encoding='utf8') as o:
            c = Corpus.from_texts(map(json.loads, o), n_workers=workers, path=Path(d)/'c')
        done = True
        print(json.dumps([before, peak[0], c.n_tokens]))

def measure(folder, mb):
    "What a process of its own said that builds the corpus: memory before, at the peak, and tokens"
    with tempfile.TemporaryDirectory() as d:
        file = Path(d)/'texts'
        with open(file, 'w', encoding='utf8') as o: o.writelines(json.dumps(t)+'\n' for t in first(texts(folder), mb))
        out = subprocess.run([sys.executable, __file__, str(file), '--build'], check=True, capture_output=True,
            text=True).stdout
    return json.loads(out.splitlines()[-1])

def main(args=None):
    p = parser(__doc__)
    p.add_argument('mb', type=float, nargs='*', default=[15,60], help='MB of text, by default 15 60')
    p.add_argument('--build', action='store_true', help='Only build, in this process; FOLDER is a file of JSON strings')
    a = p.parse_args(args)
    if a.build: return build(a.folder)
    for mb in a.mb:
        before,peak,n = measure(a.folder, mb)
        print(f'{mb:g} MB of text, {n:,} tokens: {peak-before:.0f} MB above the {before:.0f} MB of the imports')

if __name__=='__main__': main()
