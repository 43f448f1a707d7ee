"""Tokens and ids against fastai's, on all of IMDb: which reviews differ.

    python experiments/check_imdb.py FOLDER

FOLDER holds train, test and unsup as JSON lines. The first reviews that differ are printed, and the exit code says
whether there are any."""
import sys, time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from runs import parser, texts, use_threads

def start(vocab_texts):
    "Each process keeps one memo for all of its chunks, as a long run does, and forgets now and then"
    global theirs,memo,num,numberer,numbers
    from fastai.text import core as fai
    from fastai.text.data import Numericalize, make_vocab
    from ulmfit_nb import numericalization as ours
    from ulmfit_nb.fast_tokenization import PieceMemo
    from ulmfit_nb.parallel import Numberer
    from ulmfit_nb.tokenization import TokenizeWithRules, WordTokenizer
    use_threads(1)
    theirs,memo = fai.TokenizeWithRules(fai.WordTokenizer()),PieceMemo(WordTokenizer(), max_pieces=100_000)
    num = Numericalize(make_vocab(Counter(o for t in theirs(vocab_texts) for o in t)))
    numberer,numbers = Numberer(TokenizeWithRules(), 2),ours.Numericalize(num.vocab).o2i

def check(at, texts):
    "Number of reviews, tokens, and the places of those that differ"
    bad,n,lo = [],0,0
    toks,ids,lens = numberer(texts)
    ids = numbers.map(toks)[ids]
    for i,(t,mine_toks,ref) in enumerate(zip(texts, memo.many(texts), theirs(texts))):
        mine = ids[lo:lo+lens[i]].tolist()
        lo,n = lo+lens[i],n+lens[i]
        if mine_toks!=list(ref) or mine!=num(ref).tolist(): bad.append(at+i)
    return len(texts),n,bad

def main(args=None):
    p = parser(__doc__)
    p.add_argument('--workers', type=int, default=2)
    p.add_argument('--chunk', type=int, default=1000, help='Reviews that a process takes at a time')
    a = p.parse_args(args)
    reviews,start_at = list(texts(a.folder)),time.time()
    chunks = range(0, len(reviews), a.chunk)
    with ProcessPoolExecutor(a.workers, initializer=start, initargs=(reviews[:2000],)) as ex:
        res = list(ex.map(check, chunks, (reviews[i:i+a.chunk] for i in chunks)))
    bad = [o for r in res for o in r[2]]
    print(f'{sum(r[0] for r in res):,} reviews, {sum(r[1] for r in res):,} tokens, {len(bad)} reviews differ, '
        f'{time.time()-start_at:.0f} s')
    for i in bad[:10]: print(i, repr(reviews[i][:300]))
    return int(bool(bad))

if __name__=='__main__': sys.exit(main())
