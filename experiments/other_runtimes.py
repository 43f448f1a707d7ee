"""One classifier with PyTorch, as an ONNX file, and as one with 8 bits: are the answers the same, and which is quicker?

    python experiments/other_runtimes.py MODEL --out nbs/logs/onnx.jsonl

MODEL is a folder that `ULMFiTClassifier.save` wrote, such as that of `ulmfit demo`. The 600 texts are made of the
bundled sentences' words, 1 to 2,400 tokens long. All readers run in turn on one thread. What is measured is the time of
the processor, which other processes don't lengthen; from start to first answer it is that of a process of its own, with
ONNX one that cannot import PyTorch (spaCy would, wherever it is installed)."""
import random, resource, statistics, subprocess, sys, tempfile, time
from functools import partial
from pathlib import Path
import numpy as np
from runs import Log, parser, use_threads

first = '{}("{}").predict_proba(["It was good."])'
start = {'PyTorch':'from ulmfit_nb.estimator import *; ULMFiTClassifier.load',
    'ONNX':'import sys; sys.modules["torch"] = None; from ulmfit_nb.onnx_export import *; OnnxClassifier'}
short = 'The food was good, and the waiter was friendly.'

def texts_of(n, longest, words):
    "`n` texts of 1 to `longest` tokens, as many of each order of magnitude, the shortest and the longest among them"
    rng = random.Random(0)
    lens = [0,longest-1]+[round(longest**rng.random())-1 for _ in range(n-2)]
    return [' '.join(rng.choices(words, k=o)) for o in lens]

def seconds(f, rounds=1):
    "The processor's seconds for `f`, the median of `rounds`"
    def one():
        begin = time.process_time()
        f()
        return time.process_time()-begin
    return statistics.median(one() for _ in range(rounds))

def process_seconds(code):
    "The processor's seconds for a new process that runs `code`"
    def spent():
        r = resource.getrusage(resource.RUSAGE_CHILDREN)
        return r.ru_utime+r.ru_stime
    begin = spent()
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)
    return spent()-begin

class Readers:
    "The three forms of one classifier, and texts"
    def __init__(self, a, tmp):
        from ulmfit_nb.estimator import ULMFiTClassifier
        from ulmfit_nb.onnx_export import OnnxClassifier, export_onnx
        from ulmfit_nb.texts import sentences
        clf = ULMFiTClassifier.load(a.model, 'cpu')
        self.folders = {'PyTorch':a.model.absolute()}
        for name,bits in (('ONNX',32), ('ONNX, 8 bits',8)): self.folders[name] = export_onnx(clf, tmp/str(bits), bits)
        self.readers = {'PyTorch':clf, **{k:OnnxClassifier(v) for k,v in list(self.folders.items())[1:]}}
        words = [o for o in ' '.join(sentences().text).lower().split() if o.isalpha()]
        self.texts = texts_of(a.texts, a.longest, words)
        self.tokens = [len(o) for o in self.readers['ONNX'].tokenizer.run(self.texts)]
        self.clf = clf

    def answers(self, bits, bs):
        "How far the answers are from PyTorch's"
        name = 'ONNX' if bits==32 else 'ONNX, 8 bits'
        want,got = self.clf.predict_proba(self.texts),self.readers[name].predict_proba(self.texts, bs=bs)
        return dict(texts=len(self.texts), shortest=min(self.tokens), longest=max(self.tokens),
            largest=float(np.abs(got-want).max()), same_label=float((got.argmax(1)==want.argmax(1)).mean()),
            bytes=(self.folders[name]/'model.onnx').stat().st_size)

    def speed(self, rounds):
        "By reader: milliseconds for a short text, seconds for all texts"
        res = {k:[] for k in self.readers}
        for _ in range(rounds):
            for k,o in self.readers.items(): res[k].append(1000*seconds(partial(o.predict_proba, [short]), 30))
        res = {k:dict(short=round(statistics.median(v), 2)) for k,v in res.items()}
        for k,o in self.readers.items(): res[k]['many'] = round(seconds(partial(o.predict_proba, self.texts)), 1)
        return dict(readers=res, processor=processor())

    def start(self, rounds):
        "By reader: seconds from start to first answer"
        res = {k:[] for k in self.readers}
        for _ in range(rounds):
            for k in res: res[k].append(process_seconds(first.format(start[k.split(',')[0]], self.folders[k])))
        return dict(readers={k:round(statistics.median(v), 2) for k,v in res.items()}, processor=processor())

def processor():
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    return next((o.split(':')[1].strip() for o in lines if o.startswith('model name')), 'unknown')

def main(args=None):
    p = parser(__doc__, folder=False, out='onnx.jsonl', threads=1)
    p.add_argument('model', type=Path, help='Folder of a ULMFiTClassifier')
    p.add_argument('--texts', type=int, default=600)
    p.add_argument('--longest', type=int, default=2400, help='Tokens of the longest text')
    p.add_argument('--rounds', type=int, default=3, help='How often each reader is measured')
    a = p.parse_args(args)
    use_threads(a.threads)
    log = Log(a.out)
    with tempfile.TemporaryDirectory() as tmp:
        r = Readers(a, Path(tmp))
        for bits,bs in ((32,16), (8,1), (8,16)): log.run(partial(r.answers, bits, bs), job='answers', bits=bits, bs=bs)
        log.run(lambda: r.start(a.rounds), job='start')
        log.run(lambda: r.speed(a.rounds), job='speed')

if __name__=='__main__': main()
