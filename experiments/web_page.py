"""A classifier as a page in a real browser, opened from a disk without a network: does it say what Python says?

    python experiments/web_page.py MODEL FOLDER --out nbs/logs/web.jsonl

MODEL is a folder that `ulmfit train --both` wrote. FOLDER holds imdb/, small/ and wiki/ with .jsonl.xz files that have
a field `text`: of these 10,000 texts are cut into tokens, 1,600 reviews, 4,000 sentences of others, 2,400 paragraphs
of articles and 2,000 short texts. The labels are of 600 held-out texts: 590 sentences of small/sst2_test and 10 reviews
of imdb/test. It needs Chromium and Playwright, and takes one core."""
import json, lzma, random, re, statistics, sys, tempfile
import numpy as np
from itertools import islice
from pathlib import Path
from runs import Log, parser, use_threads

def sample(source, n, seed=0):
    "`n` of the texts, drawn from the first fifty thousand"
    return random.Random(seed).sample(list(islice(source, 50_000)), n)

def some(folder, name, n):
    "`n` texts of one file"
    with lzma.open(Path(folder)/f'{name}.jsonl.xz', 'rt', encoding='utf8') as lines:
        return sample((json.loads(o)['text'] for o in lines), n)

def many_texts(folder):
    "10,000 texts of several kinds"
    reviews = some(folder, 'imdb/unsup', 5600)
    split = [random.Random(i).choice(re.split(r'(?<=[.!?]) ', o)) for i,o in enumerate(reviews[1600:])]
    articles = [p for o in some(folder, 'wiki/good', 400) for p in o.split('\n') if p.strip()]
    kinds = 'sms_spam','trec_train','germeval2018_test','nsmc_ko_test'
    short = [o for k in kinds for o in some(folder, f'small/{k}', 500)]
    return reviews[:1600]+split+sample(articles, 2400)+short

class Page:
    "The page in a browser"
    def __init__(self, tab): self.tab = tab
    def ask(self, texts, want):
        "What the page's own JavaScript says of each text"
        return [self.tab.page.evaluate('([text, want]) => ask(text, want)', [o, want]) for o in texts]

def kind_of(ours, theirs):
    "Where two lists of tokens part"
    i = next(i for i,(a,b) in enumerate(zip([*ours,None], [*theirs,None])) if a!=b)
    return f'{ours[max(i-1, 0):i+3]} in Python, {theirs[max(i-1, 0):i+3]} in the page'

def tokens(page, ens, texts):
    "Texts with the same tokens, and what differs in the others"
    tok = ens.learners[0].dls.train_ds.tokenizer
    want,got = [list(tok(o)) for o in texts],[o['tokens'] for o in page.ask(texts, 'tokens')]
    odd = [kind_of(a, b) for a,b in zip(want, got) if a!=b]
    return dict(texts=len(texts), equal=len(texts)-len(odd), tokens=sum(map(len, want)), differences=odd[:20])

def answers(page, ens, texts):
    "Labels, probabilities and times"
    want,got = ens.predict_proba(texts, bs=16).numpy(),page.ask(texts, 'answer')
    p = np.array([o['probabilities'] for o in got])
    same = want.argmax(1)==p.argmax(1)
    top = np.sort(want, 1)
    near = (top[:,-1]-top[:,-2])/2<=.01 # the border between two labels
    n,ms = [len(o['tokens']) for o in got],[o['ms'] for o in got]
    return dict(texts=len(texts), same_label=int(same.sum()), other_label_away_from_border=int((~same & ~near).sum()),
        largest=float(np.abs(want-p).max()), labels_of_python=want.argmax(1).tolist().count(1)/len(texts),
        median_tokens=statistics.median(n), median_ms=statistics.median(ms),
        median_ms_per_token=statistics.median(m/k for m,k in zip(ms, n)), longest=max(n),
        bag_of_words=ens.bag is not None)

def main(args=None):
    p = parser(__doc__, folder=False, out=True, threads=1)
    p.add_argument('model', type=Path, help='Of ulmfit train')
    p.add_argument('folder', type=Path, help='Where the texts are')
    a = p.parse_args(args)
    use_threads(a.threads)
    sys.path.append(str(Path(__file__).resolve().parent.parent/'tests'))
    import browser
    from ulmfit_nb.scoring import classifier_of
    from ulmfit_nb.web import export_web
    log,(ens,_) = Log(a.out),classifier_of(a.model, 'cpu')
    with tempfile.TemporaryDirectory() as tmp, browser.chromium(bypass_csp=False) as tab:
        file = export_web(ens, Path(tmp)/'page.html', text='Good.')
        tab.page.context.set_offline(True)
        tab.open(file.resolve().as_uri())
        tab.until("!document.getElementById('result').hidden && document.getElementById('busy').textContent===''", 120)
        page,size = Page(tab),file.stat().st_size
        held_out = some(a.folder, 'small/sst2_test', 590)+some(a.folder, 'imdb/test', 10)
        log.run(lambda: dict(bytes=size), job='size')
        log.run(lambda: answers(page, ens, held_out), job='answers')
        log.run(lambda: tokens(page, ens, many_texts(a.folder)), job='tokens')
        if tab.complaints(): raise RuntimeError(tab.complaints())

if __name__=='__main__': main()
