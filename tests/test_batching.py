"Batches against fastai's, through lists, folders and dataframes, forwards and backwards"
import os, pickle, random, subprocess, sys
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
    for (x,y),(x1,y1) in zip(a, b):
        assert torch.equal(x.as_subclass(torch.Tensor),
            x1.as_subclass(torch.Tensor)) and torch.equal(y.as_subclass(torch.Tensor), y1.as_subclass(torch.Tensor))

@pytest.mark.parametrize('bs,seq_len', [(64,72),(8,7),(3,5),(16,1000),(1,10)])
@pytest.mark.parametrize('backwards', [False,True])
def test_lm_batches_equal_fastai(bs, seq_len, backwards):
    d = docs()
    order = np.random.default_rng(3).permutation(len(d))
    theirs = [fa.TensorText(d[i].flip(0) if backwards else d[i]) for i in order]
    dl = ours.LMDataLoader(fa.L(d), bs=bs, seq_len=seq_len, shuffle=True, backwards=backwards,
        shuffle_fn=lambda idxs: order)
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
    return lib.DataBlock(kw.pop('tb')(path, is_lm=True, **kw), get_items=fa.get_text_files,
        splitter=fa.GrandparentSplitter())

@pytest.mark.parametrize('backwards', [False,True])
def test_data_block_equals_fastai(tmp_path, backwards):
    path = folder(tmp_path/'texts')
    mine = block(fa, path, tb=ours.TextBlock.from_folder, backwards=backwards).dataloaders(path, bs=8, seq_len=10)
    theirs = block(fa, path, tb=lambda *a, **k: fa.TextBlock.from_folder(*a, n_workers=0, **k), backwards=backwards,
        vocab=mine.vocab).dataloaders(path, bs=8, seq_len=10, num_workers=0)
    assert isinstance(mine.train, ours.LMDataLoader) and isinstance(theirs.train, fa.LMDataLoader)
    same_batches(mine.valid, theirs.valid)
    assert mine.backwards==backwards
    own_vocab = block(fa, path, tb=lambda *a, **k: fa.TextBlock.from_folder(*a, n_workers=0, **k)).dataloaders(path,
        bs=8, num_workers=0).vocab
    assert [o for o in mine.vocab
        if o!='xxfake'][:9]==own_vocab[:9] and set(mine.vocab)-{'xxfake'}==set(own_vocab)-{'xxfake'}

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
    with pytest.raises(ValueError, match=r"row 2 .*'review'"):
        ours.TextDataLoaders.from_df(df, text_col='review', label_col='y')

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
    dls = fa.DataBlock((ours.TextBlock.from_folder(path, seq_len=80, backwards=True), fa.CategoryBlock),
        get_items=fa.get_text_files, get_y=fa.parent_label,
                       splitter=fa.GrandparentSplitter()).dataloaders(path, bs=8)
    assert dls.seq_len==80 and dls.valid.seq_len==80 and dls.backwards and dls.test_dl(['one text']).backwards
    x,_ = dls.valid.one_batch()
    bos = dls.vocab[0].index('xxbos')
    assert all(r[r!=1][-1]==bos for r in x)

def test_one_stream_in_memory():
    "No batch owns memory of its own"
    dl = ours.LMDataLoader(docs(), bs=4, seq_len=6)
    assert len({t.untyped_storage().data_ptr() for b in [list(dl)] for x,y in b for t in (x,y)})==1

@pytest.mark.parametrize('backwards', [False,True])
def test_shuffled_data_block_equals_fastai(tmp_path, monkeypatch, backwards):
    "The order of documents that fastai draws, given to ours"
    path = folder(tmp_path/'texts')
    mine = block(fa, path, tb=ours.TextBlock.from_folder, backwards=backwards).dataloaders(path, bs=8, seq_len=10)
    theirs = block(fa, path, tb=lambda *a, **k: fa.TextBlock.from_folder(*a, n_workers=0, **k), backwards=backwards,
        vocab=mine.vocab).dataloaders(path, bs=8, seq_len=10, num_workers=0)
    assert [o.name for o in theirs.train_ds.items]==[o.name for o in mine.train_ds.items]
    for _ in range(2):
        batches = list(theirs.train)
        order = np.array(theirs.train.items.idxs)
        assert order.tolist()!=sorted(order)
        mine.train.shuffle_fn = lambda idxs: order
        same_batches(mine.train, batches)

