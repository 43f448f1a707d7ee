"Room 00 against fastai, against the packages of its extras, and on real reviews"
import csv, gzip, json, lzma, subprocess, sys, tracemalloc
import pandas as pd, pytest
from ulmfit_nb.texts import check_texts, imdb, read_texts, sentences, split_texts, stratified_sample, stream_texts

@pytest.fixture
def small(): return stratified_sample(sentences(), 20).reset_index(drop=True)

def same(a, b): assert a.to_dict('list')==b.to_dict('list')

def test_import_is_light():
    "Worker processes import this module: it must not bring torch or fastai"
    code = ("import sys, ulmfit_nb.texts as t; t.sentences(); print([o for o in ('torch','fastai','sklearn') if o in "
        "sys.modules])")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()=='[]'

def test_field_marks_are_fastais(small):
    from fastai.text.core import _join_texts, FLD
    df = small.assign(title=['A title']*20, year=range(20))
    for cols in (['title','text'], ['text','title','year']):
        assert read_texts(df, cols).text.tolist()==_join_texts(df[cols], mark_fields=True).tolist()
        assert read_texts(df, cols, mark_fields=False).text.tolist()==_join_texts(df[cols], mark_fields=False).tolist()
    assert read_texts(df, 'title', mark_fields=True).text[0]==f'{FLD} 1 A title'

def test_folder_reads_what_fastai_reads(small, tmp_path):
    from fastai.data.transforms import get_text_files, parent_label
    for i,o in small.iterrows():
        f = tmp_path/['train','test'][i%2]/o.label/f'{i}.TXT' if i==3 else tmp_path/['train',
            'test'][i%2]/o.label/f'{i}.txt'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(o.text, encoding='utf8')
    (tmp_path/'train'/'.hidden').mkdir()
    (tmp_path/'train'/'.hidden'/'x.txt').write_text('not to be read')
    for folders in (None, 'train', ['train','test']):
        df,files = read_texts(tmp_path, folders=folders),sorted(get_text_files(tmp_path, folders=folders))
        assert [tmp_path/o for o in df.path]==files
        assert df.label.tolist()==[parent_label(o) for o in files]
        assert df.text.tolist()==[o.read_text(encoding='utf8') for o in files]

@pytest.mark.parametrize('suffix', ['.csv','.tsv','.csv.gz','.csv.xz','.jsonl','.jsonl.gz','.jsonl.bz2','.ndjson',
    '.parquet'])
def test_every_kind_of_file(small, tmp_path, suffix):
    path = tmp_path/f'texts{suffix}'
    hard = small.assign(text=['line one\nline two','"quoted", and\ta tab','NA','None','5',' ','\u2028é😀','','null',
        'a\r\nb']*2)
    hard['text'] = [o or 'x' for o in hard.text]
    if suffix=='.parquet':
        pytest.importorskip('pyarrow')
        hard.to_parquet(path)
    elif 'json' in suffix or 'nd' in suffix: hard.to_json(path, orient='records', lines=True)
    else: hard.to_csv(path, index=False, sep='\t' if suffix=='.tsv' else ',')
    same(read_texts(path), hard)

@pytest.mark.parametrize('sep', [';','\t'])
def test_a_csv_without_commas(small, tmp_path, sep):
    """Its header tells what separates the fields, in the table and in the stream; an argument and a header with commas
    have the last word"""
    hard = small.assign(text=['a, b', 'c;d', 'e\tf', 'two\nlines', '"g"']*4)
    hard.to_csv(tmp_path/'a.csv', index=False, sep=sep)
    same(read_texts(tmp_path/'a.csv'), hard)
    assert list(stream_texts(tmp_path/'a.csv'))==hard.text.tolist()
    assert read_texts(tmp_path/'a.csv', sep='#').shape[1]==1
    same(read_texts(tmp_path/'a.csv', delimiter=sep), hard)
    hard.rename(columns=dict(text=f'text{sep}s')).to_csv(tmp_path/'a.csv', index=False)
    same(read_texts(tmp_path/'a.csv', f'text{sep}s'), hard)
    (tmp_path/'a.csv').write_text(f'x{sep}y, z\n')
    assert read_texts(tmp_path/'a.csv', 0, header=None).text.tolist()==[f'x{sep}y']
    (tmp_path/'a.csv').write_text(f'# made{sep}yesterday\ntext,label\nx,y\n')
    for kw in (dict(skiprows=1), dict(comment='#')):
        assert read_texts(tmp_path/'a.csv', **kw).values.tolist()==[['x','y']]

