"""What comes from outside is whole and of a sane size, or one clear line: downloads, archives, packed files, tables"""
import gzip, io, lzma, os, tarfile, threading, time, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import numpy as np, pandas as pd, pytest
from ulmfit_nb.inputs import hold_out
from ulmfit_nb.limits import *
from ulmfit_nb.pretrained import *
from ulmfit_nb.texts import *
from ulmfit_nb.tokenization import *

@pytest.fixture
def limit(monkeypatch): return lambda **kw: [monkeypatch.setattr(limits, k, v) for k,v in kw.items()]

# ---- downloads ----

@pytest.fixture
def serve():
    "A server whose answers are bytes, sent as they are"
    servers = []
    def _serve(answer):
        class Answer(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'
            def do_GET(h):
                try: answer(h)
                except OSError: pass # the other end has had enough
                h.close_connection = True
            def log_message(h, *args): pass
        server = ThreadingHTTPServer(('127.0.0.1', 0), Answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f'http://127.0.0.1:{server.server_port}/model.tgz'
    yield _serve
    for o in servers:
        o.shutdown()
        o.server_close()

def raw(*parts, head='HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'):
    def answer(h):
        for o in (head.encode(),*parts): h.wfile.write(o)
    return answer

CHUNK = b'1000\r\n'+b'A'*4096+b'\r\n'
BROKEN = {'within a chunk': [CHUNK, b'1000\r\n'+b'A'*50], 'between chunks': [CHUNK], 'before all': [],
    'within a size': [CHUNK, b'10'], 'no number': [CHUNK, b'xyz\r\n']}

@pytest.mark.parametrize('how', BROKEN)
def test_a_part_is_not_taken_for_the_whole(serve, tmp_path, how):
    url = serve(raw(*BROKEN[how]))
    with pytest.raises(ConnectionError, match=f'{url} broke off after [0-9,]+ bytes; call again'):
        download_file(url, tmp_path/'f')
    assert not (tmp_path/'f').exists()

def test_chunks_with_an_end_are_the_whole(serve, tmp_path):
    url = serve(raw(CHUNK, CHUNK, b'0\r\n\r\n'))
    assert download_file(url, tmp_path/'f').read_bytes()==b'A'*8192

def test_a_length_that_is_not_reached(serve, tmp_path):
    url = serve(raw(b'A'*50, head='HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n'))
    with pytest.raises(ConnectionError, match='broke off after 50 of 100 bytes'): download_file(url, tmp_path/'f')

def test_neither_length_nor_end(serve, tmp_path):
    import hashlib
    url = serve(raw(b'A'*50, head='HTTP/1.0 200 OK\r\n\r\n'))
    with pytest.raises(ConnectionError, match='neither how long the file is nor where it ends.*sha256'):
        download_file(url, tmp_path/'f')
    sha = hashlib.sha256(b'A'*50).hexdigest()
    assert download_file(url, tmp_path/'f', sha).read_bytes()==b'A'*50

def test_another_part_than_asked_for(serve, tmp_path):
    (tmp_path/'f.part').write_bytes(b'A'*10)
    url = serve(raw(b'A'*5, head='HTTP/1.1 206 OK\r\nContent-Range: bytes 20-24/25\r\nContent-Length: 5\r\n\r\n'))
    with pytest.raises(ConnectionError, match='another part'): download_file(url, tmp_path/'f')
    assert (tmp_path/'f.part').read_bytes()==b'A'*10

def test_the_rest_is_known_from_the_range(serve, tmp_path):
    (tmp_path/'f.part').write_bytes(b'A'*10)
    head = 'HTTP/1.1 206 OK\r\nContent-Range: bytes 10-24/25\r\nTransfer-Encoding: chunked\r\n\r\n'
    url = serve(raw(b'5\r\nAAAAA\r\n0\r\n\r\n', head=head))
    with pytest.raises(ConnectionError, match='broke off after 15 of 25'): download_file(url, tmp_path/'f')

def test_no_answer_of_a_server(serve, tmp_path):
    url = serve(raw(head='hello, world\r\n\r\n'))
    with pytest.raises(ConnectionError, match=url): download_file(url, tmp_path/'f')

def test_endless_and_slow_downloads(serve, tmp_path, limit):
    def endless(h):
        h.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        while True: h.wfile.write(CHUNK)
    def slow(h):
        h.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        for i in range(100):
            h.wfile.write(b'1\r\nA\r\n')
            time.sleep(.05)
    limit(download_bytes=100_000)
    with pytest.raises(ValueError, match='more than 100,000 bytes.*limits.download_bytes'):
        download_file(serve(endless), tmp_path/'f')
    assert (tmp_path/'f.part').stat().st_size<200_000
    with pytest.raises(ValueError, match='more than 100,000 bytes'): # it says so itself: nothing is fetched
        download_file(serve(raw(head='HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n')), tmp_path/'g')
    limit(download_seconds=0)
    with pytest.raises(ValueError, match='more than 0 seconds'): download_file(serve(slow), tmp_path/'h')

# ---- archives ----

def tar_of(files, mode='w:gz'):
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode=mode) as tar:
        for k,v in files.items():
            info = tarfile.TarInfo(k)
            info.size = len(v)
            tar.addfile(info, io.BytesIO(v))
    return f.getvalue()

@pytest.mark.parametrize('mode', ['w:gz', 'w', 'w:xz', 'w:bz2'])
def test_a_cut_archive_is_an_error_wherever_it_is_cut(tmp_path, mode):
    rng = np.random.default_rng(0)
    whole = tar_of({'a.pth':rng.bytes(3000), 'itos.pkl':rng.bytes(700)}, mode)
    f = tmp_path/'a.tgz'
    f.write_bytes(whole)
    assert [o.name for o in extract_files(f, tmp_path/'whole')]==['a.pth','itos.pkl']
    at = [0, 1, 300, 512, 1024, 3584, 4096, 5000, *rng.integers(0, len(whole), 15)]
    for n in sorted({int(o) for o in at if o<(5632 if mode=='w' else len(whole)-1)}): # then zeros that say nothing
        f.write_bytes(whole[:n])
        with pytest.raises(ValueError, match='a.tgz is damaged or cut off: .*fetch it again'):
            extract_files(f, tmp_path/'cut')

def test_a_changed_byte_at_the_end_of_an_archive(tmp_path):
    "The checksum of what was packed stands last: it is read, too"
    whole = bytearray(tar_of({'a.pth':b'x'*9}))
    whole[-6] ^= 1
    (tmp_path/'a.tgz').write_bytes(whole)
    with pytest.raises(ValueError, match='damaged'): extract_files(tmp_path/'a.tgz', tmp_path/'out')

def test_bombs(tmp_path, limit):
    (tmp_path/'a.tgz').write_bytes(tar_of({'a':b'x'*2000, 'b':b'x'*2000}))
    limit(archive_bytes=3000)
    with pytest.raises(ValueError, match='a.tgz, unpacked: more than 3,000 bytes.*limits.archive_bytes'):
        extract_files(tmp_path/'a.tgz', tmp_path/'out')
    assert sum(o.stat().st_size for o in (tmp_path/'out').iterdir())<=3000
    limit(archive_bytes=10**6, archive_files=5)
    (tmp_path/'b.tgz').write_bytes(tar_of({str(i):b'' for i in range(6)}))
    with pytest.raises(ValueError, match='b.tgz: more than 5 files'): extract_files(tmp_path/'b.tgz', tmp_path/'out')
    (tmp_path/'c.tgz').write_bytes(gzip.compress(gzip.decompress(tar_of({'a':b''}))+b'\1'*2*10**6))
    with pytest.raises(ValueError, match='after its end'): extract_files(tmp_path/'c.tgz', tmp_path/'out')

def test_a_cut_model_is_removed_and_fetched_again(serve, tmp_path, monkeypatch):
    body = tar_of({'model.json':b'{}'})[:-20]
    head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n'
    url = serve(raw(body, head=head))
    monkeypatch.setenv('ULMFIT_HOME', str(tmp_path))
    monkeypatch.setitem(pretrained_urls, 'toy-fwd', {'url':url, 'sha256':None})
    for _ in range(2):
        with pytest.raises(ValueError, match=f'what {url} gave is no whole archive.*call again'):
            download_pretrained('toy')
        assert not list((tmp_path/'pretrained').iterdir())

def test_cut_weights_and_words(tmp_path, limit):
    import pickle, torch
    torch.save({'a':torch.zeros(9)}, tmp_path/'w.pth')
    (tmp_path/'itos.pkl').write_bytes(pickle.dumps(['a','b']))
    torch.save(['a','b'], tmp_path/'zip.pkl')
    assert load_fastai_weights(tmp_path/'w.pth', tmp_path/'zip.pkl')[1]==['a','b']
    for name in ('itos.pkl','zip.pkl','w.pth'):
        whole = (tmp_path/name).read_bytes()
        for n in (0, 1, len(whole)//2, len(whole)-1):
            (tmp_path/name).write_bytes(whole[:n])
            words = tmp_path/('zip.pkl' if name=='zip.pkl' else 'itos.pkl')
            with pytest.raises(Exception, match=name) as e: load_fastai_weights(tmp_path/'w.pth', words)
            assert isinstance(e.value, (ValueError,pickle.UnpicklingError))
        (tmp_path/name).write_bytes(whole)
    limit(vocabulary_words=1)
    with pytest.raises(ValueError, match='more than 1 words'):
        load_fastai_weights(tmp_path/'w.pth', tmp_path/'itos.pkl')

# ---- files of texts ----

def test_two_gigabytes_of_newlines(tmp_path, limit):
    limit(unpacked_bytes=300_000)
    for name,pack in (('a.txt.gz',gzip.compress), ('a.jsonl.xz',lzma.compress), ('a.csv.gz',gzip.compress)):
        f = tmp_path/name
        f.write_bytes(pack(b'\n'*1_000_000))
        for read in (read_texts, lambda f: list(stream_texts(f))) if 'txt' not in name else (read_text,):
            with pytest.raises(ValueError, match=f'{name} unpacks to too much: more than 300,000 bytes.*unpacked'):
                read(f)

def test_long_lines_and_texts(tmp_path, limit):
    limit(line_characters=1000, text_characters=2000)
    for name in ('a.jsonl','a.csv'):
        (tmp_path/name).write_text('x'*3000)
        with pytest.raises(ValueError, match=f'{name}, line 1: more than 1,000 characters.*limits.line_characters'):
            read_texts(tmp_path/name)
    (tmp_path/'a.txt').write_text('x'*3000)
    with pytest.raises(ValueError, match='a.txt, as one text: more than 2,000 characters'): read_text(tmp_path/'a.txt')
    with pytest.raises(ValueError, match='a.txt, line 1'): list(stream_texts(tmp_path/'a.txt', lines=True))

def test_columns(tmp_path, limit):
    f = tmp_path/'wide.csv'
    f.write_text(','.join(['text',*map(str, range(50))])+'\n'+','.join(['hello']*51)+'\n')
    df = read_texts(f)
    assert df.columns.tolist()==['text',*map(str, range(50))] and df['49'].tolist()==['hello']
    limit(columns=20)
    with pytest.raises(ValueError, match='wide.csv: more than 20 columns'): read_texts(f)

def test_columns_are_added_at_once(monkeypatch):
    "One by one, each new column would go over all that are there"
    n = []
    insert = pd.DataFrame._set_item
    monkeypatch.setattr(pd.DataFrame, '_set_item', lambda o, *args: n.append(1) or insert(o, *args))
    read_texts(pd.DataFrame({'text':['a b'], 'label':[1], **{str(i):[i] for i in range(30)}}))
    assert len(n)<5

def test_other_columns_keep_names_and_types():
    df = pd.DataFrame({'a':['x','y'], 'label':['p','q'], 'text':[1,2], 'n':pd.array([1,None], dtype='Int64'), 7:[1.,2.],
        'c':pd.Categorical(['u','v'])}, index=[5,3])
    res = read_texts(df, 'a')
    assert res.columns.tolist()==['text','label','text_orig','n','7','c'] and res.index.tolist()==[0,1]
    assert res.dtypes[['n','c']].astype(str).tolist()==['Int64','category'] and res.text_orig.tolist()==[1,2]

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes here')
def test_pipes_and_devices(tmp_path):
    for name in ('a.csv','a.jsonl','a.txt','a.parquet'):
        os.mkfifo(tmp_path/name)
        for read in (read_texts, read_text, lambda f: list(stream_texts(f))):
            with pytest.raises(ValueError, match=f'{name} is a pipe or a device, and a file is needed'):
                read(tmp_path/name)
    for read in (read_texts, read_text, lambda f: SubwordTokenizer(sp_model=f),
        lambda f: load_fastai_weights(f, f)):
        with pytest.raises(ValueError, match='/dev/zero is a pipe or a device'): read('/dev/zero')

# ---- many of a thing ----

def test_many_special_tokens(limit, monkeypatch):
    "spaCy reads them once, not once for each pattern and copy"
    from spacy.tokenizer import Tokenizer as Spacy
    toks = [f'xxs{i}' for i in range(21_000)]
    run = TokenizeWithRules(WordTokenizer(special_toks=toks))
    text = "(xxs7 xxs20998) don't é!xxs5 "
    ref = [o.text for o in run.tok.spacy('xxbos '+text.strip())]
    assert list(next(iter(run([text]))))==ref
    assert not run.memo.cutter.made.get('full')
    small = {len(o(' ').vocab) for k,o in run.memo.cutter.made.items() if k=='direct'}
    assert all(o<20_000 for o in small) or not small
    limit(special_tokens=10)
    with pytest.raises(ValueError, match='special_toks: more than 10 tokens'): WordTokenizer(special_toks=toks)

@pytest.mark.parametrize('seed', [0, 42])
def test_held_out_rows_are_the_same_as_class_by_class(seed):
    rng = np.random.default_rng(3)
    for y in (rng.integers(0, 40, 500), rng.choice(['b','a','c'], 90), np.arange(30)%2==0):
        want,r = np.zeros(len(y), dtype=bool),np.random.default_rng(seed)
        for o in np.unique(y):
            rows = np.flatnonzero(y==o)
            want[r.permutation(rows)[:int(len(rows)*.3)]] = True
        assert (hold_out(y, .3, seed)==want).all()

def test_many_classes_are_not_compared_one_by_one():
    class Counted(np.ndarray):
        n = 0
        def __array_ufunc__(self, ufunc, method, *args, **kwargs):
            Counted.n += ufunc is np.equal
            args = [o.view(np.ndarray) if isinstance(o, Counted) else o for o in args]
            return getattr(ufunc, method)(*args, **kwargs)
    hold_out(np.repeat(np.arange(300), 4).view(Counted), .5)
    assert Counted.n<10