@pytest.mark.parametrize('kind', ['lm','lm in order','sorted','sorted in order'])
def test_pass_is_taken_up_anywhere(kind):
    "After any number of batches, with the orders of later epochs"
    d = docs(60)
    def new():
        random.seed(2)
        shuffle = 'order' not in kind
        if kind.startswith('lm'): return ours.LMDataLoader(d, bs=3, seq_len=20, shuffle=shuffle)
        return ours.SortedDL([(fa.TensorText(o), i) for i,o in enumerate(d)], bs=7, shuffle=shuffle)
    dl = new()
    epochs = [list(dl) for _ in range(3)]
    for n in range(len(epochs[1])+1):
        dl = new()
        list(dl)
        it = iter(dl)
        for _ in range(n): next(it)
        if n==0: continue # before its first batch a pass has no order yet
        state = pickle.loads(pickle.dumps(dl.state_at(n)))
        it.close()
        other = new().resume(state)
        assert other.first_batch==n
        rest = list(other)
        if n<len(epochs[1]): same_batches(rest, epochs[1][n:])
        else: assert rest==[]
        assert other.first_batch==0
        same_batches(other, epochs[2])

@pytest.mark.parametrize('world', [1,2,3,5])
@pytest.mark.parametrize('backwards', [False,True])
def test_ranks_share_the_joint_batch(world, backwards):
    d = docs()
    order = np.random.default_rng(3).permutation(len(d))
    joint = ours.LMDataLoader(d, bs=4*world, seq_len=9, shuffle=True, backwards=backwards,
        shuffle_fn=lambda idxs: order)
    one = ours.LMDataLoader(d, bs=4, seq_len=9, shuffle=True, backwards=backwards, shuffle_fn=lambda idxs: order)
    ranks = [list(one.for_rank(r, world)) for r in range(world)]
    same_batches(joint, [tuple(torch.cat(o) for o in zip(*bs)) for bs in zip(*ranks)])
    for r in ranks: # a row goes on where it ended
        for (_,y),(x,_) in zip(r, r[1:]):
            assert torch.equal(y[:,-1].as_subclass(torch.Tensor), x[:,0].as_subclass(torch.Tensor))

ranked = """
import os, random, sys, torch
from ulmfit_nb.batching import LMDataLoader
rank = int(sys.argv[1])
torch.distributed.init_process_group('gloo', init_method='file://'+sys.argv[2], rank=rank, world_size=2)
random.seed(rank) # each process has random numbers of its own
dl = LMDataLoader([torch.arange(i*100, i*100+20) for i in range(20)], bs=3, seq_len=7, shuffle=True).for_rank()
epochs = [[torch.stack([b[0],b[1]]).as_subclass(torch.Tensor) for b in dl] for _ in range(2)]
torch.save(epochs, f'{sys.argv[2]}.{rank}')
torch.distributed.barrier()
torch.distributed.destroy_process_group() # threads of gloo that outlive Python's end abort the process (pytorch#190489)
"""

def test_processes_agree_on_the_order(tmp_path):
    "Two gloo processes with other seeds read other rows of one stream"
    ps = [subprocess.Popen([sys.executable, '-c', ranked, str(r), tmp_path/'store'],
        env={**os.environ, 'OMP_NUM_THREADS':'1', 'WORLD_SIZE':'2', 'RANK':str(r)},
                           stderr=subprocess.PIPE, text=True) for r in range(2)]
    errs = [p.communicate(timeout=300)[1] for p in ps]
    assert [p.returncode for p in ps]==[0,0], errs
    a,b = (torch.load(f"{tmp_path/'store'}.{r}") for r in range(2))
    for e0,e1 in zip(a, b):
        ys = torch.cat([o[1].flatten() for e in (e0,e1) for o in e])
        assert len(ys)==len(set(ys.tolist()))==(400-1)//6*6 # no token twice, all but the rest of a division
    assert not torch.equal(a[0][0], a[1][0])