@pytest.mark.parametrize('suffix', ['.tsv','.tsv.gz'])
def test_a_tsv_without_quoting(small, tmp_path, suffix):
    "Quotes that nothing closes swallow no rows; Python's csv, told that there is no quoting, is the reference"
    texts = ['"To be', 'or not', 'to be"', '"whole"', '""', '"', 'in the "middle"', 'ends so"', '"a" and "b', "it's"]*2
    opener,path = (gzip.open if suffix.endswith('.gz') else open),tmp_path/f'a{suffix}'
    for texts in (texts, texts[::-1], ['plain']*19+['"the last']):
        with opener(path, 'wt', encoding='utf8') as f:
            f.write('label\ttext\n'+''.join(f'{l}\t{t}\n' for l,t in zip(small.label, texts)))
        with opener(path, 'rt', encoding='utf8', newline='') as f:
            rows = list(csv.DictReader(f, delimiter='\t', quoting=csv.QUOTE_NONE))
        assert [o['text'] for o in rows]==texts
        assert read_texts(path)[['label','text']].to_dict('records')==rows
        assert list(stream_texts(path))==texts
    small.assign(text=texts).to_csv(path, index=False, sep='\t') # pandas doubles the quotes and puts others around
    assert read_texts(path).text.tolist()==texts

def test_other_names_and_a_byte_order_mark(small, tmp_path):
    small.rename(columns=dict(text='Bewertung', label='Urteil')).to_csv(tmp_path/'a.csv', index=False,
        encoding='utf-8-sig', sep=';')
    df = read_texts(tmp_path/'a.csv', 'Bewertung', 'Urteil', sep=';')
    same(df, small)
    assert df.columns[0]=='text' and df.columns[1]=='label'

def test_undecodable_bytes_are_found_anywhere(tmp_path):
    "The offset counts from the file's first byte, past the reader's own buffers and the byte order mark"
    data = b'\xef\xbb\xbftext\n' + 'ä word\n'.encode()*100_000
    at = len(data)
    for name,opener in (('a.csv',open), ('a.csv.gz',gzip.open), ('a.csv.xz',lzma.open)):
        with opener(tmp_path/name, 'wb') as f: f.write(data + b'caf\xe9\n')
        with pytest.raises(ValueError, match=f'{name}: byte 0xe9 at offset {at+3} is not utf8'):
            read_texts(tmp_path/name)
        assert read_texts(tmp_path/name, errors='replace').text.iloc[-1]=='caf\ufffd'
    (tmp_path/'b.jsonl').write_bytes(b'{"text": "ok"}\n{"text": "\xff"}\n')
    with pytest.raises(ValueError, match='b.jsonl: byte 0xff at offset 25'): read_texts(tmp_path/'b.jsonl')
    with pytest.raises(LookupError, match='utf-9'): read_texts(tmp_path/'b.jsonl', encoding='utf-9')

@pytest.mark.parametrize('bad', [None, float('nan'), 3, b'bytes', pd.NA])
def test_a_text_that_is_none(small, bad):
    df = small.astype(object)
    df.loc[7,'text'] = bad
    with pytest.raises(ValueError, match="row 7 of column 'text'"): check_texts(df)
    with pytest.raises(ValueError, match="row 7 of column 'text'"): read_texts(df)
    if pd.isna(bad): assert len(read_texts(df, drop_missing=True))==19

