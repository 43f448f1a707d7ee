"""The default estimator, ULMFiT alone, its bag of words and a tuned TF-IDF + LR with 100, 500 and 2,000 labels, on
seven tasks in three languages.

    python experiments/second_opinion.py FOLDER --out nbs/logs/second_opinion.jsonl

FOLDER holds `imdb` (train) and `small` as JSON lines. A quarter of each task's training texts is asked about (of IMDb a
fifth of the films), the labelled ones are a sample of the rest. One `fit` gives three of the four answers. The rival is
tuned by cross-validation on the labelled texts. Every finished job is a line of the log; a run that was stopped goes
on, and two that are started with the same log share the jobs."""
from functools import partial
from runs import Log, imdb_part, parser, use_threads
from training import tfidf_lr

tasks = dict(sst2='sst2_train', trec='trec_train', sms='sms_spam', sentences='sentences', germeval='germeval2018_train',
    nsmc='nsmc_ko_train', imdb=None)
settings = dict(germeval=dict(lang='de', pretrained=False),
    nsmc=dict(lang='ko', tokenizer='subword', pretrained=False))

def load(folder, name):
    "Texts to learn from, and texts that are asked about"
    from ulmfit_nb.texts import read_texts, split_texts
    if name=='imdb': df = split_texts(imdb_part(folder/'imdb', 'train'), .2, group_col='movie', seed=0)
    else:
        df = read_texts(folder/'small'/f'{tasks[name]}.jsonl.xz')[['text','label']].drop_duplicates('text')
        df = split_texts(df.reset_index(drop=True), .25, seed=5)
    return df[~df.is_valid],df[df.is_valid]

def rival(few, test):
    m = tfidf_lr(list(few.text), list(few.label), cv=3 if len(few)<=100 else 5)
    return dict(accuracy=float(m.score(list(test.text), list(test.label))))

def ours(few, test, seed, how):
    from ulmfit_nb.estimator import ULMFiTClassifier
    clf = ULMFiTClassifier(random_state=seed, **how).fit(few.text, few.label)
    ens,texts,y = clf.ensemble_,list(test.text),test.label.to_numpy()
    def right(p): return float((clf.classes_[p.argmax(1)]==y).mean())
    alone = ens.networks_proba(texts)
    return dict(accuracy=right(ens.with_bag(alone, texts).numpy()), alone=right(alone.numpy()),
        bag=right(ens.bag.log_proba(texts)), weights=list(ens.weights), pretrained=clf.pretrained_,
        report=clf.report_.accuracy.round(4).to_dict(), fit_seconds=round(clf.seconds_, 1))

def report(rows):
    "Means over the seeds, and the gain over TF-IDF + LR"
    gains = []
    for task,n in dict.fromkeys((o['task'],o['n']) for o in rows):
        got = {k:[o for o in rows if (o['task'],o['n'],o['method'])==(task,n,k)] for k in ('TF-IDF + LR','default')}
        if not all(got.values()): continue
        def mean(o, k='accuracy'): return sum(r[k] for r in o)/len(o)
        a,b = mean(got['TF-IDF + LR']),mean(got['default'])
        gains.append(b-a)
        print(f"{task:10}{n:6}  default {b:.3f}  alone {mean(got['default'], 'alone'):.3f}  "
            f"bag {mean(got['default'], 'bag'):.3f}  TF-IDF + LR {a:.3f}  gain {b-a:+.3f}")
    if gains: print(f'mean gain {sum(gains)/len(gains):+.4f}, worst {min(gains):+.4f}, {len(gains)} cells')

def main(args=None):
    p = parser(__doc__, out='nbs/logs/second_opinion.jsonl', threads=1)
    p.add_argument('--tasks', nargs='+', default=list(tasks), choices=list(tasks))
    p.add_argument('--n', nargs='+', type=int, default=[100,500,2000])
    p.add_argument('--seeds', nargs='+', type=int, default=[0,1,2])
    p.add_argument('--test', type=int, default=1500, help='Texts to ask about, at most')
    p.add_argument('--report', action='store_true', help='Only print what the log holds')
    a = p.parse_args(args)
    use_threads(a.threads)
    log = Log(a.out)
    if a.report: return report(log.rows)
    from ulmfit_nb.texts import stratified_sample
    jobs = []
    for n in a.n:
        for seed in a.seeds:
            for name in a.tasks:
                train,test = load(a.folder, name)
                if len(test)>a.test: test = stratified_sample(test, a.test, seed=0)
                if n>len(train): continue
                few = stratified_sample(train, n, seed=seed).sample(frac=1, random_state=seed)
                key = dict(task=name, n=n, seed=seed, test=len(test))
                jobs.append((partial(rival, few, test), dict(key, method='TF-IDF + LR')))
                jobs.append((partial(ours, few, test, seed, settings.get(name, {})), dict(key, method='default')))
    log.run_all(jobs)
    report(log.rows)

if __name__=='__main__': main()
