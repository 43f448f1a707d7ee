"""What becomes of a pretraining run: shards for a host without a network, a model in pieces, a package that holds it, a
card with figures"""
import json, lzma, math, os, subprocess, sys
import numpy as np, pytest, torch
import torch.nn.functional as F
from conftest import root, script
from ulmfit_nb.files import load_weights, read_meta
from ulmfit_nb.language_model import load_language_model
from ulmfit_nb.numericalization import Corpus
from ulmfit_nb.texts import sentences

wiki_en,release_lm,alone = script('wiki_en'),script('release_lm'),script('alone')
tiny = ['--size', 'tiny', '--bs', '8', '--seq-len', '20', '--valid', '400', '--device', 'cpu']

@pytest.fixture(scope='module')
def road(tmp_path_factory):
    "Everything from texts to a packed model, at the smallest size"
    d = tmp_path_factory.mktemp('road')
    texts = d/'texts.jsonl'
    texts.write_text('\n'.join(json.dumps({'text':t}) for t in sentences().text[:600]), encoding='utf8')
    wiki_en.main(['prepare', str(texts), '--out', str(d/'here'), '--shard', '3000', '--n-workers', '0', '--vocab-sz',
        '500'])
    wiki_en.main(['unpack', str(d/'here'/'shards'), '--to', str(d/'there')])
    with pytest.raises(SystemExit) as e:
        wiki_en.main(['train', str(d/'there'), '--out', str(d/'run'), '--minutes', '9', *tiny])
    assert e.value.code==0
    wiki_en.main(['pack', str(d/'run'), '--out', str(d/'pieces'), '--piece', '30000'])
    wiki_en.main(['join', str(d/'pieces'), '--to', str(d/'models'/'toy-fwd')])
    return d

def test_shards_hold_the_corpus(road):
    a,b = Corpus.open(road/'here'/'corpus'),Corpus.open(road/'there'/'corpus')
    assert len(list((road/'here'/'shards').glob('0*.xz')))>2
    assert np.array_equal(a.ids, b.ids) and np.array_equal(a.offsets, b.offsets)
    assert (a.vocab,a.tokenizer_config,a.fingerprint)==(b.vocab,b.tokenizer_config,b.fingerprint)

def test_shards_come_in_several_transfers(road, tmp_path, capsys):
    parts,to = sorted((road/'here'/'shards').iterdir()),tmp_path/'there'
    send = tmp_path/'send'
    first = [o for o in parts if o.name in ('000.xz','shards.json')]
    for i,half in enumerate([first, [o for o in parts if o.name!='000.xz']]):
        send.mkdir()
        for o in half: (send/o.name).write_bytes(o.read_bytes())
        assert bool(wiki_en.unpack(send, to))==(i==0)
        for o in send.iterdir(): o.unlink()
        send.rmdir()
    assert 'missing: 001.xz' in capsys.readouterr().out
    assert np.array_equal(Corpus.open(to/'corpus').ids, Corpus.open(road/'here'/'corpus').ids)

def test_damaged_shard_is_refused(road, tmp_path):
    send = tmp_path/'send'
    send.mkdir()
    for o in (road/'here'/'shards').iterdir(): (send/o.name).write_bytes(o.read_bytes())
    b = bytearray((send/'001.xz').read_bytes())
    b[100] ^= 1
    (send/'001.xz').write_bytes(b)
    with pytest.raises(SystemExit, match='001.xz is damaged'): wiki_en.unpack(send, tmp_path/'there')
    assert not (tmp_path/'there'/'corpus').exists()

def test_training_stops_in_time(road, tmp_path):
    args = ['train', str(road/'there'), '--out', str(tmp_path/'run'), '--backwards', *tiny, '--epochs', '4000']
    with pytest.raises(SystemExit) as e: wiki_en.main([*args, '--minutes', '.25'])
    assert e.value.code==3 and not (tmp_path/'run'/'model').exists()

def test_pieces_are_the_model(road, tmp_path):
    pieces = sorted((road/'pieces').glob('weights.*'))
    assert len(pieces)>1 and all(o.stat().st_size<=30000 for o in pieces)
    a,b = (load_weights(o/'weights.safetensors', o/'model.json')[0]
        for o in (road/'run'/'model', road/'models'/'toy-fwd'))
    for k in a: assert (a[k]-b[k]).abs().max()<=a[k].abs().max()/127, k
    less = tmp_path/'less'
    less.mkdir()
    for o in (road/'pieces').iterdir():
        if o!=pieces[-1]: (less/o.name).write_bytes(o.read_bytes())
    with pytest.raises(ValueError, match='changed, cut off'): wiki_en.join(less, tmp_path/'m')
    assert not (tmp_path/'m').exists()

