"Ids against fastai's, corpora that are whole or absent, several processes"
import json,lzma,os,pickle,signal,subprocess,sys
from collections import Counter
from pathlib import Path
import numpy as np, pandas as pd, pytest
from fastai.data.core import TfmdLists
from fastai.data.transforms import ColReader
from fastai.text import core as fai
from fastai.text.data import Numericalize as FaiNumericalize, make_vocab as fai_vocab
from hypothesis import given,settings,strategies as st
from ulmfit_nb.files import *
from ulmfit_nb.numericalization import *
from ulmfit_nb.texts import sentences
from ulmfit_nb.tokenization import *

@pytest.fixture(scope='module')
def txts(): return sentences().text.tolist()

@pytest.fixture(scope='module')
def corpus(txts): return Corpus.from_texts(txts)

def _same(a, b):
    assert a.vocab==b.vocab and a.fingerprint==b.fingerprint and a.tokenizer_config==b.tokenizer_config
    for o in ('ids','offsets','counts'): np.testing.assert_array_equal(getattr(a,o), getattr(b,o))

def _imdb(every, n):
    f = Path(os.environ.get('ULMFIT_DATA', Path(__file__).parent.parent.parent/'shared'/'data'))/'imdb'/'train.jsonl.xz'
    if not f.exists(): pytest.skip('needs imdb/train.jsonl.xz in the folder named by ULMFIT_DATA')
    with lzma.open(f, 'rt', encoding='utf8') as f:
        return [json.loads(l)['text'] for i,l in enumerate(f) if i%every==0][:n]

# --- vocabulary ---

@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*'abcdefghij', 'xxunk', 'xxmaj', 'xxfake2']), max_size=80), st.integers(1,4),
    st.integers(16,30))
def test_vocab_equals_fastai(toks, min_freq, max_vocab):
    ours,theirs = (f(Counter(toks), min_freq, max_vocab) for f in (make_vocab, fai_vocab))
    assert [o for o in ours if o!='xxfake']==[o for o in theirs if o!='xxfake']
    assert len(ours)%8==0 and len(ours)-len([o for o in ours if o!='xxfake'])<8

def test_ids_equal_fastai_on_reviews():
    ts = _imdb(50, 400)
    toks = fai.tokenize_texts(ts, n_workers=0)
    num = FaiNumericalize()
    num.setup(toks)
    c,mine = Corpus.from_texts(ts),Numericalize(num.vocab)
    given = Corpus.from_texts(ts, vocab=num.vocab)
    for i,t in enumerate(toks): assert num(t).tolist()==c[i].tolist()==mine(t).tolist()==given[i].tolist()

def test_unknown_tokens_do_not_grow_the_dictionary():
    num = Numericalize(['xxpad','xxunk','a'])
    assert num(['a','b','xxpad']).tolist()==[2,1,0]
    assert len(num.o2i)==3

# --- the same, however it is made ---

def test_workers_and_chunks(txts, corpus, tmp_path):
    _same(Corpus.from_texts(iter(txts), n_workers=2, chunk_sz=100, path=tmp_path/'a'), corpus)
    _same(Corpus.from_texts(txts, n_workers=2), corpus)
    _same(Corpus.open(tmp_path/'a'), corpus)
    assert sorted(os.listdir(tmp_path/'a'))==['corpus.json','ids.npy','offsets.npy'] and os.listdir(tmp_path)==['a']

def test_forgetting_changes_nothing(txts, corpus, monkeypatch):
    from ulmfit_nb import numericalization as n
    monkeypatch.setattr(n.Numberer, 'max_toks', 500)
    _same(Corpus.from_texts(txts, chunk_sz=300), corpus)

@pytest.mark.parametrize('tok', [CharTokenizer(), BaseTokenizer(), fai.WordTokenizer()])
def test_any_tokenizer(tok, txts, tmp_path):
    tkn = Tokenizer(tok)
    c = Corpus.from_texts(txts[:200], tkn, min_freq=1, path=tmp_path/'c')
    assert [c.tokens(i) for i in range(len(c))]==[list(o) for o in tokenize_texts(txts[:200], tok=tok)]

def test_subword_corpus_carries_its_model(txts, tmp_path):
    tkn = Tokenizer(SubwordTokenizer(vocab_sz=400))
    a = Corpus.from_texts(iter(txts), tkn, path=tmp_path/'c', n_workers=2)
    b = Corpus.open(tmp_path/'c')
    assert b.text(5)==a.text(5)==tkn.to_text(tkn(txts[5]))
    assert (tmp_path/'c'/'spm.model').read_bytes()==tkn.tok.model

