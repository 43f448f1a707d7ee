"""Real Dask workers: the same bits as one machine; workers and clients that are killed; commands. A worker is a process
that imports everything anew, so there is one cluster for all"""
import json, os, signal, subprocess, sys, time, weakref
from pathlib import Path
import numpy as np, pytest
from fastai.basics import set_seed
from ulmfit_nb.awd_lstm import AWD_LSTM
from ulmfit_nb.batching import TextDataLoaders
from ulmfit_nb.classifier import text_classifier_learner
from ulmfit_nb.distributed import *
from ulmfit_nb.flat_docs import FlatDocs
from ulmfit_nb.numericalization import Corpus
from ulmfit_nb.pretraining import prepare_corpus
from ulmfit_nb.scoring import predict_files
from ulmfit_nb.texts import sentences

dask = pytest.importorskip('distributed')
texts = sentences().text[:640].tolist()

@pytest.fixture(scope='module')
def cluster():
    with dask_client('local:2') as client: yield client

@pytest.fixture(scope='module')
def model(tmp_path_factory):
    df = sentences()[['text','label']][::40].reset_index(drop=True)
    set_seed(1)
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='label', bs=8, seed=1)
    learn = text_classifier_learner(dls, AWD_LSTM, config=dict(emb_sz=8, n_hid=12), pretrained=False)
    return learn.export(tmp_path_factory.mktemp('model')/'m')

def cut(folder, n, texts=texts):
    "`texts` in `n` files"
    folder.mkdir()
    size = -(-len(texts)//n)
    for i in range(n):
        rows = [json.dumps(dict(text=t, id=f'{i}-{k}')) for k,t in enumerate(texts[i*size:(i+1)*size])]
        (folder/f'{i:03}.jsonl').write_text('\n'.join(rows)+'\n')
    return folder

@pytest.fixture(scope='module')
def one(): return Corpus.from_texts(texts)

@pytest.mark.parametrize('n', [1,2,7,64])
def test_corpus_is_the_same_in_any_partition(cluster, one, tmp_path, n):
    c = corpus_from_files(cut(tmp_path/'in', n), tmp_path/'out', scheduler=cluster, shard_mb=1e-6)
    assert len(list((tmp_path/'out'/'shards').iterdir()))==n
    assert c.vocab==one.vocab and (np.asarray(c.ids)==one.ids).all() and (c.offsets==one.offsets).all()
    assert (c.counts==one.counts).all() and all((c[i]==one[i]).all() for i in range(0, 640, 37))

def test_pretraining_takes_its_corpus_from_workers(cluster, tmp_path):
    cut(tmp_path/'in', 3)
    a = prepare_corpus(tmp_path/'in', tmp_path/'a', vocab_sz=300, scheduler=cluster)
    b = prepare_corpus(tmp_path/'in', tmp_path/'b', vocab_sz=300)
    assert a.vocab==b.vocab and (FlatDocs.from_corpus(a).stream()==FlatDocs.from_corpus(b).stream()).all()

def files(folder): return {o.name:o.read_bytes() for o in sorted(folder.iterdir())}

def test_scores_are_the_same_bits(cluster, model, tmp_path):
    cut(tmp_path/'in', 5)
    here = predict_files(model, tmp_path/'in', tmp_path/'here', bs=32, chunk=50, progress=False)
    there = predict_files(model, tmp_path/'in', tmp_path/'there', bs=32, chunk=50, scheduler=cluster, progress=False)
    assert here==there==dict(texts=640, files=5, kept=0)
    assert files(tmp_path/'here')==files(tmp_path/'there')
    ids = [json.loads(o)['id'] for f in sorted((tmp_path/'there').glob('0*')) for o in f.open()]
    assert ids==[f'{i}-{k}' for i in range(5) for k in range(128)]

def test_a_failed_text_names_its_place(cluster, tmp_path):
    cut(tmp_path/'in', 3)
    with open(tmp_path/'in'/'001.jsonl', 'a') as f: f.write('{"text": "half \\ud800 a character"}\n')
    with pytest.raises(ValueError, match=r'001.jsonl, line 215 .*half of a character'):
        corpus_from_files(tmp_path/'in', tmp_path/'out', scheduler=cluster, shard_mb=1e-6, progress=False)
    assert not (tmp_path/'out'/'corpus.json').exists()

def test_a_killed_worker_loses_nothing(cluster, model, tmp_path):
    cut(tmp_path/'in', 12)
    predict_files(model, tmp_path/'in', tmp_path/'here', bs=4, chunk=20, progress=False)
    pids = list(cluster.run(os.getpid).values())
    from threading import Thread
    def kill():
        while not list((tmp_path/'there').glob('0*.jsonl')): time.sleep(.01)
        os.kill(pids[0], signal.SIGKILL)
    t = Thread(target=kill)
    t.start()
    res = predict_files(model, tmp_path/'in', tmp_path/'there', bs=4, chunk=20, scheduler=cluster, progress=False)
    t.join()
    deadline = time.time()+30
    while pids[0] in cluster.run(os.getpid).values() and time.time()<deadline: time.sleep(.1)
    assert pids[0] not in cluster.run(os.getpid).values() # it did die
    assert res==dict(texts=640, files=12, kept=0)
    assert files(tmp_path/'here')==files(tmp_path/'there')

client = '''
import sys
from ulmfit_nb import scoring
if __name__=='__main__':
    run = scoring._score_task
    def dies(*args):
        dies.n += 1
        if dies.n>3:
            import os
            os.kill(os.getpid(), 9)
        return run(*args)
    dies.n = 0
    scoring._score_task = dies
    scoring.predict_files(*sys.argv[1:4], bs=32, progress=False)
'''

def test_a_killed_client_keeps_finished_files(model, tmp_path):
    cut(tmp_path/'in', 6)
    r = subprocess.run([sys.executable, '-c', client, model, tmp_path/'in', tmp_path/'out'], capture_output=True,
        text=True, env=os.environ|{'OMP_NUM_THREADS':'1'})
    assert r.returncode==-signal.SIGKILL, r.stderr[-2000:]
    first = files(tmp_path/'out')
    assert len(first)==4
    assert predict_files(model, tmp_path/'in', tmp_path/'out', bs=32, progress=False)['kept']==3
    predict_files(model, tmp_path/'in', tmp_path/'whole', bs=32, progress=False)
    assert files(tmp_path/'out')==files(tmp_path/'whole')

def test_no_dask_and_no_scheduler_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConnectionError, match='no Dask scheduler answers at tcp://127.0.0.1:1'):
        with dask_client('tcp://127.0.0.1:1', timeout=1): pass
    monkeypatch.setitem(sys.modules, 'distributed', None)
    with pytest.raises(ImportError, match=r"ulmfit-nb\[dask\]"):
        corpus_from_files(cut(tmp_path/'in', 1), tmp_path/'out', scheduler='local:2')
    assert not (tmp_path/'out').exists()