def test_package_of_models(road, tmp_path):
    "Installed elsewhere, its models are found by name by a new process"
    wheel = wiki_en.package(road/'models', tmp_path/'dist', dist='ulmfit-toy')
    site = tmp_path/'site'
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--disable-pip-version-check',
        '--target', str(site), str(wheel)]
    subprocess.run(pip, check=True)
    code = ("from ulmfit_nb.generation import *; from ulmfit_nb.language_model import *; "
        "from ulmfit_nb.pretrained import find_pretrained; "
        "m = load_language_model('toy-fwd'); print(find_pretrained('toy'), len(m.generate(['The food'], 5)))")
    path = os.pathsep.join([str(site), str(root)])
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH':path, 'ULMFIT_HOME':str(tmp_path)})
    assert out.stdout.split()==[str(site/'ulmfit_toy'/'toy-fwd'), '1'], out.stderr

def test_package_of_the_wrong_direction_is_refused(road, tmp_path):
    (tmp_path/'toy-bwd').mkdir()
    for o in (road/'models'/'toy-fwd').iterdir(): (tmp_path/'toy-bwd'/o.name).write_bytes(o.read_bytes())
    with pytest.raises(SystemExit, match='other direction'): wiki_en.package(tmp_path, tmp_path/'dist')

def test_wikitext_marks_are_undone(tmp_path):
    text = (' \n = Title = \n \n A 1 @.@ 5 @-@ inch <unk> , 2 @,@ 000 of them . \n = = Part = = \n End . \n \n'
        ' = Next = \n \n Text <unk> . \n')
    with lzma.open(tmp_path/'valid.tokens.xz', 'wt', encoding='utf8') as f: f.write(text)
    texts,n,unk = release_lm.wikitext(tmp_path/'valid.tokens.xz')
    assert len(texts)==2 and '= = Part = =' in texts[0]
    assert texts[0].split('\n')[2]=='A 1.5-inch xxunk , 2,000 of them .'
    assert unk==2 and n==len(text.split())+text.count('\n')-unk

def test_card(road, tmp_path):
    "Its figures are those of plain PyTorch on the stored weights"
    wt = tmp_path/'wt'
    wt.mkdir()
    for part in ('valid','test'):
        with lzma.open(wt/f'{part}.tokens.xz', 'wt', encoding='utf8') as f:
            f.write(' = The food = \n \n The food was good @-@ ish and <unk> cheap . \n')
    (tmp_path/'about.json').write_text('{"licence": "CC0"}')
    release_lm.main([str(road/'run'), 'toy-fwd', '--out', str(tmp_path), '--corpus', str(road/'there'/'corpus'),
        '--texts', str(road/'texts.jsonl'), '--valid', '400',
        '--wikitext', str(wt), '--about', str(tmp_path/'about.json'), '--prompts', 'The food'])
    card,lm = read_meta(tmp_path/'toy-fwd'/'model.json')['card'],load_language_model(tmp_path/'toy-fwd')
    assert card['licence']=='CC0' and card['samples'][0]['text'].startswith('The food ')
    text = '= The food =\n\nThe food was good-ish and xxunk cheap .\n'
    toks = list(lm.dls.train_ds.tokenizer(text))
    ids = lm.dls.train_ds.numericalize(toks)
    lm.model.reset()
    with torch.no_grad(): logp = F.log_softmax(lm.model(torch.as_tensor(ids)[None])[0][0].float(), -1)
    want = [-float(logp[i,ids[i+1]]) for i in range(len(ids)-1) if toks[i+1]!='xxunk']
    got = card['results']['as stored']['WikiText-103 valid']
    assert got['tokens']==len(want)==len(toks)-2 and abs(got['loss']-sum(want)/len(want))<1e-3
    assert got['tokens_of_wikitext']==16 and got['unk_left_out']==1 and math.isclose(
        math.log(got['perplexity_per_token_of_wikitext']), sum(want)/16, abs_tol=1e-3)
    held = card['results']['before rounding']['articles kept aside']
    # the stream that pretrain validates on cuts off its end
    assert 0<held['texts']<600 and abs(held['loss']-card['pretraining']['valid_loss'])<.15

def imdb_like(d):
    "A folder as `experiments/imdb.py` wants it, of bundled sentences"
    d.mkdir()
    df = sentences().sample(frac=1, random_state=0)
    for i,(name,labelled) in enumerate((('train',True), ('test',True), ('unsup',False))):
        part = df[i*400:(i+1)*400]
        rows = [dict(id=k, label=r.label[:3] if labelled else 'unsup', rating=0, movie=f'{name}{k//4}', text=r.text)
            for k,r in enumerate(part.itertuples())]
        with lzma.open(d/f'{name}.jsonl.xz', 'wt', encoding='utf8') as f: f.write('\n'.join(map(json.dumps, rows)))
    return d