def test_rows_are_named_by_their_index(small):
    df = small.astype(object).set_index(pd.Index([f'r{i}' for i in range(20)]))
    df.loc['r5','text'] = None
    with pytest.raises(ValueError, match='in row r5 of'): read_texts(df)
    assert read_texts(df, drop_missing=True).index.tolist()==list(range(19))

def test_labels_asked_for_by_name_are_checked(small):
    df = small.astype(object)
    df.loc[2,'label'] = None
    with pytest.raises(ValueError, match="label is missing in row 2 of column 'label'"):
        read_texts(df, label_col='label')
    assert len(read_texts(df, label_col='label', drop_missing=True))==19
    assert len(read_texts(df))==20 # a half labelled table still serves a language model
    assert read_texts(df, label_col=False).columns.tolist()==['text','source']

def test_huggingface_datasets(small, tmp_path):
    datasets = pytest.importorskip('datasets')
    feats = datasets.Features(dict(text=datasets.Value('string'),
        label=datasets.ClassLabel(names=['negative','positive']), source=datasets.Value('string')))
    ds = datasets.Dataset.from_pandas(small, preserve_index=False).cast_column('label', feats['label'])
    assert ds[0]['label'] in (0,1)
    same(read_texts(ds), small)
    both = read_texts(datasets.DatasetDict(train=ds, test=ds.select([0,1])))
    assert both.split.tolist()==['train']*20+['test']*2 and both.label[20]==small.label[0]
    ds.save_to_disk(tmp_path/'one')
    datasets.DatasetDict(train=ds).save_to_disk(tmp_path/'many')
    same(read_texts(tmp_path/'one'), small)
    same(read_texts(tmp_path/'many').drop(columns='split'), small)

@pytest.mark.parametrize('valid', [0.05, 0.1, 1/3, 0.5, 700])
def test_split_by_group_keeps_shares(valid):
    df = sentences()
    df['film'] = df.index*7919 % 271
    s = split_texts(df, valid, group_col='film')
    share = valid if valid<1 else valid/3000
    assert s.groupby('film').is_valid.nunique().max()==1
    for _,g in s.groupby('label'): assert abs(g.is_valid.mean()-share)<0.03
    pd.testing.assert_frame_equal(s.drop(columns='is_valid'), df)

# one text after the other

def packed(path, texts):
    for suffix,opener in (('',open),('.xz',lzma.open),('.gz',gzip.open)):
        with opener(path/f't.jsonl{suffix}', 'wt', encoding='utf8') as f:
            f.writelines(json.dumps(dict(text=t))+'\n' for t in texts)

def test_stream_texts(tmp_path):
    texts = ['one\ntwo','drei ü','']
    packed(tmp_path, texts)
    (tmp_path/'a.txt').write_text('a file', encoding='utf8')
    for suffix in ('','.xz','.gz'): assert list(stream_texts(tmp_path/f't.jsonl{suffix}'))==texts
    assert list(stream_texts(tmp_path))==['a file']+texts*3
    assert list(stream_texts([tmp_path/'a.txt',tmp_path/'t.jsonl']))==['a file']+texts
    with pytest.raises(ValueError, match="line 1: no text in field 'body'"):
        list(stream_texts(tmp_path/'t.jsonl', 'body'))
    with pytest.raises(FileNotFoundError, match='nowhere'): list(stream_texts(tmp_path/'nowhere'))
    (tmp_path/'bad.jsonl').write_text('{"text":"x"}\n{', encoding='utf8')
    with pytest.raises(ValueError, match='bad.jsonl, line 2: not JSON'): list(stream_texts(tmp_path/'bad.jsonl'))

def test_texts_are_not_held(tmp_path):
    "A document is read when it is asked for: the file may grow meanwhile"
    (tmp_path/'a.txt').write_text('first')
    texts = stream_texts([tmp_path/'a.txt', tmp_path/'b.txt'])
    assert next(texts)=='first'
    (tmp_path/'b.txt').write_text('second')
    assert next(texts)=='second'

