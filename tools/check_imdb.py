"Compare tokens and ids with fastai's on all of IMDb: python tools/check_imdb.py FOLDER, which holds train, test and unsup .jsonl.xz or .jsonl"
import json,lzma,os,sys,time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')

def read(folder):
    for f in sorted(Path(folder).glob('*.jsonl*')):
        with (lzma.open if f.suffix=='.xz' else open)(f, 'rt', encoding='utf8') as o: yield from (json.loads(l)['text'] for l in o)

def start(vocab_texts):
    "Each process keeps one memo for all of its chunks, as a long run does, and forgets now and then"
    global theirs,memo,num,numberer
    from fastai.text import core as fai
    from fastai.text.data import Numericalize,make_vocab
    from ulmfit_nb.numericalization import _O2I
    from ulmfit_nb.tokenization import PieceMemo,WordTokenizer,_Numberer,_TokenizeWithRules
    theirs,memo = fai.TokenizeWithRules(fai.WordTokenizer()),PieceMemo(WordTokenizer(), max_pieces=100_000)
    num = Numericalize(make_vocab(Counter(o for t in theirs(vocab_texts) for o in t)))
    numberer = _Numberer(_TokenizeWithRules(), 2)
    numberer.final = _O2I(num.vocab)

def check(at, texts):
    "Number of reviews, tokens, and the places of those that differ"
    bad,n,lo = [],0,0
    toks,ids,lens = numberer(texts)
    ids = numberer.final.map(toks)[ids]
    for i,(t,mine_toks,ref) in enumerate(zip(texts, memo.many(texts), theirs(texts))):
        mine = ids[lo:lo+lens[i]].tolist()
        lo,n = lo+lens[i],n+lens[i]
        if mine_toks!=list(ref) or mine!=num(ref).tolist(): bad.append(at+i)
    return len(texts),n,bad

def main(folder, workers=2, n=1000):
    texts,start_at = list(read(folder)),time.time()
    chunks = range(0, len(texts), n)
    with ProcessPoolExecutor(workers, initializer=start, initargs=(texts[:2000],)) as ex: res = list(ex.map(check, chunks, (texts[i:i+n] for i in chunks)))
    bad = [o for r in res for o in r[2]]
    print(f'{sum(r[0] for r in res):,} reviews, {sum(r[1] for r in res):,} tokens, {len(bad)} reviews differ, {time.time()-start_at:.0f} s')
    for i in bad[:10]: print(i, repr(texts[i][:300]))
    return bool(bad)

if __name__=='__main__': sys.exit(main(sys.argv[1]))