@pytest.mark.parametrize('backwards', [False,True])
def test_blocks_do_not_show(backwards):
    ids = torch.arange(1000)
    lens = torch.tensor(np.random.default_rng(0).integers(0, 30, 60))
    starts = (lens.cumsum(0)-lens)[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    whole = ours.lay_out(ids, starts, lens, backwards)
    for block in (1,7,29,100,len(whole)-1,len(whole),len(whole)+1):
        assert torch.equal(ours.lay_out(ids, starts, lens, backwards, block), whole)
    assert torch.equal(whole, torch.cat([ids[s:s+n].flip(0) if backwards else ids[s:s+n] for s,n in zip(starts, lens)]))

def test_stream_stays_on_the_cpu_where_it_does_not_fit(monkeypatch):
    d = docs()
    dl = ours.LMDataLoader(d, bs=4, seq_len=6, device='meta')
    monkeypatch.setattr(ours, '_fits', lambda n, device: False)
    assert dl.stream().device.type=='cpu' and {t.device.type for b in dl for t in b}=={'meta'}

def test_byte_order_marks_and_encodings(tmp_path):
    "The text of a file, however an editor saved it: from a folder, by its path, and as a corpus"
    path = folder(tmp_path/'a')
    want = ours.TextDataLoaders.from_folder(path, bs=8)
    for enc,given in (('utf-8-sig','utf8'), ('utf-16','utf-16'), ('cp1252','cp1252')):
        other = tmp_path/enc
        for f in path.rglob('*.txt'):
            g = other/f.relative_to(path)
            g.parent.mkdir(parents=True, exist_ok=True)
            g.write_text(f.read_text(encoding='utf8'), encoding=enc, errors='replace')
        dls = ours.TextDataLoaders.from_folder(other, bs=8, encoding=given)
        f = want.train_ds.items[0]
        g = other/f.relative_to(path)
        assert not [o for o in dls.vocab[0] if '\ufeff' in o]
        assert list(dls.train_ds.tokenizer(g))==list(want.train_ds.tokenizer(f))
        assert list(Tokenizer()(g) if given=='utf8' else dls.train_ds.tokenizer(g))==list(Tokenizer()(f))
        if enc!='cp1252': assert dls.vocab==want.vocab
    (other/'train'/'positive'/'bad.txt').write_bytes('Café'.encode('cp1252'))
    with pytest.raises(ValueError, match=r"\.txt: byte 0x.. at offset \d+ is not utf8; name the file's encoding="):
        ours.TextDataLoaders.from_folder(other)
    assert len(ours.TextDataLoaders.from_folder(other, errors='replace').train_ds)==len(want.train_ds)+1
    with pytest.raises(ValueError, match="encoding='utf-16'"): ours.TextDataLoaders.from_folder(tmp_path/'utf-16')

def table(**cols): return sentences()[:60][['text','label']].assign(**cols)

@pytest.mark.parametrize('kw,says', [
    (dict(label_col='label'),
    r"label is missing in row 3 of column 'label'; drop it with df.dropna\(subset=\['label'\]\)"),
    (dict(label_col='tags', label_delim=' '), r"label is missing in row 3 of column 'tags'; where a text has none "
    r".*fillna\(''\)"),
    (dict(label_col='y', y_block=fa.RegressionBlock()), "label is missing in row 3 of column 'y'"),
    (dict(label_col=['toxic','threat']), "label is missing in row 3 of column 'threat'"),
    (dict(label_col=1), "label is missing in row 3 of column 'label'"),
    (dict(label_col='nowhere'), "no column 'nowhere' in the table")])
def test_missing_labels(kw, says):
    df = table(tags=['red blue','blue','red']*20, y=np.linspace(0, 1, 60), toxic=[0,1]*30, threat=[1.,1.,0.]*20)
    df.loc[3, ['label','tags','y','threat']] = None
    with pytest.raises(ValueError, match=says): ours.TextDataLoaders.from_df(df, text_col='text', bs=8, **kw)
    if kw=={'label_col':'label'}: # a block that has a name for what is missing, and the language model, go on
        assert '#na#' in ours.TextDataLoaders.from_df(df, text_col='text', label_col='label',
            y_block=fa.CategoryBlock(add_na=True), bs=8).vocab[1]
        assert len(ours.TextDataLoaders.from_df(df, text_col='text', is_lm=True, bs=2).train_ds)==48

def test_csv_as_read_texts(tmp_path):
    "A label that is the word None or NA is a label; numbers stay numbers, labels in several columns too"
    from ulmfit_nb.texts import read_texts
    for sep,name in ((',','a.csv'), (';','b.csv'), ('\t','c.tsv')):
        df = table(label=['None','NA','Spam']*20, n=range(60), code=['007','7','70']*20)
        df.to_csv(tmp_path/name, index=False, sep=sep, encoding='utf-8-sig')
        for col,want in (('label',['NA','None','Spam']), ('n',None), ('code',['007','7','70'])):
            dls = ours.TextDataLoaders.from_csv(tmp_path, name, text_col='text', label_col=col, bs=8, seed=1)
            if want: assert list(dls.vocab[1])==want==sorted(read_texts(tmp_path/name, 'text', col).label.unique())
            else: assert all(isinstance(int(o), int) and not isinstance(o, str) for o in dls.vocab[1])
    df.to_csv(tmp_path/'d.csv', index=False, header=False, sep='|')
    assert list(ours.TextDataLoaders.from_csv(tmp_path, 'd.csv', header=None, delimiter='|', bs=8).vocab[1])==['NA',
        'None','Spam']
    df.to_csv(tmp_path/'plain', index=False)
    assert list(ours.TextDataLoaders.from_csv(tmp_path, 'plain', bs=8).vocab[1])==['NA','None','Spam']
    (tmp_path/'e.csv').write_bytes(df.assign(text='Café '+df.text).to_csv(index=False).encode('cp1252', 'replace'))
    assert 'café' in ours.TextDataLoaders.from_csv(tmp_path, 'e.csv', encoding='cp1252', bs=8).vocab[0]
    with pytest.raises(ValueError, match="byte 0xe9 at offset .* is not utf8; name the file's encoding="):
        ours.TextDataLoaders.from_csv(tmp_path, 'e.csv')
    assert len(ours.TextDataLoaders.from_csv(tmp_path, 'e.csv', errors='replace').train_ds)==48

def test_columns_of_zeros_and_ones_are_labels():
    tags = ['toxic','threat','insult']
    df = table(**dict(zip(tags, np.random.default_rng(0).integers(0, 2, (3,60)))))
    dls = ours.TextDataLoaders.from_df(df, text_col='text', label_col=tags, bs=8, seed=1)
    assert list(dls.vocab[1])==tags
    for i in range(5): assert dls.train_ds[i][1].tolist()==df.loc[dls.train_ds.items.index[i], tags].tolist()
    words = ours.TextDataLoaders.from_df(df.assign(other='x'), text_col='text', label_col=['label','other'], bs=8)
    assert list(words.vocab[1])==['negative','positive','x']

@pytest.mark.parametrize('n', [2, 7, 63])
def test_fewer_texts_than_a_batch(n):
    "The training loader has smaller batches in place of none"
    dls = ours.TextDataLoaders.from_df(sentences()[:n+1][['text','label']], valid_pct=1.1/(n+1), seed=1)
    assert (len(dls.train_ds), len(dls.train), dls.train.bs)==(n, 1, n)
    assert sorted(torch.cat([y for _,y in dls.train]).tolist())==sorted(int(o) for o in dls.train_ds.tls[1])
    assert dls.train.new(fa.L(dls.train_ds)*40).bs==64 and dls.valid.bs==64

@pytest.mark.parametrize('bs', [16,64])
def test_every_document_has_its_turn(bs):
    "Which documents fill no batch is chance; in fastai they are the shortest ones, in each epoch the same"
    lens = list(range(3, 93))
    dl = ours.SortedDL([(torch.full((n,), 5),) for n in lens], bs=bs, shuffle=True, drop_last=True)
    n,seen = len(lens)//bs*bs,set()
    for _ in range(20):
        order = dl.get_idxs()
        assert sorted(order)==list(range(90)) and order[0]==89
        for i in range(0, min(n, 50*bs), bs): assert len(set(order[i:i+bs]))==bs
        seen |= set(order[:n])
    assert seen==set(range(90))
    few = ours.SortedDL([(torch.full((n,), 5),) for n in lens], bs=bs, shuffle=True, drop_last=True).for_rank(0, 9)
    assert len(few.get_idxs())<=bs # fewer than a joint batch: nothing breaks