@pytest.mark.parametrize('suffix', ['.csv','.tsv.gz','.jsonl','.jsonl.xz','.parquet'])
def test_stream_is_the_tables_texts(small, tmp_path, suffix):
    "Whatever the format, and whatever is in a text"
    path = tmp_path/f'texts{suffix}'
    hard = small.assign(text=['line one\nline two','"quoted", and\ta tab','NA','5','\u2028é😀']*4)
    if suffix=='.parquet':
        pytest.importorskip('pyarrow')
        hard.to_parquet(path)
    elif 'json' in suffix: hard.to_json(path, orient='records', lines=True)
    else: hard.to_csv(path, index=False, sep='\t' if 'tsv' in suffix else ',')
    for col in (None, 'text', 'source', ['source','text']):
        assert list(stream_texts(path, col))==read_texts(path, col).text.tolist()

def test_stream_says_where(tmp_path):
    (tmp_path/'a.jsonl').write_text('{"text":"a"}\n\n{"text":null}\n')
    with pytest.raises(ValueError, match="a.jsonl, line 3: no text in field 'text', but None"):
        list(stream_texts(tmp_path/'a.jsonl'))
    (tmp_path/'b.jsonl').write_text('{"text":"a"}\n{"txt":"b"}\n')
    with pytest.raises(ValueError, match="b.jsonl, line 2: no text in field 'text'"):
        list(stream_texts(tmp_path/'b.jsonl'))
    (tmp_path/'c.csv').write_text('a,b\n1,2\n')
    with pytest.raises(ValueError, match='which column of .*c.csv holds the text'): list(stream_texts(tmp_path/'c.csv'))
    (tmp_path/'d.jsonl').write_bytes(b'{"text": "ok"}\n{"text": "\xff"}\n')
    with pytest.raises(ValueError, match='d.jsonl: byte 0xff at offset 25'): list(stream_texts(tmp_path/'d.jsonl'))
    with pytest.raises(ValueError, match='position 1: it is 3'): list(stream_texts(['a', 3]))

@pytest.mark.parametrize('suffix', ['.csv','.jsonl','.txt'])
def test_stream_takes_little_memory(tmp_path, suffix):
    "Ten times the rows, the same memory"
    def peak(n):
        df = pd.DataFrame({'text':[f'{i} '+'word '*40 for i in range(n)]})
        path = tmp_path/f'{n}{suffix}'
        if suffix=='.csv': df.to_csv(path, index=False)
        elif suffix=='.jsonl': df.to_json(path, orient='records', lines=True)
        else: path.write_text('\n'.join(df.text))
        del df
        tracemalloc.start()
        try:
            assert sum(1 for _ in stream_texts(path, lines=True))==n
            return tracemalloc.get_traced_memory()[1]
        finally: tracemalloc.stop()
    assert peak(60_000)<1.5*peak(6_000)

def test_imdb_without_network(monkeypatch, tmp_path):
    "One clear error, which names the archive and the layouts"
    import urllib.error, fastai.data.external as ext
    monkeypatch.setattr(ext, 'fastai_path', lambda folder: tmp_path/folder)
    def untar(url): raise urllib.error.URLError('no network')
    monkeypatch.setattr(ext, 'untar_data', untar)
    with pytest.raises(ConnectionError) as e: imdb()
    for o in (ext.URLs.IMDB, str(tmp_path/'archive'/'imdb.tgz'), 'train.jsonl.xz', 'unsup.jsonl.xz', 'train/pos'):
        assert o in str(e.value)
    assert e.value.__suppress_context__

