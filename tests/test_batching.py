"Batches against fastai's, through lists, folders and dataframes, forwards and backwards"
import random
import numpy as np, pandas as pd, pytest, torch
from fastai.text import all as fa
from ulmfit_nb import batching as ours
from ulmfit_nb.numericalization import Corpus, Numericalize
from ulmfit_nb.texts import sentences
from ulmfit_nb.tokenization import Tokenizer

def docs(n=80, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.integers(0, 100, k)) for k in rng.integers(1, 40, n)]

def same_batches(a, b):
    a,b = list(a),list(b)
    assert len(a)==len(b)>0
    for (x,y),(x1,y1) in zip(a, b): assert torch.equal(x.as_subclass(torch.Tensor), x1.as_subclass(torch.Tensor)) and torch.equal(y.as_subclass(torch.Tensor), y1.as_subclass(torch.Tensor))

@pytest.mark.parametrize('bs,seq_len', [(64,72),(8,7),(3,5),(16,1000),(1,10)])
@pytest.mark.parametrize('backwards', [False,True])
def test_lm_batches_equal_fastai(bs, seq_len, backwards):
    d = docs()
    order = np.random.default_rng(3).permutation(len(d))
    theirs = [fa.TensorText(d[i].flip(0) if backwards else d[i]) for i in order]
    dl = ours.LMDataLoader(fa.L(d), bs=bs, seq_len=seq_len, shuffle=True, backwards=backwards, shuffle_fn=lambda idxs: order)
    same_batches(dl, fa.LMDataLoader(fa.L(theirs), bs=bs, seq_len=seq_len))

def test_lm_batches_from_corpus_equal_list():
    d = docs()
    offsets = np.cumsum([0]+[len(o) for o in d])
    c = Corpus(torch.cat(d).numpy().astype(np.int32), offsets, [str(i) for i in range(100)])
    same_batches(ours.LMDataLoader(c, bs=4, seq_len=9), ours.LMDataLoader(d, bs=4, seq_len=9))

def test_every_token_is_a_target_once():
    d = [torch.arange(i*1000, i*1000+n) for i,n in enumerate((30,7,51,12))]
    dl = ours.LMDataLoader(d, bs=4, seq_len=6, shuffle=True)
    for _ in range(3):
        ys = torch.cat([y.flatten() for _,y in dl])
        assert len(ys)==len(set(ys.tolist()))==(100-1)//4*4

def folder(path):
    df = sentences()[:200]
    for i,(t,l,v) in enumerate(zip(df.text, df.label, [0,0,0,1]*50)):
        f = path/('train','valid')[v]/l/f'{i}.txt'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(t, encoding='utf8')
    return path

def block(lib, path, **kw):
    return lib.DataBlock(kw.pop('tb')(path, is_lm=True, **kw), get_items=fa.get_text_files, splitter=fa.GrandparentSplitter())

@pytest.mark.parametrize('backwards', [False,True])
def test_data_block_equals_fastai(tmp_path, backwards):
    path = folder(tmp_path/'texts')
    mine = block(fa, path, tb=ours.TextBlock.from_folder, backwards=backwards).dataloaders(path, bs=8, seq_len=10)
    theirs = block(fa, path, tb=lambda *a, **k: fa.TextBlock.from_folder(*a, n_workers=0, **k), backwards=backwards, vocab=mine.vocab).dataloaders(path, bs=8, seq_len=10, num_workers=0)
    assert isinstance(mine.train, ours.LMDataLoader) and isinstance(theirs.train, fa.LMDataLoader)
    same_batches(mine.valid, theirs.valid)
    assert mine.backwards==backwards
    own_vocab = block(fa, path, tb=lambda *a, **k: fa.TextBlock.from_folder(*a, n_workers=0, **k)).dataloaders(path, bs=8, num_workers=0).vocab
    assert [o for o in mine.vocab if o!='xxfake'][:9]==own_vocab[:9] and set(mine.vocab)-{'xxfake'}==set(own_vocab)-{'xxfake'}

