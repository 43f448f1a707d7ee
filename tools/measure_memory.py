"""Memory of building a corpus on disk: python tools/measure_memory.py FOLDER [MB ...], which holds .jsonl.xz files with a text in each line.
Prints, for so many MB of distinct text, the largest sum over all processes of proportional set size, above what it was when everything was imported.
The texts are unpacked to a file first: what xz unpacks (up to 64 MB) it keeps, and that isn't the corpus's."""
import json,lzma,os,subprocess,sys,tempfile,threading,time
from pathlib import Path

def pss(pid):
    "Proportional set size of a process and those that it started, in MB"
    res = 0
    try:
        res = next(int(l.split()[1]) for l in open(f'/proc/{pid}/smaps_rollup') if l.startswith('Pss:'))/1024
        for p in Path(f'/proc/{pid}/task').glob('*/children'): res += sum(map(pss, p.read_text().split()))
    except (OSError,StopIteration): pass # it has just ended
    return res

def texts(folder, mb):
    n = 0
    for f in sorted(Path(folder).glob('*.jsonl.xz')):
        with lzma.open(f, 'rt', encoding='utf8') as o:
            for l in o:
                t = json.loads(l)['text']
                n += len(t.encode())
                if n>mb*1e6: return
                yield t

def nothing(chunk):
    import spacy.lang.en
    time.sleep(.1)

def unpack(folder, mb, file):
    with open(file, 'w', encoding='utf8') as o: o.writelines(json.dumps(t)+'\n' for t in texts(folder, mb))

def build(file, workers):
    "One build in this process; what imports take is measured with workers that have nothing to do"
    from ulmfit_nb.numericalization import Corpus
    from ulmfit_nb.tokenization import run_chunks
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
        with open(file, encoding='utf8') as o: c = Corpus.from_texts(map(json.loads, o), n_workers=workers, path=Path(d)/'c')
        done = True
        print(json.dumps([before, peak[0], c.n_tokens]))

if __name__=='__main__':
    if sys.argv[1]=='-': build(sys.argv[2], 2)
    else:
        for mb in sys.argv[2:] or ('15','60'):
            with tempfile.TemporaryDirectory() as d:
                unpack(sys.argv[1], float(mb), Path(d)/'texts')
                out = subprocess.run([sys.executable, __file__, '-', str(Path(d)/'texts')], check=True, capture_output=True, text=True).stdout
            before,peak,n = json.loads(out.splitlines()[-1])
            print(f'{mb} MB of text, {n:,} tokens: {peak-before:.0f} MB above the {before:.0f} MB of the imports')