def test_imdb_unpacks_an_archive_that_is_there(monkeypatch, tmp_path):
    "The way out that the error names works: an archive put in place is unpacked by fastai and read"
    import tarfile, fastai.data.external as ext
    home = tmp_path/'home'
    cfg = ext.Config(home, 'config.ini', create=dict(data='data', archive='archive', storage='tmp', model='models'))
    monkeypatch.setattr(ext, 'fastai_cfg', lambda: cfg)
    monkeypatch.setattr('fastdownload.core.check', lambda *a: True) # the toy archive has another checksum
    for o in ('train/pos/0_9.txt','train/neg/0_1.txt','test/pos/1_8.txt','test/neg/1_2.txt','unsup/0_0.txt'):
        f = tmp_path/'imdb'/o
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(f'the text of {o}')
    (home/'archive').mkdir(parents=True)
    with tarfile.open(home/'archive'/'imdb.tgz', 'w:gz') as t: t.add(tmp_path/'imdb', 'imdb')
    df = imdb()
    assert df.split.tolist()==['train','train','test','test','unsup']
    assert df.rating.fillna(0).tolist()==[1,9,2,8,0]
    assert df.text[0]=='the text of train/neg/0_1.txt' and 'movie' not in df

@pytest.mark.data
def test_real_imdb(data_path):
    df = imdb(data_path('imdb'), ['train'])
    assert df.label.value_counts().to_dict()==dict(neg=12500, pos=12500)
    assert df.rating.between(1,10).all() and not df.rating.isin([5,6]).any()
    assert df.label[:12500].nunique()==1 # sorted: why a sample has to be drawn
    s = split_texts(stratified_sample(df, 4000), 0.5, group_col='movie')
    assert s.groupby('movie').is_valid.nunique().max()==1
    for _,g in s.groupby('label'): assert abs(g.is_valid.mean()-0.5)<0.02

def test_settings_are_refused_by_name(small, tmp_path):
    "A misspelled argument is not taken along in silence, nor one that means nothing for this source"
    small.to_csv(tmp_path/'a.csv', index=False)
    small.to_json(tmp_path/'a.jsonl', orient='records', lines=True)
    for f in (read_texts, lambda *args, **kwargs: list(stream_texts(*args, **kwargs))):
        with pytest.raises(TypeError, match="has no argument 'encodin'; did you mean 'encoding'"):
            f(tmp_path/'a.csv', encodin='latin1')
    with pytest.raises(TypeError, match="did you mean 'quoting'"): read_texts(tmp_path/'a.csv', quotin=3)
    with pytest.raises(ValueError, match='sep= is for CSV and TSV files'): read_texts(tmp_path/'a.jsonl', sep=';')
    with pytest.raises(ValueError, match='which a DataFrame is not'): read_texts(small, header=None)

def test_columns_that_cannot_be_meant(small):
    twice = pd.concat([small, small[['text']]], axis=1)
    for f in (read_texts, check_texts):
        with pytest.raises(ValueError, match="2 columns of the table are called 'text'"): f(twice)
    with pytest.raises(ValueError, match='named twice'): read_texts(small, 'text', 'text')
    with pytest.raises(ValueError, match='named twice'): read_texts(small, ['text','text'])
    with pytest.raises(ValueError, match=f"the label is blank in row {small.index[1]} of column 'label'"):
        check_texts(small.assign(label=['a',' ']*(len(small)//2)), 'text', 'label')
    from ulmfit_nb.batching import TextDataLoaders
    for f in (read_texts, TextDataLoaders.from_df):
        with pytest.raises(ValueError, match='nothing but blanks'):
            f(small.assign(text=' '), text_col='text', label_col='label')

@pytest.mark.parametrize('name', ['gap.csv','gap.jsonl'])
def test_streams_without_what_is_missing(tmp_path, name):
    (tmp_path/'gap.csv').write_text('text;label\na;x\n;y\nb;x\n')
    (tmp_path/'gap.jsonl').write_text('{"text": "a"}\n{"text": null}\n{"text": "b"}\n')
    how = dict(sep=';') if name.endswith('csv') else {}
    with pytest.raises(ValueError): list(stream_texts(tmp_path/name, 'text', **how))
    assert list(stream_texts(tmp_path/name, 'text', drop_missing=True, **how))==['a','b']
