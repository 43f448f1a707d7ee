"""A folder of each kind that the package writes, and what an accident or a stranger may do to it: bits flip, files are
cut off, and descriptions, weights and words are made to do harm"""
import io, json, os, pickle, random, shutil, signal, threading, time, types
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
import numpy as np, torch
from ulmfit_nb.all import *
from ulmfit_nb.files import read_json, sha256_of, write_manifest, write_meta

small = dict(emb_sz=8, n_hid=8, n_layers=2)
texts = ['A good film.', 'It was bad, all of it, from the first minute to the last one.', 'Why not?']

# ---- a folder of each kind

class Case(types.SimpleNamespace):
    "`folder` holds what was saved; `answer` reads it and gives numbers"

def make_cases(d):
    "Each kind of folder that the package writes, in `d`, with a function that uses it"
    some = sentences().groupby('label').head(20).reset_index(drop=True)
    def learner(tok=None):
        set_seed(1)
        dls = TextDataLoaders.from_df(some, path=d, text_col='text', label_col='label', bs=8, seed=1, tok_tfm=tok)
        return text_classifier_learner(dls, AWD_LSTM, config=small, pretrained=False)
    clas = learner()
    sub = learner(SubwordTokenizer(vocab_sz=90))
    set_seed(1)
    dls = TextDataLoaders.from_df(some, path=d, text_col='text', is_lm=True, bs=4, seq_len=8, seed=1)
    lm = language_model_learner(dls, AWD_LSTM, config=small, pretrained=False)
    est = ULMFiTClassifier(pretrained=False, size='tiny', lm_epochs=0, epochs=(0,0,0,0), bs=8, seq_len=16,
        max_vocab=300, verbose=0).fit(some.text, some.label)
    def proba(f): return torch.as_tensor(load_learner(f).predict_proba(texts, progress=False))
    def state(o): return torch.cat([v.flatten().float() for v in o.model.state_dict().values()])
    def again(o, how):
        for p in o.model.parameters(): p.data.fill_(.5)
        how()
        return state(o)
    def bag(f):
        o = BagOfWords.load(f)
        return torch.as_tensor(o.log_proba(texts) if hasattr(o, 'log_proba') else o.weights)
    def corpus(f):
        c = Corpus.open(f)
        return torch.tensor([len(c), *c.ids[:].tolist(), *c.offsets.tolist()]), c.vocab, str(c.tokenizer_config)
    def shards(f):
        (d/'in').mkdir()
        for i in range(2): some[i::2][['text']].to_json(d/'in'/f'{i}.jsonl', orient='records', lines=True)
        corpus_from_files(d/'in', f, Tokenizer(SubwordTokenizer(vocab_sz=90)), min_freq=1, shard_mb=1e-6)
    def shards_use(f):
        tok = Tokenizer.from_config(Corpus.open(f).tokenizer_config, f)
        return *corpus(f),list(tok(texts[1]))
    def words(o, f): return o(f), load_learner(f).vocab, str(read_json(Path(f)/'model.json')['tokenizer'])
    res = {}
    def case(name, make, use):
        make(d/name)
        res[name] = Case(folder=d/name, use=use)
    case('export', lambda f: clas.export(f), lambda f: words(proba, f))
    case('int8', lambda f: clas.export(f, dtype='int8'), lambda f: words(proba, f))
    case('subwords', lambda f: sub.export(f), lambda f: words(proba, f))
    case('lm', lambda f: lm.export(f), lambda f: words(lambda f: state(load_language_model(f)), f))
    case('encoder', lambda f: lm.save_encoder(f/'e'), lambda f: again(lm, lambda: lm.load_encoder(f/'e')))
    case('learner', lambda f: lm.save(f/'l'), lambda f: again(lm, lambda: lm.load(f/'l')))
    case('ensemble', lambda f: Ensemble([clas, clas]).save(f), lambda f: Ensemble.load(f).predict_proba(texts))
    case('estimator', lambda f: est.save(f), lambda f: (torch.as_tensor(ULMFiTClassifier.load(f).predict_proba(texts)),
        ULMFiTClassifier.load(f).predict(texts).tolist()))
    case('corpus', lambda f: Corpus.from_texts(some.text, path=f, min_freq=1), corpus)
    case('shards', shards, shards_use)
    def no_torch(f): return torch.as_tensor(NumpyClassifier(f).predict_proba(texts))
    case('numpy_estimator', lambda f: est.save(f), no_torch)
    case('numpy_subwords', lambda f: sub.export(f), no_torch)
    if find_spec('onnx') and find_spec('onnxruntime'):
        from ulmfit_nb.onnx_export import OnnxClassifier, export_onnx
        case('onnx', lambda f: export_onnx(clas, f), lambda f: torch.as_tensor(OnnxClassifier(f).predict_proba(texts)))
    case('bag', lambda f: BagOfWords(n_folds=2, Cs=(1,)).fit(some.text.tolist(),
        (some.label=='positive').astype(int).to_numpy(), 2).save(f),
        bag)
    def ckpt(f):
        f.mkdir()
        save_checkpoint(f/'c.ckpt', dict(step=3, w=torch.arange(5.), names=['a','b'], lr=.1))
    case('checkpoint', ckpt, lambda f: str(load_checkpoint(f/'c.ckpt')))
    for o in res.values(): o.want = o.use(o.folder)
    return res

