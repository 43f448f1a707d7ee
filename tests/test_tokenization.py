"Tokens against fastai, spaCy and SentencePiece: every kind of text, several processes, nothing left behind"
import importlib.util,json,lzma,os,pickle,random,re,subprocess,sys,time,unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
import pytest
from fastcore.basics import compose
from fastcore.foundation import L
from fastai.text import core as fai
from hypothesis import HealthCheck,given,settings,strategies as st
from ulmfit_nb.numericalization import Corpus,make_vocab
from ulmfit_nb.texts import sentences
from ulmfit_nb.rules import *
from ulmfit_nb.fast_tokenization import *
from ulmfit_nb.cutting import Shapes
from ulmfit_nb.parallel import *
from ulmfit_nb.tokenization import *

def _data(name):
    "A file of the data folder, or skip"
    d = Path(os.environ.get('ULMFIT_DATA', Path(__file__).parent.parent.parent/'shared'/'data'))
    if not (d/name).exists(): pytest.skip(f'needs {name} in the folder named by ULMFIT_DATA')
    return d/name

def _imdb(every, n):
    with lzma.open(_data('imdb/train.jsonl.xz'), 'rt', encoding='utf8') as f:
        return [json.loads(l)['text'] for i,l in enumerate(f) if i%every==0][:n]

@pytest.fixture(scope='module')
def txts(): return sentences().text.tolist()

@pytest.fixture(scope='module')
def word(): return WordTokenizer()

# --- the memo is exact ---

frags = [' ', '  ', '\n', '\n\n', ' \n ', '\t', '\r\n', '\x0b', '\x0c', '\x1c', '\x1f', '\x85', '\xa0', '\u1680',
    '\u2003', '\u2028', '\u3000', '\u200b', '\u200f', '\ufeff', '\x00', '\x07',
         'a', 'b', 'A', 'AB', 'Ab', 'aB', '1', '3', '33', '333', '111', '2000', '.', ',', '!', '!!!', '...', ':', ';',
         '(', ')', '-', '--', '—', "'", '"', '/', '#', '\\', '\\n', '\\"',
         'xxbos', 'xxmaj ', 'xxup', ' xxrep 3 a', 'xxwrep ', 'XXUNK', 'xxfld 1 ', ':)', ':-(', ' :) ', '8)', 'a.m.',
         'e.g.', 'co.', 'U.S.', "'s", '’s', "n't", "don't", 'cannot', 'and/or', "'em",
         'word', 'word ', 'word word word ', 'Word ', 'WORD ', 'no ', 'NO ', '&amp;', '&lt;', '&nbsp;', 'nbsp;',
         'quot;', '#39;', '<br />', '<unk>', ' @-@ ', ' @.@ ', '&#0;', '&#x85;', '&#12288;',
         'É', 'é', 'ß', 'ẞ', 'İ', 'ı', 'Σ', 'ΑΣ', 'ς', 'ﬁ', 'ǅ', '²', '³', '٣', '😀', '😀😀😀', '👩‍👩‍👧', '🇩🇪', 'e\u0301',
         'مرحبا', 'שלום ', '汉语', 'สวัสดี', '한국어 ', 'http://a.b/c?d=E', 'x@y.com', '1,000.50', '$5', '10km', '°C.', '▁']
mixed = st.lists(st.sampled_from(frags), max_size=40).map(''.join)
few = st.lists(st.sampled_from([' ', '\n', 'a', 'A', '3', ':', ')', '/', '.', 'a ', ' :', '. ']),
    max_size=25).map(''.join)
slow = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))

@pytest.fixture(scope='module')
def ways():
    w = WordTokenizer()
    full,single = fai.TokenizeWithRules(fai.WordTokenizer()),fai.Tokenizer(fai.WordTokenizer())
    ours = PieceMemo(w)
    assert PieceMemo.fits(w, text_proc_rules)
    return ours,lambda t: list(next(iter(full([t])))),Tokenizer(w),single