def test_pickled_corpus_is_a_path(txts, tmp_path):
    c = Corpus.from_texts(txts[:50], path=tmp_path/'c')
    _same(pickle.loads(pickle.dumps(c)), c)
    _same(pickle.loads(pickle.dumps(Corpus.from_texts(txts[:50]))), c)

# --- whole or absent ---

def test_fingerprint_sees_every_change(txts):
    ts = txts[:20]
    def fp(ts=ts, *a, **k): return Corpus.from_texts(ts, *a, **k).fingerprint
    all_ = [fp(), fp(ts[:-1]), fp(ts[::-1]), fp([*ts[:-1], ts[-1]+' ']), fp(min_freq=2), fp(max_vocab=64),
        fp(vocab=['xxunk']), fp(ts, Tokenizer(CharTokenizer())), fp(ts, Tokenizer(rules=[str.lower]))]
    assert len(set(all_))==len(all_)
    assert fp()==all_[0]==fp(ts, path=None, chunk_sz=3)

def test_error_leaves_nothing(tmp_path, txts):
    def broken():
        yield from txts
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): Corpus.from_texts(broken(), path=tmp_path/'c')
    assert os.listdir(tmp_path)==[]
    old = Corpus.from_texts(txts[:10], path=tmp_path/'c')
    with pytest.raises(KeyboardInterrupt): Corpus.from_texts(broken(), path=tmp_path/'c')
    _same(Corpus.open(tmp_path/'c'), old)
    assert os.listdir(tmp_path)==['c']