def same(a, b):
    if isinstance(a, tuple): return len(a)==len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor): return a.shape==b.shape and torch.equal(a, b)
    return a==b

refusals = ValueError,OSError,pickle.UnpicklingError

def verdict(case, folder):
    "`refused`, `equal`, or what is wrong"
    try: got = case.use(folder)
    except refusals as e:
        said = str(e)
        return 'refused' if len(said)>20 and not {'Traceback','\n'}&{*said.split(' '),*said} else f'unclear: {e!r}'
    except Exception as e: return f'bare {type(e).__name__}: {str(e)[:200]}'
    return 'equal' if same(got, case.want) else 'OTHER ANSWERS'

# ---- flips

def flips(cases, n, seed, tmp_path):
    "How often a folder with one bit that is another was refused, gave equal answers, or something wrong"
    rng,res = random.Random(seed),Counter()
    names = list(cases)
    for i in range(n):
        case = cases[names[i%len(names)]]
        shutil.copytree(case.folder, tmp_path/'f')
        f = rng.choice(sorted(o for o in (tmp_path/'f').rglob('*') if o.is_file()))
        b = bytearray(f.read_bytes())
        at = rng.randrange(min(len(b), 400) if rng.random()<.3 else len(b)) # headers more often
        b[at] ^= 1<<rng.randrange(8)
        f.write_bytes(b)
        said = verdict(case, tmp_path/'f')
        res[said if said in ('refused','equal') else 'wrong'] += 1
        if said not in ('refused','equal'): res[f'{names[i%len(names)]} {f.name} byte {at}: {said}'] += 1
        shutil.rmtree(tmp_path/'f')
    return res

# ---- hostile folders

class Payload:
    "A pickle that leaves a mark when it is loaded"
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return os.system, (f'touch {self.mark}',)

odd = [None, 'x', -1, 0, 1e308, 10**12, True, [], {}, [[]], {'a':{}}, ['x']*3, [1,2], '../..', '/etc/passwd',
    '__import__']

def resigned(folder, meta):
    "Put `meta` there as an attacker would, who can sign as well as we do"
    f = description(folder)[0]
    if f.name in ('model.json','corpus.json'): write_meta(f, meta)
    else: write_manifest(folder, {k:v for k,v in meta.items() if k not in ('files','sha256')}, f.name)

def description(folder):
    name = next(o for o in ('estimator.json','ensemble.json','corpus.json','model.json') if (folder/o).exists())
    return folder/name,read_json(folder/name)

def with_value(path, value):
    "Replace what is at `path` in the description"
    def f(folder, mark):
        meta = description(folder)[1]
        o = meta
        for k in path[:-1]: o = o[k]
        o[path[-1]] = value
        resigned(folder, meta)
    return f

def without(key):
    def f(folder, mark):
        meta = description(folder)[1]
        del meta[key]
        resigned(folder, meta)
    return f

def raw(name, data):
    def f(folder, mark):
        for o in folder.rglob(name): o.write_bytes(data(mark) if callable(data) else data)
    return f

def header(h):
    "A safetensors file that says it holds more than there is"
    b = json.dumps(h).encode()
    return len(b).to_bytes(8, 'little')+b+b'\0'*64

def pickled(mark): return pickle.dumps(Payload(mark))
def torch_pickled(mark):
    torch.save(Payload(mark), buf := io.BytesIO())
    return buf.getvalue()
def object_array(mark):
    np.save(buf := io.BytesIO(), np.array([Payload(mark)], object), allow_pickle=True)
    return buf.getvalue()

def resign_after(change):
    "`change`, and then the checksums of all files are as they should be"
    def f(folder, mark):
        change(folder, mark)
        for m in sorted(folder.rglob('model.json')):
            meta,w = json.loads(m.read_text()),m.parent/'weights.safetensors'
            if w.is_file(): meta['sha256'] = sha256_of(w)
            write_meta(m, meta, [o for o in m.parent.iterdir() if o.is_file() and o!=m])
        if (c := folder/'corpus.json').exists():
            write_meta(c, read_json(c), [o for o in folder.iterdir() if o!=c])
    return f

def special(name, make):
    def f(folder, mark):
        for o in folder.rglob(name):
            o.unlink()
            make(o)
    return f

