"""A pretrained language model for others: the folder that `ulmfit pretrain` wrote, made small, measured, and
described.

    python tools/release_lm.py RUN wiki-en-compact-fwd --out ulmfit_nb/data/pretrained --about about.json \\
        --texts wiki/featured.jsonl.xz wiki/good.jsonl.xz --wikitext wikitext103

RUN is the folder given to `pretrain` (its `model` and, for what it kept aside, the corpus). `--texts` are the same
files in the same order, for the characters of the articles kept aside; where `pretrain` validated on files of their
own, `--aside` names them. `--wikitext` is a folder with
`valid.tokens.xz` and `test.tokens.xz` of WikiText-103. `--about` is JSON that goes into the card as it is: data,
licence, and so on. The card is the field `card` of the model's `model.json`.

WikiText's marks are undone (`@-@` becomes `-` within its word), and its `<unk>` are read as xxunk but not counted
as something to guess. The perplexity is also given per token of WikiText (one end of line each), as models with
other tokens are compared. A word outside the vocabulary is guessed as xxunk, which is easier than the word: its
share is given."""
import argparse, json, lzma, math
from pathlib import Path
from ulmfit_nb.all import *
from ulmfit_nb.pretraining import _aside

def wikitext(file):
    """The articles as plain text with xxunk, the number of WikiText's own tokens without `<unk>`, and the number of
    `<unk>`"""
    with lzma.open(file, 'rt', encoding='utf8') as f: lines = f.read().split('\n')
    n,unk = sum(len(o.split())+1 for o in lines[:-1]),sum(o.split().count('<unk>') for o in lines)
    articles,prev = [],''
    for o in map(str.strip, lines):
        if re.fullmatch(r'= [^=].* =', o) and not prev: articles.append([])
        if articles: articles[-1].append(o)
        prev = o
    texts = ['\n'.join(a) for a in articles]
    for mark in '-,.': texts = [t.replace(f' @{mark}@ ', mark) for t in texts]
    return [t.replace('<unk>', UNK) for t in texts], n-unk, unk

def measure(lm, texts, bf16=False):
    """Loss, perplexity and bits per character of `texts`, and how many of the tokens guessed are not in the vocabulary;
    xxunk in the text is not guessed"""
    o2i,nats,n,oov = {w:i for i,w in enumerate(lm.vocab)},0.,0,0
    for r in lm.score(texts, bs=16, bf16=bf16).itertuples():
        for t,logp in zip(r.tokens, r.log_probs):
            if t==UNK: continue
            nats,n,oov = nats-logp,n+1,oov+(t not in o2i)
    return dict(texts=len(texts), tokens=n, loss=round(nats/n, 4), perplexity=round(math.exp(nats/n), 2),
        outside_vocabulary=round(oov/n, 4),
        bits_per_character=round(nats/math.log(2)/sum(map(len, texts)), 4)), nats

def evaluate(lm, aside, wikitext_folder):
    "Results by name of the texts"
    res = {}
    if aside: res['articles kept aside'] = measure(lm, aside)[0]
    for part in ('valid','test') if wikitext_folder else ():
        texts,norm,unk = wikitext(Path(wikitext_folder)/f'{part}.tokens.xz')
        r,nats = measure(lm, texts)
        res[f'WikiText-103 {part}'] = dict(r, tokens_of_wikitext=norm, unk_left_out=unk,
            perplexity_per_token_of_wikitext=round(math.exp(nats/norm), 2))
    return res

def kept_aside(corpus, files, valid, seed):
    "The texts that `pretrain` did not train on"
    keep = set(_aside(Corpus.open(corpus), valid, seed)[1].tolist())
    return [t for i,t in enumerate(stream_texts(files)) if i in keep]

def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('run', type=Path)
    p.add_argument('name', help='Name of the model, with -fwd or -bwd')
    p.add_argument('--out', type=Path, required=True, help='Folder in which the folder NAME is made')
    p.add_argument('--dtype', default='int8', choices=['int8','float16','bfloat16'])
    p.add_argument('--about', type=Path, help='JSON for the card')
    p.add_argument('--corpus', type=Path, help='Corpus of the run, if it is not RUN/corpus')
    p.add_argument('--texts', nargs='*', default=[], type=Path, help='Files that the corpus was made of')
    p.add_argument('--aside', nargs='*', default=[], type=Path, help='Files of the texts kept aside, all of them')
    p.add_argument('--valid', type=float, default=100_000)
    p.add_argument('--wikitext', type=Path)
    p.add_argument('--prompts', nargs='*', default=['The film was', 'The city is known for', 'In 1914'],
        help='Beginnings (backwards: ends) of the samples')
    a = p.parse_args(args)
    whole = load_language_model(a.run/'model')
    back = whole.dls.backwards
    if not a.name.endswith('-bwd' if back else '-fwd'):
        raise SystemExit(f"{a.run} reads {'backwards' if back else 'forwards'}, but the name is {a.name}")
    if not a.texts and not a.aside and not a.wikitext:
        raise SystemExit('nothing to measure on: give --texts, --aside or --wikitext')
    with atomic_path(a.out/a.name) as folder: # there with its card, or not at all
        card = describe(a, whole, quantize_weights(a.run/'model', folder, a.dtype))
    print(json.dumps(card, ensure_ascii=False, indent=1))

def whole_reading(how):
    "Tokens and hours of a core of a training, and of those that it began with"
    tokens = hours = 0
    while how:
        tokens,hours = tokens+how['tokens'],hours+how.get('cpu_seconds', how['seconds'])/3600
        how = how.get('start')
    return dict(tokens_read=tokens, core_hours=round(hours, 1))

def curve(how):
    "Tokens read and loss on the articles kept aside at the end of each training, the first one first"
    res = []
    while how:
        res.insert(0, dict(tokens_read=whole_reading(how)['tokens_read'], loss=round(how['valid_loss'], 4)))
        how = how.get('start')
    return res

def describe(a, whole, folder):
    "Measure the small model in `folder` beside the `whole` one, and write its card"
    small,how = load_language_model(folder),read_meta(folder/'model.json')['pretraining']
    aside = list(stream_texts(a.aside)) if a.aside else []
    if a.texts: aside = kept_aside(a.corpus or a.run/'corpus', a.texts, a.valid, how['seed'])
    size = sum(o.stat().st_size for o in folder.iterdir())
    written = small.generate(a.prompts, 40, temperature=.7, seed=1)
    card = dict(json.loads(a.about.read_text(encoding='utf8')) if a.about else {}, name=a.name,
        direction='backwards' if whole.dls.backwards else 'forwards',
        parameters=sum(o.numel() for o in whole.model.parameters()), vocabulary=len(whole.vocab), bytes=size,
        pretraining=how, **whole_reading(how), validation_by_training=curve(how),
        results={'as stored':evaluate(small, aside, a.wikitext), 'before rounding':evaluate(whole, aside, a.wikitext)},
        samples=[dict(prompt=p, text=t) for p,t in zip(a.prompts, written)])
    fname = folder/'model.json'
    meta = read_meta(fname)
    write_meta(fname, dict(meta, card=card))
    load_language_model(folder) # still to be read
    return card

if __name__=='__main__': main()
