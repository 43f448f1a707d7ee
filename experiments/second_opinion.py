"""The default estimator, ULMFiT alone, its bag of words and a tuned TF-IDF + LR with 100, 500 and 2,000 labels, on
seven tasks in three languages.

    python experiments/second_opinion.py FOLDER --out nbs/logs/second_opinion.jsonl

FOLDER holds `imdb` (train) and `small` as JSON lines. A quarter of each task's training texts is asked about (of IMDb a
fifth of the films), the labelled ones are a sample of the rest. One `fit` gives three of the four answers. The rival is
tuned by cross-validation on the labelled texts; Korean has a second one, of characters. Every finished job is a line of
the log; a run that was stopped goes on, and two that are started with the same log share the jobs."""
from functools import partial
from runs import Log, imdb_part, parser, use_threads
from training import char_tfidf_lr, tfidf_lr

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

def rival(few, test, make=tfidf_lr):
    m = make(list(few.text), list(few.label), cv=3 if len(few)<=100 else 5)
    return dict(accuracy=float(m.score(list(test.text), list(test.label))))

def rivals(how):
    "The rivals that a task asks for: where words are cut into pieces, strings of characters as well"
    return {'TF-IDF + LR':tfidf_lr, **({'characters + LR':char_tfidf_lr} if how.get('tokenizer')=='subword' else {})}

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
    "Means over the seeds, and the gain over the better rival"
    from ulmfit_nb.measurements import beside_rival
    if not rows: return
    won = beside_rival(rows)
    print(f'{won.round(1)}\nmean gain {won.gain.mean():+.2f}, worst {won.gain.min():+.2f}, {len(won)} cells')

def compare(log, load, tasks, ns, seeds, n_test, settings):
    "Each task with each number of labels and each seed: the rivals, then the default. `load(task)` gives two parts"
    from ulmfit_nb.texts import stratified_sample
    jobs = []
    for n in ns:
        for seed in seeds:
            for name in tasks:
                train,test = load(name)
                if len(test)>n_test: test = stratified_sample(test, n_test, seed=0)
                if n>len(train): continue
                few = stratified_sample(train, n, seed=seed).sample(frac=1, random_state=seed)
                key = dict(task=name, n=n, seed=seed, test=len(test))
                how = settings.get(name, {})
                jobs += [(partial(rival, few, test, make), dict(key, method=k)) for k,make in rivals(how).items()]
                jobs.append((partial(ours, few, test, seed, how), dict(key, method='default')))
    log.run_all(jobs)

def run(args, doc, out, tasks, ns, load, settings):
    "What a script does with its arguments; `load(folder, task)` gives two parts"
    p = parser(doc, out=out, threads=1)
    p.add_argument('--tasks', nargs='+', default=list(tasks), choices=list(tasks))
    p.add_argument('--n', nargs='+', type=int, default=ns)
    p.add_argument('--seeds', nargs='+', type=int, default=[0,1,2])
    p.add_argument('--test', type=int, default=1500, help='Texts to ask about, at most')
    p.add_argument('--report', action='store_true', help='Only print what the log holds')
    a = p.parse_args(args)
    use_threads(a.threads)
    log = Log(a.out)
    if not a.report: compare(log, partial(load, a.folder), a.tasks, a.n, a.seeds, a.test, settings)
    report(log.rows)

def main(args=None): run(args, __doc__, 'nbs/logs/second_opinion.jsonl', tasks, [100,500,2000], load, settings)

if __name__=='__main__': main()