def test_all_of_imdb_at_small_size(tmp_path):
    """From reviews to the look at the test half, both directions; what is done isn't done again; nothing is mixed with
    other settings"""
    run = [sys.executable, '-W', 'ignore', str(root/'experiments'/'imdb.py'), str(imdb_like(tmp_path/'imdb')),
        '--out', str(tmp_path/'out'), '--pretrained', 'none', '--small', '--lm-epochs', '1']
    env = os.environ | dict(OMP_NUM_THREADS='1')
    def go(*more): return subprocess.run([*run, *more], env=env, capture_output=True, text=True, timeout=1000)
    first = go()
    assert not first.returncode, first.stderr[-3000:]
    def rows(name='log'): return [json.loads(o) for o in (tmp_path/'out'/f'{name}.jsonl').read_text().splitlines()]
    assert [o['job'] for o in rows()]==['data','language model','tune','tune','chosen']
    second = go('--directions', 'fwd', 'bwd', '--test')
    assert not second.returncode, second.stderr[-3000:]
    done = rows()
    assert [o['job'] for o in done[5:]]==['language model','tune','final','final','test']
    res = done[-1]['results']
    assert set(res)=={'fwd 1','bwd 1','both 1','all','errors'} and done[-1]['n']==40
    with np.load(tmp_path/'out'/'test_probs.npz') as f:
        both = (f['fwd_1']+f['bwd_1'])/2
        assert abs(res['both 1']['accuracy']-(both.argmax(1)==f['y']).mean())<1e-6
        wrong = [(f[f'{d}_1'].argmax(1)!=f['y']) for d in ('fwd','bwd')]
    assert res['errors']==dict(only_first=(wrong[0]&~wrong[1]).sum(), only_second=(wrong[1]&~wrong[0]).sum(),
        in_both=(wrong[0]&wrong[1]).sum())
    worst = done[-1]['worst']
    assert all(o['p']>=.5 for o in worst) and len(worst)==min(20, round(40*(1-res['both 1']['accuracy'])))
    epochs = rows('epochs')
    assert {o['job'] for o in epochs}=={'language model','classifier'}
    assert all(o['tokens_per_second']>0 and o['valid_loss']>0 for o in epochs)
    assert [o['epoch'] for o in epochs if o.get('name')=='tuned_fwd_1_0']==[0,0,1]
    assert not go('--directions', 'fwd', 'bwd', '--test').returncode and rows()==done and rows('epochs')==epochs
    with pytest.raises(SystemExit, match='judged on other films: imdb.py --cpu'): # its classifiers learned from them
        script('imdb_average').main([str(tmp_path/'imdb'), *[str(tmp_path/'out')]*2, '--out', str(tmp_path/'mean')])
    other = go('--lm-lr', '0.5')
    assert other.returncode and 'is of other settings' in other.stderr and rows()==done

def test_mean_of_weights():
    "By shares; of networks with other words, whose weights have other meanings, there is none"
    from ulmfit_nb.all import AWD_LSTM, TextDataLoaders, sentences, text_classifier_learner
    mean_weights = script('imdb_average').mean_weights
    def learner(n, seed):
        dls = TextDataLoaders.from_df(sentences()[:n], text_col='text', label_col='label', seed=1)
        torch.manual_seed(seed)
        return text_classifier_learner(dls, AWD_LSTM, config=dict(emb_sz=8, n_hid=12), pretrained=False)
    a,b = learner(300, 1),learner(300, 2)
    def weights(o): return torch.cat([v.flatten().double() for v in o.model.state_dict().values()])
    want = .25*weights(b)+.75*weights(a)
    assert not torch.equal(weights(a), weights(b)) and torch.allclose(weights(mean_weights(a, b, .25)), want, atol=1e-6)
    with pytest.raises(SystemExit, match='other words'): mean_weights(a, learner(200, 1))

def test_beside_fastai_at_small_size(tmp_path):
    "Both sides start from the same weights: after an epoch with the same settings they are about as good"
    run = [sys.executable, '-W', 'ignore', str(root/'experiments'/'side_by_side.py'), str(imdb_like(tmp_path/'imdb')),
        '--out', str(tmp_path/'log.jsonl'), '--small']
    r = subprocess.run(run, env=os.environ | dict(OMP_NUM_THREADS='1'), capture_output=True, text=True, timeout=600)
    assert not r.returncode, r.stderr[-3000:]
    rows = [json.loads(o) for o in (tmp_path/'log.jsonl').read_text().splitlines()]
    loss = {(o['job'],o['side']):o['valid_loss'][-1] for o in rows if o['job']!='profile'}
    theirs,mine = (loss['language model',o] for o in ('fastai, ids in memory','ours, same settings'))
    assert len(loss)==7 and abs(theirs-mine)<.05
    assert all(o['tokens_per_second']>0 for o in rows if o['job']!='profile') and len(rows[-1]['milliseconds'])==10