def test_item_is_tensor_text(tmp_path):
    path = folder(tmp_path/'texts')
    dls = block(fa, path, tb=ours.TextBlock.from_folder).dataloaders(path, bs=8)
    x, = dls.train_ds[0]
    tok = fa.first(fa.WordTokenizer()([fa.compose(*fa.defaults.text_proc_rules)(dls.train_ds.items[0].read_text())]))
    assert type(x) is fa.TensorText and [dls.vocab[i] for i in x]==[t if t in dls.vocab else 'xxunk' for t in tok]

def test_any_column_name_and_several_columns():
    df = sentences()[:100][['text','label']].rename(columns={'text':'Review','label':'Stars'})
    df['Title'] = [f'Title {i}' for i in range(len(df))]
    dls = ours.TextDataLoaders.from_df(df, text_col=['Title','Review'], label_col='Stars', bs=8, seed=1)
    x,y = dls.valid.one_batch()
    assert dls.vocab[0].index('xxfld') in x[0].tolist() and set(y.tolist())=={0,1}
    new = dls.test_dl(df[:3]).one_batch()[0]
    assert dls.vocab[0].index('xxfld') in new[0].tolist() # new rows are joined and marked in the same way

def test_language_model_needs_one_column_only():
    dls = ours.TextDataLoaders.from_df(sentences()[['text']][:100], is_lm=True, bs=4, seq_len=10)
    assert dls.one_batch()[0].shape==(4,10)

@pytest.mark.parametrize('bad', [None, float('nan'), 3, b'x'])
def test_missing_text_names_row_and_column(bad):
    df = pd.DataFrame({'review':['fine','good',bad,'bad']*5, 'y':['a','b']*10})
    with pytest.raises(ValueError, match=r"row 2 .*'review'"): ours.TextDataLoaders.from_df(df, text_col='review', label_col='y')

def test_sorted_dl_order_and_padding():
    d = docs(50)
    dl = ours.SortedDL([(fa.TensorText(o), i) for i,o in enumerate(d)], bs=7)
    lens = []
    for x,y in dl:
        for r,i in zip(x,y):
            n = len(d[int(i)])
            assert torch.equal(r[:n].as_subclass(torch.Tensor), d[int(i)]) and (r[n:]==1).all()
            lens.append(n)
    assert lens==sorted(lens, reverse=True) and len(lens)==50

def test_shuffle_is_seeded():
    d = docs()
    def run():
        fa.set_seed(5)
        dl = ours.LMDataLoader(d, bs=4, seq_len=6, shuffle=True)
        return torch.cat([x for x,_ in dl], 1), torch.cat([x for x,_ in dl], 1)
    (a,b),(c,d2) = run(),run()
    assert torch.equal(a, c) and torch.equal(b, d2) and not torch.equal(a, b)

def test_seq_len_and_direction_travel_with_the_data(tmp_path):
    path = folder(tmp_path/'texts')
    dls = fa.DataBlock((ours.TextBlock.from_folder(path, seq_len=80, backwards=True), fa.CategoryBlock), get_items=fa.get_text_files, get_y=fa.parent_label,
                       splitter=fa.GrandparentSplitter()).dataloaders(path, bs=8)
    assert dls.seq_len==80 and dls.valid.seq_len==80 and dls.backwards and dls.test_dl(['one text']).backwards
    x,_ = dls.valid.one_batch()
    bos = dls.vocab[0].index('xxbos')
    assert all(r[r!=1][-1]==bos for r in x)

def test_one_stream_in_memory():
    "No batch owns memory of its own"
    dl = ours.LMDataLoader(docs(), bs=4, seq_len=6)
    assert len({t.untyped_storage().data_ptr() for b in [list(dl)] for x,y in b for t in (x,y)})==1
