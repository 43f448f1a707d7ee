"""Seconds of the processor to tokenize runs of 10,000 and 100,000 signs without a space, and whether the tokens are
fastai's.

    python experiments/long_words.py
    python experiments/long_words.py --fastai 60

Time that grows with the length has a ratio of about 10, time that grows with its square one of about 100. With
`--fastai` the tokens are compared with fastai's wherever it answers within so many seconds: where shorter runs show
that it won't, by far, it isn't asked."""
import gc, signal, time
from functools import lru_cache
from runs import parser, use_threads

KINDS = ["'", '"', '(', '=', '$', '…', '😀', ':)', '()', '[]', '!?', '😀😁', 'a,', '://']
WAYS = 'rules and words','words'

class Late(Exception): pass

def stop(*args): raise Late

def within(seconds, f):
    "`f()` and the seconds of the processor that it took; `None` if it is not done in time"
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    gc.disable() # as timeit does: a collection looks at all that was ever made
    start = time.process_time()
    try: return f(),time.process_time()-start
    except Late: return None,None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.enable()

@lru_cache
def both(way, lang='en'):
    "Our way from text to tokens, and fastai's"
    from fastai.text import core as fai
    from ulmfit_nb.tokenization import TokenizeWithRules, WordTokenizer
    tok,theirs = WordTokenizer(lang),fai.WordTokenizer(lang)
    f,ref = (TokenizeWithRules(tok),fai.TokenizeWithRules(theirs)) if way==WAYS[0] else (tok,theirs)
    list(f(['What is made once, is made now: '+'!?'*200]))
    return [lambda t, o=o: list(next(iter(o([t])))) for o in (f,ref)]

def run_of(signs, n): return (signs*n)[:n]+'z!'

def fastai_tokens(signs, n, way, seconds, lang='en'):
    "fastai's tokens; `None` if it needs more seconds, and the text by which that was seen"
    _,ref = both(way, lang)
    for k in (n//10, n//3, n) if n>10_000 else (n,):
        res,took = within(seconds, lambda: ref(run_of(signs, k)))
        if res is None or took*(n/k)>5*seconds: return None # even if it were no more than linear
        if k<n and took*(n/k)**2>3*seconds and took>1: return None
    return res

def compared(signs, way, seconds=0, lang='en'):
    "Our seconds for 10,000 and 100,000 signs, their ratio, and for each length whether the tokens are fastai's"
    f,_ = both(way, lang)
    secs,same = [],[]
    for n in (10_000, 100_000):
        took = []
        text = run_of(signs, n)
        toks,once = within(600, lambda: f(text))
        k = min(100, 1+int(.2/(once+.001))) # the clock of the processor may move in steps of a hundredth of a second
        for j in range(3): # the least is nearest to what it takes on a machine of one's own
            some = [run_of(signs, n-1-j-3*i) for i in range(k)] # none that has been seen: words are remembered
            took.append(within(600, lambda: [f(o) for o in some])[1]/k)
        secs.append(min(took))
        want = fastai_tokens(signs, n, way, seconds, lang) if seconds else None
        same.append(None if want is None else want==toks)
    return dict(ours=[round(o, 4) for o in secs], ratio=round(secs[1]/secs[0], 1), same=same)

def main(args=None):
    p = parser(__doc__, folder=False)
    p.add_argument('--fastai', type=int, default=0, help='Seconds that fastai may take for a text; 0: it is not asked')
    p.add_argument('--lang', default='en')
    args = p.parse_args(args)
    use_threads(1)
    print('signs     way              10,000    100,000    ratio   same as fastai')
    for signs in KINDS:
        for way in WAYS:
            o = compared(signs, way, args.fastai, args.lang)
            same = ' '.join({None:'-', True:'yes', False:'NO'}[k] for k in o['same'])
            print(f"{signs:9} {way:16} {o['ours'][0]:7.3f} s  {o['ours'][1]:7.3f} s  {o['ratio']:6.1f}   {same}",
                flush=True)

if __name__=='__main__': main()