@slow
@given(st.one_of(mixed, few, st.text(max_size=80)))
def test_memo_equals_fastai(ways, t):
    memo,full,tkn,single = ways
    assert memo(t)==full(t)
    assert list(tkn(t))==list(single(t))

@slow
@given(st.one_of(mixed, few, st.text(max_size=80)))
def test_each_rule_equals_fastai(t):
    for f in text_proc_rules+text_postproc_rules: assert f(t)==getattr(fai, f.__name__)(t)

@settings(slow, max_examples=150)
@given(st.lists(mixed, min_size=1, max_size=5))
def test_forgetting_changes_nothing(ways, ts):
    small = _small()
    for t in ts: assert small(t)==ways[1](t)

_memo = []
def _small():
    if not _memo: _memo.append(PieceMemo(WordTokenizer(), max_pieces=60))
    return _memo[0]

@pytest.mark.parametrize('lang', ['en','de','fr','tr','xx','he','hu'])
def test_memo_in_other_languages(lang, txts):
    w = WordTokenizer(lang)
    assert PieceMemo.fits(w, text_proc_rules)
    memo,ref = PieceMemo(w),fai.TokenizeWithRules(fai.WordTokenizer(lang))
    ts = txts[::20] + ["Z.B. l'été (usw.) A.B. :) d'accord… İstanbul'da 5km", "word:) ( : ) e.g . 'tis", ''.join(frags)]
    for t,o in zip(ts, ref(ts)): assert memo(t)==list(o)

@pytest.fixture(scope='module')
def bare():
    "Our shapes, and spaCy with the same patterns and no special cases"
    from spacy.tokenizer import Tokenizer as Spacy
    from spacy.vocab import Vocab
    tk = WordTokenizer().spacy
    return Shapes(tk, patience=0, special={}),Spacy(Vocab(), None, tk.prefix_search, tk.suffix_search,
        tk.infix_finditer, url_match=tk.url_match)

pieces = st.lists(st.sampled_from([*"abcgkmstxz0159.,;:!?-_'\"()[]<>=/#\\&%$*+~@^|`", 'km', "'s", 'http://', '.com',
    'www.', '--', '...', 'word', "n't", 'é', '…', 'a.m.']), min_size=1, max_size=12).map(''.join)

@slow
@given(pieces)
def test_shapes_equal_spacy(bare, w):
    shapes,spacy = bare
    toks = shapes([w])[0]
    assert toks is None or toks==[o.text for o in spacy(w)]

@pytest.mark.parametrize('lang', ['en','de','fr','it','xx'])
def test_shapes_in_other_languages(lang, txts):
    w = WordTokenizer(lang)
    memo = PieceMemo(w)
    ws = list({p for t in txts for p in t.split()})
    for p,toks in memo._words(ws).items(): assert toks==memo.cutter.direct(p)

def test_marked_pieces_beside_others(ways):
    for t in ("so(:) :", "(again:) )", "'' ''a", ": (x:) - (", "70:s. s :) )", "w/o /o w/ o"):
        assert ways[0](t)==ways[1](t)

def test_unreadable_patterns_leave_all_to_spacy():
    w = WordTokenizer()
    w.spacy.prefix_search = re.compile(r'(?i)^[x$]').search
    assert PieceMemo(w).cutter.shapes(['word'])==[None]
    assert tokenize_texts(['Xa $5 x-y.'], tok=w)==[list(fai.tokenize1('Xa $5 x-y.', w))]

def test_training_on_a_sample(txts):
    few,all_ = (SubwordTokenizer(vocab_sz=200, max_sentences=n).setup(txts) for n in (200,0))
    assert few.vocab!=all_.vocab
    assert [''.join(o).replace('▁',' ').strip() for o in few(['so good a film'])]==['so good a film']