def hostile(cases):
    "Kind of folder and what is done to it, most telling first"
    deep = b'{"a":'*100_000
    whole = [*(('export', raw('model.json', o)) for o in (deep, b'[]', b'{}')),
        ('estimator', raw('estimator.json', b'['*200_000)), ('corpus', raw('corpus.json', b'{"format":1}')),
        ('ensemble', raw('ensemble.json', b'{"format":"ulmfit_nb","format_version":2}'))]
    big = {'w':dict(dtype='F32', shape=[10**9,10**9], data_offsets=[0,4*10**18])}
    wide = (10**12).to_bytes(8, 'little')+b'{}'
    lies = {'0.encoder.weight':dict(dtype='F32', shape=[2**40], data_offsets=[0,64])}
    for data in (header(big), header(lies), wide, b'', pickled, torch_pickled, b'\x80\x04'*50):
        whole += [(o, resign_after(raw('weights.safetensors', data))) for o in ('export','lm')]
    for data in (pickled, object_array, b'\x93NUMPY\x01\x00\xff\xff', b'\x93NUMPY\x01\x00v\x00'+b"{'descr': '<i4', "
        b"'fortran_order': False, 'shape': (1000000000000,), }".ljust(118)):
        whole += [('corpus', resign_after(raw(o, data))) for o in ('ids.npy','offsets.npy')]
    for data in (pickled, torch_pickled, b'x'*100):
        whole += [('checkpoint', raw('c.ckpt', data)), ('subwords', resign_after(raw('spm.model', data)))]
    whole += [('bag', raw(o, pickled)) for o in ('bag_of_words.json','bag_of_words.safetensors')]
    if hasattr(os, 'mkfifo'):
        for make in (os.mkfifo, lambda o: o.symlink_to('/dev/zero'), lambda o: o.mkdir(), lambda o: o.symlink_to(o)):
            whole += [(k, special(n, make)) for k,n in (('export','weights.safetensors'), ('export','model.json'),
                ('corpus','ids.npy'), ('checkpoint','c.ckpt'), ('encoder','e.safetensors'), ('subwords','spm.model'))]
    for name in ('../secret','/etc/passwd','a/../../b','..\\x'):
        whole.append(('export', with_value(['contents'], {name:dict(bytes=1, sha256='0')})))
        whole.append(('ensemble', with_value(['members'], [name])))
        whole.append(('estimator', with_value(['directions'], [name])))
    def values(kind, *at):
        o = description(cases[kind].folder)[1]
        for k in at: o = o[k]
        return [(kind, with_value([*at, k], v)) for k in o for v in odd if at or k not in ('files','sha256','signed')]
    more = [('export', without(k)) for k in description(cases['export'].folder)[1] if k not in ('contents','signed')]
    for at in (['config'], ['tokenizer'], ['target'], []): more += values('export', *at)
    more += values('estimator') + values('ensemble') + values('corpus') + values('lm', 'config') + values('lm')
    return whole, more

class Hangs(BaseException): pass

def hangs(*args): raise Hangs

def try_hostile(cases, todo, tmp_path, patience=120):
    "What became of the folders `todo`, and the most seconds of the processor that one took"
    res,slowest,mark = Counter(),0,tmp_path/'code was run'
    alarm = hasattr(signal, 'SIGALRM')
    if alarm: signal.signal(signal.SIGALRM, hangs)
    for kind,change in todo:
        shutil.copytree(cases[kind].folder, tmp_path/'h', symlinks=True)
        change(tmp_path/'h', mark)
        start = time.process_time()
        if alarm: signal.alarm(patience)
        try: said = verdict(cases[kind], tmp_path/'h')
        except Hangs: said = 'hangs'
        finally:
            if alarm: signal.alarm(0)
        took = time.process_time()-start
        slowest = max(slowest, took)
        res['code run'] += mark.exists()
        res['slow'] += took>2
        bad = said.startswith(('bare','unclear','hangs'))
        res['unclear' if bad else 'refused' if said=='refused' else 'accepted'] += 1
        if bad: res[f'{kind}: {said}'] += 1
        shutil.rmtree(tmp_path/'h')
    return res,slowest

# ---- forks

def forks_under_load(folder, n, seed, patience=300):
    "How many of `n` children that are forked while threads predict hang, and how many answer otherwise"
    learn,rng = load_learner(folder),random.Random(seed)
    some,stop = sentences().text.tolist()[:60],[]
    want = learn.predict_proba(some[:3], progress=False)
    def load(i):
        own = random.Random(i)
        while not stop: learn.predict_proba([f'{own.random()} {o}' for o in some], progress=False)
    threads = [threading.Thread(target=load, args=(i,)) for i in range(3)]
    for o in threads: o.start()
    res = Counter(hung=0, wrong=0)
    try:
        for _ in range(n):
            time.sleep(rng.uniform(.01, .15))
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(patience)
                try: os._exit(0 if torch.equal(learn.predict_proba(some[:3], progress=False), want) else 3)
                except BaseException: os._exit(4)
            status = os.waitpid(pid, 0)[1]
            res['hung'] += status==signal.SIGALRM
            res['wrong'] += status not in (0,signal.SIGALRM)
    finally:
        stop.append(1)
        for o in threads: o.join()
    return dict(res)