def test_sampled_softmax_compares_both_losses(road, tmp_path, monkeypatch):
    "Two seeds, each with all words and with some: a line per validation, and nothing trained twice"
    sampled = script('sampled_softmax')
    args = [str(road/'there'/'corpus'), '--out', str(tmp_path/'runs'), '--log', str(tmp_path/'log.jsonl'), '--size',
        'tiny', '--bs', '8']
    args += ['--tokens', '4000', '--seeds', '1', '2', '--num-sampled', '100']
    sampled.main(args)
    log = [json.loads(o) for o in (tmp_path/'log.jsonl').read_text().splitlines()]
    ends = {(o['seed'],o['num_sampled']):o for o in log}
    assert set(ends)=={(s,n) for s in (1,2) for n in (100,None)} and len(log)>4
    assert all(o['core_minutes']>0 and o['valid_loss']<math.log(600) for o in ends.values())
    assert len({o['valid_loss'] for o in ends.values()})==4
    monkeypatch.setattr(sampled, 'pretrain', None)
    sampled.main(args)

def test_full_size_unless_told_otherwise():
    "A time limit alone drops nothing, and one pass doesn't end before the time"
    assert wiki_en.unsaid([])==['--size','full','--bs','256']
    assert wiki_en.unsaid(['--max-time','25'])==['--max-time','25','--size','full','--bs','256','--epochs','1000']
    assert wiki_en.unsaid(['--max-time=25','--bs=64','--epochs','2'])==['--max-time=25','--bs=64','--epochs','2',
        '--size','full']

first_gpu_run = script('first_gpu_run')

def first_run(tmp_path, *more):
    with pytest.raises(SystemExit) as e: first_gpu_run.main(['--out', str(tmp_path), *more])
    return e.value.code,[json.loads(o) for o in (tmp_path/'log.jsonl').read_text().splitlines()]

def test_first_gpu_run_on_a_cpu(tmp_path, capsys):
    "All but the two scripts that have tests of their own above; what says nothing here is skipped and says so"
    only = [o for o in first_gpu_run.steps if o not in ('imdb_small','beside_fastai')]
    code,rows = first_run(tmp_path, '--only', *only)
    assert code==0 and [o['step'] for o in rows]==only and {o['verdict'] for o in rows}=={'ok','skipped'}
    row = {o['step']:o for o in rows}
    assert 'CPU' in row['lstm_dtype']['why'] and row['versions']['torch']==torch.__version__
    assert row['gradients']['relative_difference']['fp32']<1e-6 and row['pretrain']['interrupted']
    assert row['full']['bf16']['gradient_norms'] and 'no card' in row['full']['note']

def test_first_gpu_run_goes_on_after_a_failure(tmp_path, monkeypatch):
    "A step that fails is named with its error, the next ones still run, and the exit code tells"
    def broken(self): raise RuntimeError('cuDNN error')
    monkeypatch.setattr(first_gpu_run.Run, 'gradients', broken)
    code,rows = first_run(tmp_path, '--only', 'gradients', 'versions')
    assert code==1 and [o['verdict'] for o in rows]==['ok','failed'] and rows[1]['error']=='RuntimeError: cuDNN error'

@pytest.mark.slow
def test_first_gpu_run_whole(tmp_path): assert first_run(tmp_path)[0]==0

def test_what_was_read_before_counts():
    first = dict(tokens=30, seconds=7200, cpu_seconds=3600)
    # the one between, of 0.1.0, has no cpu_seconds
    second = dict(tokens=12, seconds=1800, start=dict(tokens=5, seconds=360, start=first))
    assert release_lm.whole_reading(second)==dict(tokens_read=47, core_hours=1.6)
    second['valid_loss'] = second['start']['valid_loss'] = 3.5
    first['valid_loss'] = 4.25
    assert [(o['tokens_read'],o['loss']) for o in release_lm.curve(second)]==[(30,4.25),(35,3.5),(47,3.5)]

def test_every_notebook_installs_the_package_where_it_is_missing(capsys):
    assert alone.main(['--check'])==0, capsys.readouterr().out

def test_a_notebook_gets_its_cell_once():
    nb = dict(cells=[dict(cell_type='markdown', id='a', metadata={}, source=['# A'])])
    once = alone.with_cell(nb, alone.cell_for(root/'serving.ipynb', 90))
    said = ''.join(once['cells'][1]['source'])
    assert '3 minutes' in said and '"{where}[serve]"' in said
    assert alone.with_cell(once, said)==once and len(once['cells'])==2
    assert 'Takes' not in alone.cell_for(root/'x.ipynb', None)
