"""Texts that nobody writes: long runs of any sign, words of thousands of signs, texts of megabytes, a fork at a bad
moment. Work is counted, not timed"""
import os, pickle, random, signal, threading
import pytest
from fastai.text import core as fai
import ulmfit_nb.cutting as cutting
import ulmfit_nb.fast_tokenization as fast
from ulmfit_nb.cutting import *
from ulmfit_nb.parallel import Numberer
from ulmfit_nb.rules import *
from ulmfit_nb.texts import sentences
from ulmfit_nb.tokenization import *

RUNS = ["'", '"', '(', '=', '$', '…', '😀', ':)', '()', '[]', '!?', '😀😁', 'a,', '://', 'é)', '-.']

@pytest.fixture(scope='module')
def theirs():
    run,words = fai.TokenizeWithRules(fai.WordTokenizer()),fai.WordTokenizer()
    return lambda t: list(next(iter(run([t])))),lambda t: list(next(iter(words([t]))))

@pytest.fixture(scope='module')
def ours():
    run,words = TokenizeWithRules(),WordTokenizer()
    return lambda t: list(next(iter(run([t])))),lambda t: list(next(iter(words([t]))))

def run_of(sign, n): return (sign*n)[:n]

@pytest.mark.parametrize('sign', RUNS)
def test_tokens_of_a_run_are_fastais(ours, theirs, sign):
    for t in (run_of(sign, 700), run_of(sign, 301)+'z!', 'Aa '+run_of(sign, 300)+' b.', f'({run_of(sign, 250)}:)'):
        for mine,ref in zip(ours, theirs): assert mine(t)==ref(t)

def test_tokens_of_any_mixture_are_fastais(ours, theirs):
    rng = random.Random(1)
    parts = [*RUNS, ' ', '  ', ' \n', '...', "can't", 'U.S.', ':(:', ':))', '8km', 'http://a.b/c', 'x@y.z', 'A'*60, '/']
    for i in range(120):
        some = rng.sample(parts, rng.randrange(1, 6))
        t = ''.join(rng.choice(some) for _ in range(rng.randrange(1, 200)))
        for mine,ref in zip(ours, theirs): assert mine(t)==ref(t), t

class Counts:
    "What patterns look at, in characters, and what spaCy gets: its longest word"
    seen = longest = 0
    def reset(self): self.seen = self.longest = 0
    def asked(self, t): self.longest = max(self.longest, *map(len, t.split() or ['']))

class SpacyThatCounts:
    def __init__(self, tk, counts): self.tk,self.counts = tk,counts
    def __getattr__(self, k): return getattr(self.tk, k)
    def __call__(self, t):
        self.counts.asked(t)
        return self.tk(t)

@pytest.fixture
def counts(monkeypatch):
    res,near,spacy = Counts(),AtOneEnd.near,Cutter.spacy
    def counted_near(o, w, a, b):
        part = near(o, w, a, b)
        res.seen += len(part)
        return part
    def counted_spacy(o, kind, t):
        res.asked(t)
        return spacy(o, kind, t)
    monkeypatch.setattr(AtOneEnd, 'near', counted_near)
    monkeypatch.setattr(Cutter, 'spacy', counted_spacy)
    return res

@pytest.mark.parametrize('lang,signs', [('en',RUNS), ('fr',[':)','😀😁']), ('it',['()','1,']), ('id',['()'])])
def test_work_grows_with_the_length(counts, lang, signs):
    "A few characters are looked at for each sign, however many there are; spaCy, which looks at all, gets short words"
    tok = WordTokenizer(lang, max_look=30)
    run = TokenizeWithRules(tok)
    tok.spacy = SpacyThatCounts(tok.spacy, counts)
    for f in (run, tok): list(f(['!?'*100])) # special cases are looked at once
    for sign in signs:
        for n in (400, 2000):
            t = run_of(sign, n)+'z!'
            for f in (run, tok):
                counts.reset()
                assert len(list(next(iter(f([t])))))>1
                assert counts.seen<=200*n and counts.longest<=100

def test_a_language_with_words_that_are_never_cut():
    tok = WordTokenizer('fr')
    for w in ("aujourd'hui", "(presqu'île)", 'a-'*40+'a', ':)'*90, "l'aujourd'hui,"*12):
        assert Cutter(tok.spacy).word(w)==[o.text for o in spacy_copies(tok.spacy)['direct']()(w)]

def test_unreadable_patterns_have_a_bound():
    from spacy.lang.id import Indonesian
    ref,tok = Indonesian().tokenizer,WordTokenizer('id', special_toks=[])
    for w in ('<a href="x">'*9, '("a")'*40, 'kata-kata', ':)'*150):
        assert list(next(iter(tok([w]))))==[o.text for o in ref(w)]