@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='needs SIGKILL')
def test_kill_leaves_nothing_half_made(tmp_path, txts):
    code = '''
import sys
from ulmfit_nb.numericalization import Corpus
def texts():
    yield from ['a text of some words']*700
    print('under way', flush=True)
    import time
    time.sleep(60)
Corpus.from_texts(texts(), path=sys.argv[1])
'''
    p = subprocess.Popen([sys.executable, '-c', code, str(tmp_path/'c')], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline().strip()=='under way'
    p.send_signal(signal.SIGKILL)
    p.wait()
    assert not (tmp_path/'c').exists()
    assert sorted(o.rsplit('.', 1)[1] for o in os.listdir(tmp_path))==['lock','part']
    with pytest.raises(FileNotFoundError, match='no corpus in'): Corpus.open(tmp_path/'c')
    c = Corpus.from_texts(txts[:10], path=tmp_path/'c')
    assert os.listdir(tmp_path)==['c']
    _same(c, Corpus.from_texts(txts[:10]))

def test_a_folder_of_somebody_else(tmp_path):
    (tmp_path/'thesis.txt').write_text('years of work')
    with pytest.raises(ValueError, match='exists and is no corpus'): Corpus.from_texts(['a'], path=tmp_path)
    assert (tmp_path/'thesis.txt').exists()

@pytest.mark.parametrize('spoil',
    [lambda d: (d/'corpus.json').write_text((d/'corpus.json').read_text().replace('"format": 1','"format": 9')),
                                   lambda d: np.save(d/'offsets.npy', np.array([0,1])),
                                   lambda d: np.save(d/'ids.npy', np.zeros(5, np.int32))])
def test_damaged(spoil, tmp_path, txts):
    Corpus.from_texts(txts[:10], path=tmp_path/'c')
    spoil(tmp_path/'c')
    with pytest.raises(ValueError, match='format 9|damaged'): Corpus.open(tmp_path/'c')

@pytest.mark.parametrize('bad,what', [(None,'missing'), (float('nan'),'missing'), (pd.NA,'missing'), (3,r'3 \(int\)'),
    (b'x','bytes')])
def test_no_text(bad, what):
    with pytest.raises(ValueError, match=f"text is {what} in row 2 of column 'review'"):
        Corpus.from_texts(pd.Series(['a','b',bad,'c'], dtype=object, name='review'))
    with pytest.raises(ValueError, match=f"text is {what} in row 2"): Corpus.from_texts(['a','b',bad], n_workers=1)
    with pytest.raises(ValueError, match="row 2 of column 'review'"):
        TfmdLists(pd.DataFrame({'review':['a','b',bad]}), [Tokenizer.from_df('review')])

# --- folders and tables as fastai's ---

@pytest.fixture
def folder(tmp_path, txts):
    for i,t in enumerate(txts[:60]):
        f = tmp_path/'data'/('train','test','unsup')[i%3]/'pos'/f'{i}.txt'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(t+'\n\nfin', encoding='utf8')
    (tmp_path/'data'/'.hidden.txt').write_text('no')
    (tmp_path/'data'/'readme.md').write_text('no')
    return tmp_path/'data'

@pytest.mark.parametrize('kw', [dict(), dict(folders=['train','test']), dict(extensions=['.md','.txt']),
    dict(rules=[fai.lowercase]), dict(tok='base')])
def test_from_folder_equals_fastai(folder, kw):
    a,b = dict(kw),dict(kw)
    if 'tok' in kw: a['tok'],b['tok'] = BaseTokenizer(),fai.BaseTokenizer()
    ours,theirs = Tokenizer.from_folder(folder, **a),fai.Tokenizer.from_folder(folder, n_workers=1, **b)
    assert ours.counter==theirs.counter and ours.lengths==theirs.lengths
    fs = [folder/o for o in theirs.lengths]
    for f in fs: assert list(ours(f))==list(theirs(f))
    assert ours.get_lengths(fs)==theirs.get_lengths(fs)
    assert [ours.corpus.files[ours.doc_index(f)] for f in fs]==list(theirs.lengths)

def test_folder_in_two_processes(folder):
    a = Tokenizer.from_folder(folder).corpus
    b = Tokenizer.from_folder(folder, output_dir=folder.parent/'other', n_workers=2).corpus
    _same(a, b)

def test_folder_bad_bytes(folder):
    (folder/'bad.txt').write_bytes(b'abc\xff')
    with pytest.raises(ValueError, match=r'bad\.txt: byte 0xff at offset 3 is not utf8; name the file.s encoding='):
        Tokenizer.from_folder(folder)
    assert not (folder.parent/'data_corpus').exists()

@pytest.mark.parametrize('cols,kw', [('text',{}), ('body',{}), (['title','body'],{}),
    (['title','body'],dict(mark_fields=False)), ('body',dict(mark_fields=True)), ('body',dict(tok_text_col='toks')),
    (1,{})])
def test_from_df_equals_fastai(txts, cols, kw):
    df = pd.DataFrame(dict(title=txts[:9], body=txts[9:18], text=txts[18:27], label=range(9)), index=range(5,14))
    ours,theirs = TfmdLists(df, [Tokenizer.from_df(cols, **kw)]).items,TfmdLists(df,
        [fai.Tokenizer.from_df(cols, n_workers=1, **kw)]).items
    col = kw.get('tok_text_col','text')
    assert [list(o) for o in ours[col]]==[list(o) for o in theirs[col]]
    assert ours[f'{col}_length'].tolist()==theirs[f'{col}_length'].tolist()
    assert ours.index.tolist()==df.index.tolist() and 'label' in ours
    assert 'text' in df and isinstance(df.text.iloc[0], str)

def test_numericalize_in_a_pipeline(txts):
    df = pd.DataFrame(dict(review=txts[:50]))
    tfms = [(Tokenizer.from_df('review'),Numericalize()),
        (fai.Tokenizer.from_df('review', n_workers=1),FaiNumericalize())]
    ours,theirs = (TfmdLists(df, [ColReader('text'), *o]) for o in tfms)
    assert [o for o in ours.vocab if o!='xxfake']==[o for o in theirs.vocab if o!='xxfake']
    assert [o.tolist() for o in ours]==[o.tolist() for o in theirs]
    assert ours.decode(ours[3])==theirs.decode(theirs[3])

# --- bounded ---

def test_memory_does_not_grow_with_text(tmp_path):
    "Peak memory of building a corpus on disk hardly grows from 1 to 4 parts of distinct text"
    code = '''
import resource,sys,random
from ulmfit_nb.files import *
from ulmfit_nb.numericalization import *
rng = random.Random(0)
words = [''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=6)) for _ in range(3000)]
def texts(n):
    for i in range(n): yield ' '.join(rng.choices(words, k=300))
Corpus.from_texts(texts(500), path=sys.argv[1]+'/warm')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Corpus.from_texts(texts(8000), path=sys.argv[1]+'/big')
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before)//1024)
'''
    mb = int(subprocess.check_output([sys.executable, '-c', code, str(tmp_path)], text=True))
    assert mb<40 # the texts alone are 17 MB, their ids 10 MB, their tokens as lists over 150 MB

def test_second_rename_fails(tmp_path, monkeypatch):
    "The old folder moves back when the new one can't take its place"
    (tmp_path/'c').mkdir()
    (tmp_path/'c'/'model.json').write_text('old')
    rename = Path.rename
    def stuck(self, to):
        if self.suffix=='.part': raise PermissionError('locked')
        return rename(self, to)
    monkeypatch.setattr(Path, 'rename', stuck)
    with pytest.raises(PermissionError, match='locked'), atomic_path(tmp_path/'c') as new:
        new.mkdir()
        (new/'model.json').write_text('new')
    assert [o.name for o in tmp_path.iterdir()]==['c'] and (tmp_path/'c'/'model.json').read_text()=='old'