def test_special_case_with_a_space_goes_the_plain_way():
    from spacy.symbols import ORTH
    w = WordTokenizer()
    w.spacy.add_special_case('new york', [{ORTH:'new york'}])
    assert not PieceMemo.fits(w, text_proc_rules)
    assert list(tokenize1('I love New York', w))==['xxbos','i','love','xxmaj','new','xxmaj','york']
    assert list(tokenize1('i love new york', w))==['xxbos','i','love','new▁york']
    w = WordTokenizer()
    w.spacy.add_special_case('lolwut', [{ORTH:'lol'},{ORTH:'wut'}])
    assert list(tokenize1('so lolwut', w))==['xxbos','so','lol','wut']

def test_user_rules_and_tokenizers(txts):
    class Mine(WordTokenizer):
        def __call__(self, items): return ([o for t in items for o in t.split('e')] for _ in [0])
    assert not PieceMemo.fits(Mine(), text_proc_rules)
    rules = [*text_proc_rules[:-1], partial(lowercase, add_eos=True)]
    assert tokenize_texts(txts[:50], rules=rules)==fai.tokenize_texts(txts[:50], n_workers=0,
        rules=[*fai.defaults.text_proc_rules[:-1], partial(fai.lowercase, add_eos=True)])
    assert tokenize_texts(txts[:50], tok=fai.WordTokenizer())==fai.tokenize_texts(txts[:50], n_workers=0)
    assert tokenize_texts(txts[:9], tok=fai.BaseTokenizer())==fai.tokenize_texts(txts[:9], tok=fai.BaseTokenizer(),
        n_workers=0)

def test_changing_the_default_list_is_noticed(monkeypatch):
    monkeypatch.setattr('ulmfit_nb.tokenization.text_proc_rules', [*text_proc_rules, str.upper])
    assert list(tokenize1('a b'))==['XXBOS','A','B']

@pytest.mark.parametrize('t', ['', ' ', '\n\t\u3000', 'xxbos', 'x'*100_000, 'Ab1'*30_000, 'a b'*20_000, ' '*100_000,
    '\n'*50_000+'a', '/'*3000, '👩‍👩‍👧'*2000, '1 '*5000, 'a\x85'*3000])
def test_extreme_texts(ways, t): assert ways[0](t)==ways[1](t)

marks = [*'!?.,;:\'"()[]{}<>=+-*/#$%&@^_~`|\\', *'…—–’“”«»¿¡€£°²·•▁', '\u200d', '\ufeff', '😀', '❤️', '🇩🇪', 'é',
    'e\u0301', 'ﷺ', '汉', 'ก', 'א', 'a', 'A', 'İ', '1', '٣']

single = [o for o in marks if len(o)==1] # of two in turn see below

@pytest.mark.parametrize('c', single)
def test_a_run_of_one_sign(ways, c):
    "20,000 of a sign: the tokens of fastai, in a time that does not grow with the square"
    for t in ('so good'+c*20_000, c*20_001, f'a {c*5_000} b{c*5_000}'):
        start = time.process_time()
        toks = PieceMemo.__call__(ways[0], t)
        assert time.process_time()-start<5
        assert toks==ways[1](t)

@pytest.mark.parametrize('c', ['!?', '=-', '"\'', '😀😁', '()', ').', '$…', ':)', 'a,', '.a', "'s", 'é!', '1.', '(a',
    ':-)/'])
def test_signs_in_turn(ways, c):
    "spaCy needs minutes for 10,000 of them, and hundreds are enough to compare"
    for t in (c*150, 'x'+c*150+'x'): assert ways[0](t)==ways[1](t)
    start = time.process_time()
    long = PieceMemo.__call__(ways[0], c*10_000)
    assert time.process_time()-start<10
    assert ''.join(long[1:]).replace('▁','')==c*10_000 or '/' in c