def test_how_far_to_look_is_kept():
    tok = WordTokenizer('id', max_look=50)
    assert WordTokenizer.from_config(tok.config()).max_look==50==pickle.loads(pickle.dumps(tok)).max_look
    assert 'max_look' not in WordTokenizer('id').config() # an old corpus keeps its fingerprint

def test_a_special_case_that_is_added_is_seen(ours):
    from spacy.symbols import ORTH
    tok,t = WordTokenizer(),'(foo:)'+'!?'*200
    before = list(next(iter(tok([t]))))
    tok.spacy.add_special_case('foo', [{ORTH:'f'}, {ORTH:'oo'}])
    assert list(next(iter(tok([t]))))[:4]==['(', 'f', 'oo', ':)'] and before[:2]==['(', 'foo']

def test_a_number_that_python_does_not_read():
    assert fix_html('a&#'+'9'*5000+';b&#65;')=='a\ufffdbA'
    assert fix_html('&#'+'9'*5000)=='\ufffd'

# ---- long texts ----

@pytest.fixture
def small_parts(monkeypatch): monkeypatch.setattr(cutting, 'long_text', 200)

@pytest.fixture(scope='module')
def long():
    txts = sentences().text.tolist()
    return ' '.join(txts[:150])+' so so so so :) : ) (again:) ::) \n\n x  (: '+' '.join(txts[150:200])+' !?!?'*9

def test_a_long_text_has_the_same_tokens(small_parts, long, ours, theirs):
    assert len(list(text_parts(long)))>20
    for mine,ref in zip(ours, theirs): assert mine(long)==ref(long)

def test_a_long_text_is_read_in_parts(small_parts, long, monkeypatch, ours):
    at_once,pieces = [],fast._pieces
    def counted(t):
        res = pieces(t)
        at_once.append(len(res))
        return res
    monkeypatch.setattr(fast, '_pieces', counted)
    ours[0](long)
    assert max(at_once)<100 and sum(at_once)>len(long.split())

def test_a_long_text_has_the_same_subwords(long, monkeypatch):
    tok = SubwordTokenizer(vocab_sz=500)
    tok.setup(sentences().text.tolist()[:500])
    run = TokenizeWithRules(tok)
    whole = list(next(iter(run([long]))))
    monkeypatch.setattr(cutting, 'long_text', 200)
    monkeypatch.setattr('ulmfit_nb.tokenization.long_text', 200)
    monkeypatch.setattr('ulmfit_nb.parallel.long_text', 200)
    assert list(next(iter(run([long]))))==whole
    names,ids,n = Numberer(run)([long, 'short'])
    assert [names[i] for i in ids[:n[0]]]==whole

def test_only_the_neighbours_of_a_special_case_are_tokenized_again(theirs):
    "One smiley that may belong to its neighbour doesn't send a whole text to spaCy"
    memo,asked = fast.PieceMemo(WordTokenizer()),[]
    text = memo._text
    memo._text = lambda ids, ruled: asked.append(len(ids)) or text(ids, ruled)
    t = 'one (two:) ) three '*3+'four '*50+'(:) ( (: : ) five:) (six'
    assert memo(t)==theirs[0](t)
    assert asked and max(asked)<8

# ---- forks ----

def forked(f):
    "The status of a child that runs `f`; 14 if it hangs"
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        try: os._exit(0 if f() else 3)
        except BaseException: os._exit(4)
    return os.waitpid(pid, 0)[1]

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no forks here')
@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
class TestFork:
    def test_while_a_thread_is_inside(self, monkeypatch, theirs):
        "The child has the memo's lock, but not the thread that would open it"
        run,inside,go_on = TokenizeWithRules(),threading.Event(),threading.Event()
        def waits(t):
            if threading.current_thread() is thread:
                inside.set()
                go_on.wait(60)
            return fix_html(t)
        thread = threading.Thread(target=lambda: list(run(['held'])))
        monkeypatch.setattr(fast, 'fix_html', waits)
        thread.start()
        assert inside.wait(60)
        try: status = forked(lambda: list(next(iter(run(['So good:)']))))==theirs[0]('So good:)'))
        finally:
            go_on.set()
            thread.join()
        assert status==0
        assert list(next(iter(run(['So good:)']))))==theirs[0]('So good:)')

    def test_under_load(self, theirs):
        run,stop,txts = TokenizeWithRules(),[],sentences().text.tolist()
        ref = theirs[0](txts[0])
        def load():
            rng = random.Random(0)
            while not stop: list(run([f'{rng.random()} {t}' for t in txts[:50]]))
        threads = [threading.Thread(target=load) for _ in range(2)]
        for o in threads: o.start()
        try: res = [forked(lambda: list(next(iter(run([txts[0]]))))==ref) for _ in range(5)]
        finally:
            stop.append(1)
            for o in threads: o.join()
        assert res==[0]*5

    def test_what_is_known_is_kept_if_nobody_was_inside(self):
        run = TokenizeWithRules()
        list(run(['known words']))
        assert forked(lambda: 'known' in run.memo.places)==0