def test_commands(cluster, one, model, tmp_path):
    "By a scheduler's address, in a shell"
    cut(tmp_path/'in', 3)
    def ulmfit(*args):
        r = subprocess.run([sys.executable, '-m', 'ulmfit_nb', *map(str, args), '--scheduler',
            cluster.scheduler.address, '--json'], capture_output=True, text=True)
        assert r.returncode==0, r.stderr
        return json.loads(r.stdout)
    res = ulmfit('tokenize', tmp_path/'in'/'*.jsonl', '--out', tmp_path/'corpus', '--shard-mb', 1e-6)
    assert res['texts']==640 and Corpus.open(tmp_path/'corpus').vocab==one.vocab
    res = ulmfit('predict', model, '--file', tmp_path/'in'/'*.jsonl', '--out', tmp_path/'labels')
    assert (res['texts'],res['files'])==(640,3) and len(list((tmp_path/'labels').glob('*.jsonl')))==3

def test_shards_are_opened_one_after_the_other(tmp_path, monkeypatch):
    "The words of all of them would be more than one machine holds"
    folders = [Corpus.from_texts(texts[i::6], min_freq=1, path=tmp_path/str(i)) and tmp_path/str(i)
        for i in range(6)]
    real,seen,most = Corpus.open,[],[]
    def spy(folder, *args, **kw):
        c = real(folder, *args, **kw)
        seen.append(weakref.ref(c))
        most.append(sum(o() is not None for o in seen))
        return c
    monkeypatch.setattr(Corpus, 'open', spy)
    join_shards(folders, tmp_path/'out')
    assert len(seen)>6 and max(most)<=2