def odd_text(seed):
    "A text of odd characters, runs and lengths, the same for the same seed"
    r = random.Random(seed)
    def run(): return r.choice(single)*r.choice((1, 1, 2, 3, 4, 7, 60, 1000, r.randrange(1, 20_000)))
    def turn(): return ''.join(r.choices(marks, k=r.randrange(2, 4)))*r.randrange(1, 40)
    def mess(): return ''.join(r.choices(marks, k=r.randrange(1, 40)))
    def points():
        return ''.join(chr(r.choice((r.randrange(1, 0x3000), r.randrange(1, 0xd800), r.randrange(0xe000, 0x110000))))
            for _ in range(r.randrange(1, 30)))
    def words(): return ' '.join(r.choices(frags, k=r.randrange(1, 30)))
    parts = [r.choice((run, turn, mess, points, words, words))() for _ in range(r.randrange(1, 6))]
    return r.choice(('', ' ', '\n', '\xa0', ' a ')).join(parts)

@pytest.mark.parametrize('n', [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_odd_texts(ways, n):
    slowest = 0,None
    for i in range(n):
        t = odd_text(i)
        start = time.process_time()
        toks = ways[0](t)
        slowest = max(slowest, (time.process_time()-start, i))
        assert toks==ways[1](t), f'other tokens than fastai: odd_text({i})'
    assert slowest[0]<1, f'{slowest[0]:.1f} s for odd_text({slowest[1]})'

def test_one_long_word():
    t = 'abcdefghij'*100_000
    assert list(tokenize1(t))==['xxbos', t]
    assert list(tokenize1(t.upper()+'a'))==['xxbos', (t+'a')]

@pytest.mark.parametrize('n', [1000, pytest.param(25_000, marks=pytest.mark.slow)])
def test_imdb_reviews(n):
    ts = _imdb(25_000//n, n)
    assert tokenize_texts(ts)==fai.tokenize_texts(ts, n_workers=0)

@slow
@given(st.lists(mixed, min_size=1, max_size=6))
def test_rules_of_many_texts(ts): assert DefaultRules()(ts)==[compose(*fai.defaults.text_proc_rules)(t) for t in ts]

@settings(slow, max_examples=100)
@given(st.lists(st.one_of(mixed, few), min_size=2, max_size=8))
def test_many_texts_at_once(ways, ts):
    "Documents of one chunk don't see each other"
    assert ways[0].many(ts)==[ways[1](t) for t in ts]

def test_memos_are_bounded(txts):
    "New words without end: what is remembered stays under its limit and one chunk"
    memo = PieceMemo(WordTokenizer(), max_pieces=500)
    memo.cutter.shapes.max_shapes = 100
    for i in range(40):
        memo.many([f'w{i}x{j} a{j}-b{i}.' for j in range(50)])
        assert len(memo.places)<700 and len(memo.toks)<1000 and len(memo.flat)<1500

def test_progress_only_where_somebody_looks(txts, capsys, monkeypatch):
    moved = []
    class Bar:
        def __init__(self, rng, **kwargs): self.n = len(rng)
        def update(self, i): moved.append((i,self.n))
    monkeypatch.setattr('fastprogress.fastprogress.progress_bar', Bar)
    tokenize_texts(txts[:20], progress=True) # into a file or a pipe
    assert capsys.readouterr().out=='' and moved==[]
    monkeypatch.setattr(importlib.import_module('ulmfit_nb.parallel'), 'on_screen', lambda: True)
    tokenize_texts(txts[:20])
    assert moved==[]
    tokenize_texts(txts[:20], progress=True)
    assert moved==[(0,20),(20,20)]

def test_rules_at_speed_for_other_tokenizers(txts):
    for tok in (CharTokenizer(), fai.BaseTokenizer()):
        assert tokenize_texts(txts[:200]+['', ' a\n\nb'], tok=tok)==fai.tokenize_texts(txts[:200]+['', ' a\n\nb'],
            tok=tok, n_workers=0)

def test_no_text_names_its_place():
    with pytest.raises(ValueError, match=r"document 2 \('None'\)"): tokenize_texts(['a','b',None])

# --- subwords ---

@pytest.mark.parametrize('kw', [dict(vocab_sz=200), dict(vocab_sz=1000), dict(), dict(vocab_sz=600, model_type='bpe'),
    dict(vocab_sz=100, model_type='char'), dict(max_vocab_sz=500), dict(lang='zh')])
def test_subwords_equal_fastai(kw, txts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rules = [fai.fix_html] + [lambda t: t + '\nline two\r\n\n three\u2028x']
    ours,theirs = SubwordTokenizer(**kw).setup(txts[:1500], rules),fai.SubwordTokenizer(**kw,
        cache_dir=tmp_path/'theirs')
    assert sorted(os.listdir())==['theirs']
    theirs.setup(L(txts[:1500]), rules)
    assert ours.vocab==[theirs.tok.id_to_piece(i) for i in range(theirs.tok.get_piece_size())]
    assert list(ours(txts))==list(theirs(txts))

def test_more_characters_than_a_quarter_of_the_words(tmp_path):
    "fastai stops at such texts; the default size grows to what the characters need, a size that was asked for does not"
    ts = [' '.join(chr(0xac00+7*i+j) for j in range(5)) for i in range(60)]
    with pytest.raises(RuntimeError, match='required_chars'):
        fai.SubwordTokenizer('ko', cache_dir=tmp_path).setup(L(ts))
    sp = SubwordTokenizer('ko').setup(iter(ts))
    assert len(sp.vocab)>=len({c for t in ts for c in t if c!=' '})*.99 and Tokenizer(sp,
        rules=[]).to_text(Tokenizer(sp, rules=[])(ts[3]))==ts[3]
    with pytest.raises(ValueError, match=r'vocab_sz=50 is too small: the characters of these texts take \d+ pieces'):
        SubwordTokenizer('ko', vocab_sz=50).setup(ts)

def test_nothing_is_learned_from_a_single_text_by_accident():
    with pytest.raises(ValueError, match='call setup'): Tokenizer(SubwordTokenizer(vocab_sz=50))('a text')

def test_subwords_are_quiet_and_leave_nothing(txts, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    sp = SubwordTokenizer(vocab_sz=300).setup(iter(txts))
    list(sp(txts[:10]))
    out = capfd.readouterr()
    assert (out.out,out.err,os.listdir())==('','',[])
    SubwordTokenizer(vocab_sz=300, cache_dir=tmp_path/'kept').setup(txts)
    assert (tmp_path/'kept'/'spm.model').read_bytes()

def test_bytes_for_unknown_characters(txts):
    sp = SubwordTokenizer(vocab_sz=600, byte_fallback=True).setup(txts)
    tkn = Tokenizer(sp, rules=[])
    for t in ('我的名字是郝杰瑞', 'ქართული 한국어 ไทย', 'café 😀'):
        assert set(tkn(t))<=set(sp.vocab)
        assert tkn.to_text(tkn(t))==t

@pytest.mark.parametrize('lang', ['zh','ja','ko','tr','de','th'])
def test_languages_of_the_world(lang):
    ts = ['ฉันชอบหนังเรื่องนี้มาก', 'หนังเรื่องนี้ไม่สนุกเลย',
        'นักแสดงเล่นดีมาก'] if lang=='th' else importlib.import_module(f'spacy.lang.{lang}.examples').sentences
    sub = Tokenizer(SubwordTokenizer(lang, vocab_sz=500), rules=[lowercase])
    toks = tokenize_texts(ts, tok=sub.tok, rules=sub.rules)
    assert all(len(o)>2 for o in toks)
    for t,o in zip(ts, toks): assert sub.to_text(o)==' '.join(unicodedata.normalize('NFKC', t.lower()).split())
    chars = Tokenizer(CharTokenizer(), rules=[lowercase])
    for t in ts: assert chars.to_text(chars(t))==' '.join(t.lower().split())

@pytest.mark.parametrize('lang,package', [('ja','sudachipy'), ('ko','natto'), ('th','pythainlp'), ('vi','pyvi')])
def test_missing_language_package(lang, package):
    if importlib.util.find_spec(package): pytest.skip(f'{package} is installed')
    with pytest.raises(ImportError, match=f"spaCy needs one more package for lang='{lang}'"): WordTokenizer(lang)

def test_unknown_language():
    with pytest.raises(ValueError,
        match=r"spaCy has no language 'klingon'; it has af .* zh\. SubwordTokenizer works for any"):
        WordTokenizer('klingon')

@pytest.mark.parametrize('sep', [' ', ''], ids=['spaces','none'])
def test_long_lines_are_learned_from(txts, sep):
    """SentencePiece leaves out lines of more than 4,192 bytes without a word; here a long line teaches what its parts
    teach"""
    rng = random.Random(0)
    words = ['qwx'+''.join(rng.choices('abcd', k=3)) for _ in range(60)]
    long = [sep.join(rng.choices(words, k=1500)) for _ in range(8)]
    short = txts[:60]
    sp = SubwordTokenizer(vocab_sz=300)
    only = SubwordTokenizer(vocab_sz=300).setup(short)
    sp.setup(short+long)
    assert sp.vocab!=only.vocab and any('qwx' in o for o in sp.vocab)
    alone = SubwordTokenizer(vocab_sz=100).setup(long) # was: RuntimeError [!sentences_.empty()]
    assert sum(map(len, alone(long)))<sum(map(len, only(long)))/2

def test_a_line_with_sentencepieces_own_sign(txts):
    assert any('qwxq' in o for o in SubwordTokenizer(vocab_sz=300).setup(txts[:60]+['qwxq qwxq \u2585']*50).vocab)

# --- rules and tokenizers of one's own ---

def test_defaults_of_fastai_are_asked(monkeypatch):
    "Who changes fastai's defaults changes ours; fastai's rules are taken for ours of the same name"
    t = 'A GOOD film!!!! /b'
    for rules in ([fai.lowercase], fai.defaults.text_proc_rules[:-1], [*fai.defaults.text_proc_rules, str.upper], []):
        monkeypatch.setattr(fai.defaults, 'text_proc_rules', rules)
        assert list(tokenize1(t))==list(fai.tokenize1(t, fai.WordTokenizer()))
        assert list(Tokenizer()(t))==list(fai.Tokenizer(fai.WordTokenizer())(t))
        assert tokenize_texts([t])==fai.tokenize_texts([t], n_workers=0)
    monkeypatch.undo()
    monkeypatch.setattr(fai.defaults, 'text_postproc_rules', [str.title])
    assert list(tokenize1(t))==list(fai.tokenize1(t, fai.WordTokenizer()))
    monkeypatch.undo()
    monkeypatch.setattr(fai.defaults, 'text_spec_tok', [*text_spec_tok, 'a/b'])
    assert WordTokenizer().special_toks==CharTokenizer().special_toks==SubwordTokenizer(
        ).special_toks==fai.WordTokenizer('en').special_toks
    assert make_vocab(Counter())[:10]==[*text_spec_tok, 'a/b']
    monkeypatch.undo()
    assert Tokenizer().rules==L(text_proc_rules) and PieceMemo.fits(WordTokenizer(), Tokenizer().rules)

# --- processes ---

def test_workers_give_the_same(txts):
    ts = txts[:400]
    assert tokenize_texts(ts, n_workers=2)==tokenize_texts(ts)
    sp = SubwordTokenizer(vocab_sz=300)
    assert tokenize_texts(ts, n_workers=2, tok=sp)==tokenize_texts(ts, tok=sp)

def _fragile(t):
    if 'bomb' in t: raise RuntimeError('tick')
    return t

@pytest.mark.parametrize('n', [1,2])
def test_error_names_the_document(n):
    with pytest.raises(ValueError, match=r"document 701 \('a bomb'\): RuntimeError: tick"):
        tokenize_texts(['x']*701+['a bomb']+['x']*300, n_workers=n, rules=[_fragile], tok=BaseTokenizer())

def test_a_lambda_cannot_travel():
    with pytest.raises(ValueError, match='define it in a module, or use n_workers=1'):
        tokenize_texts(['a'], n_workers=2, rules=[lambda t: t])

def test_imports_are_light():
    "Neither this module nor a worker needs torch or fastai"
    code = "import sys, ulmfit_nb.numericalization; print([m for m in ('torch','fastai','spacy') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, '-c', code], text=True).strip()=='[]'
    job = pickle.dumps(Numberer(TokenizeWithRules())).hex()
    code = ("import sys; from ulmfit_nb.parallel import _start_worker,_run_chunk; "
        "_start_worker(bytes.fromhex(sys.argv[1]));"
            "print(_run_chunk(0, ['Hi there'])[0], [m for m in ('torch','fastai') if m in sys.modules])")
    assert subprocess.check_output([sys.executable, '-c', code, job],
        text=True).strip()=="['xxbos', 'xxmaj', 'hi', 'there'] []"

# --- back to text ---

def test_decode_goes_back(txts):
    tkn = Tokenizer(BaseTokenizer(), rules=text_proc_rules)
    def keeps(w):
        return w.isalpha() and w.isascii() and (w.islower() or len(w)>1
            and (w.istitle() or w.isupper())) and not re.search(r'(.)\1\1', w)
    plain = [' '.join(filter(keeps, t.split())) for t in txts]
    assert [tkn.to_text(tkn(t)) for t in plain]==plain

@slow
@given(st.lists(st.sampled_from([TK_REP,TK_WREP,TK_UP,TK_MAJ,'3','0','a','b','x²','²'])))
def test_decode_never_fails(toks):
    out = decode_spec_tokens(toks)
    assert not {TK_REP,TK_WREP,TK_UP,TK_MAJ} & set(out)

# --- a memo is never left half-changed ---

odd_words = [f'{a}{i}{b}' for i in range(400) for a,b in (('n',''),('A','!!!'),('q-','/z'))]

def test_a_stopped_memo_forgets(monkeypatch):
    "Wherever an interrupt comes, what the memo says afterwards is what a new one says"
    texts = [' '.join(odd_words[i:i+9]+['So','so','so',':',')']) for i in range(0, 120, 6)]
    want,steps = PieceMemo(WordTokenizer()).many(texts),[]
    for name in ('_add','_keep','_words','_where','_repeats','_post'):
        memo = PieceMemo(WordTokenizer())
        f = getattr(memo, name)
        for when in (1,2,3):
            n = [0]
            def stops(*args):
                n[0] += 1
                if n[0]==when: raise KeyboardInterrupt
                return f(*args)
            with monkeypatch.context() as m:
                m.setattr(memo, name, stops)
                try: memo.many(texts)
                except KeyboardInterrupt: steps.append((name,when))
            assert memo.many(texts[3:8])==want[3:8]
            assert memo.many(texts)==want
    assert {o for o,_ in steps}>={'_add','_keep','_words','_where'}

@pytest.mark.parametrize('texts', [['a fine text', 'no\ud800body wrote this'], ['\udc80']])
def test_half_a_character(texts):
    tkn,corpus = Tokenizer(WordTokenizer()),f'document {len(texts)-1} .*encode'
    first = list(tkn('Before it, some words.'))
    with pytest.raises(ValueError, match='half of a character'): tkn(texts[-1])
    for f in (tokenize_texts, lambda ts: Corpus.from_texts(ts, tkn)):
        with pytest.raises(ValueError, match=corpus): f(texts)
    assert list(tkn('Before it, some words.'))==first
    assert list(tkn(texts[-1].encode('utf8', 'replace').decode('utf8')))[0]=='xxbos'

def test_tokenizer_in_threads():
    "A web server calls one tokenizer from many threads"
    texts = [' '.join(odd_words[i:i+40]) for i in range(0, 1000, 5)]
    tkn,want,old = Tokenizer(WordTokenizer()),[list(o) for o in tokenize_texts(texts)],sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as ex: got = list(ex.map(tkn, texts))
    finally: sys.setswitchinterval(old)
    assert [list(o) for o in got]==want
