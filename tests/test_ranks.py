"Training in several processes: the steps of one; a pretraining that is killed and goes on. Real processes, over gloo"
import json, os, random, subprocess, sys
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file
from ulmfit_nb.batching import SortedDL

def launch(n, *args, fails=False):
    "`tests/together.py` in `n` processes, as `torchrun` starts them"
    how = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', n] if n>1 else []
    r = subprocess.run([sys.executable, *map(str, how), Path(__file__).with_name('together.py'), *map(str, args)],
        capture_output=True, text=True, env=os.environ|{'OMP_NUM_THREADS':'1'})
    assert bool(r.returncode)==fails, r.stderr[-4000:]
    return r

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    for n in (1,2): launch(n, 'losses', folder)
    return {(r,n):json.loads((folder/f'losses_{r}_of_{n}.json').read_text()) for r,n in ((0,1),(0,2),(1,2))}

@pytest.mark.parametrize('kind', ['lm','clas'])
def test_twice_16_rows_give_the_losses_of_32(trained, kind):
    one,two,other = (trained[o][kind] for o in ((0,1),(0,2),(1,2)))
    assert len(one['losses'])==len(two['losses'])>5
    assert max(abs(a-b) for a,b in zip(one['losses'], two['losses']))<1e-5, (one['losses'],two['losses'])
    assert two['losses']==other['losses'] and two['values']==other['values'] # one number for all
    assert abs(one['weights']-two['weights'])<1e-3
    # a language model validates with as many rows as it has, each of which begins with an empty head
    for a,b in zip(one['values'], two['values']): assert a==pytest.approx(b, abs=1e-2 if kind=='lm' else 1e-4)
    assert two['left'][0]==one['left'][0] and two['left'][2]==one['left'][2] # what it was before

@pytest.mark.parametrize('n,bs,world,drop_last', [(77,4,2,False), (77,4,3,False), (73,4,4,False), (77,4,2,True),
    (65,16,2,False), (64,16,2,False)])
def test_documents_are_shared_out_by_length(n, bs, world, drop_last):
    random.seed(n)
    items = [torch.arange(2, 2+random.randint(3, 40)) for _ in range(n)]
    ranks = [SortedDL([(o,) for o in items], bs=bs, drop_last=drop_last).for_rank(r, world) for r in range(world)]
    idxs = [o.get_idxs() for o in ranks]
    flat = sorted(sum(idxs, []))
    assert len(set(flat))==len(flat) and n-len(flat)<(bs*world if drop_last else world) # each once; at most a few left
    assert len({len(o) for o in ranks})==1 and all(len(list(o))==len(o) for o in ranks)
    lens = [[[len(items[i]) for i in o[k:k+bs]] for k in range(0, len(o), bs)] for o in idxs]
    whole = sorted(map(len, items), reverse=True)
    for k in range(len(lens[0])-1): # rows of a joint batch lie side by side in length
        joint = sorted((l for r in lens for l in r[k]), reverse=True)
        assert joint==whole[k*bs*world:(k+1)*bs*world]
        for r in lens: assert all(max(joint[i*world:(i+1)*world])>=l for i,l in enumerate(r[k]))

def end(folder):
    log = [json.loads(o) for o in (folder/'log.jsonl').read_text().splitlines()]
    log = [{k:v for k,v in o.items() if 'second' not in k} for o in log if o.get('event')!='resumed']
    return load_file(folder/'model'/'weights.safetensors'),log,[(folder/f'end_{r}.json').read_text() for r in (0,1)]

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    launch(2, 'pretrain', folder)
    return end(folder)

def killed(folder, whole, kills, seed):
    rng = random.Random(seed)
    for i in range(kills): launch(2, 'pretrain', folder, rng.randint(2, 5), fails=True)
    launch(2, 'pretrain', folder)
    weights,log,ends = end(folder)
    assert ends==whole[2] and log==whole[1], seed
    assert weights.keys()==whole[0].keys() and all(torch.equal(weights[k], whole[0][k]) for k in weights), seed

def test_killed_pretraining_ends_with_the_same_bits(whole, tmp_path):
    killed(tmp_path, whole, 2, random.SystemRandom().randrange(10**6))
    a,b = (json.loads(o) for o in whole[2])
    assert a[1]!=b[1] # each process draws its own random numbers

@pytest.mark.slow
def test_killed_ten_times(whole, tmp_path): killed(tmp_path, whole, 10, random.SystemRandom().randrange(10**6))
