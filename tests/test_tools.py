"What becomes of a pretraining run: shards for a host without a network, a model in pieces, a package that holds it, a card with figures"
import importlib.util, json, lzma, math, os, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
import torch.nn.functional as F
from ulmfit_nb.language_model import find_pretrained, load_language_model, load_weights, read_meta
from ulmfit_nb.numericalization import Corpus
from ulmfit_nb.texts import sentences

def tool(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent/'tools'/f'{name}.py')
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m
wiki_en,release_lm = tool('wiki_en'),tool('release_lm')
tiny = ['--size', 'tiny', '--bs', '8', '--seq-len', '20', '--valid', '400', '--device', 'cpu']

@pytest.fixture(scope='module')
def road(tmp_path_factory):
    "Everything from texts to a packed model, at the smallest size"
    d = tmp_path_factory.mktemp('road')
    texts = d/'texts.jsonl'
    texts.write_text('\n'.join(json.dumps({'text':t}) for t in sentences().text[:600]), encoding='utf8')
    wiki_en.main(['prepare', str(texts), '--out', str(d/'here'), '--shard', '3000', '--n-workers', '0', '--vocab-sz', '500'])
    wiki_en.main(['unpack', str(d/'here'/'shards'), '--to', str(d/'there')])
    with pytest.raises(SystemExit) as e: wiki_en.main(['train', str(d/'there'), '--out', str(d/'run'), '--minutes', '9', *tiny])
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
    for i,half in enumerate([[o for o in parts if o.name in ('000.xz','shards.json')], [o for o in parts if o.name!='000.xz']]):
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
    args = ['train', str(road/'there'), '--out', str(tmp_path/'run'), '--backwards', *tiny, '--epochs', '40']
    with pytest.raises(SystemExit) as e: wiki_en.main([*args, '--minutes', '.25'])
    assert e.value.code==3 and not (tmp_path/'run'/'model').exists()

def test_pieces_are_the_model(road, tmp_path):
    pieces = sorted((road/'pieces').glob('weights.*'))
    assert len(pieces)>1 and all(o.stat().st_size<=30000 for o in pieces)
    a,b = load_weights(road/'run'/'model'/'weights.safetensors', road/'run'/'model'/'model.json')[0],load_weights(road/'models'/'toy-fwd'/'weights.safetensors', road/'models'/'toy-fwd'/'model.json')[0]
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
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--disable-pip-version-check', '--target', str(site), str(wheel)]
    subprocess.run(pip, check=True)
    code = "from ulmfit_nb.language_model import *; m = load_language_model('toy-fwd'); print(find_pretrained('toy'), len(m.generate(['The food'], 5)))"
    code = code.replace('; m =', '; from ulmfit_nb.generation import *; m =')
    path = os.pathsep.join([str(site), str(Path(__file__).parent.parent)])
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH':path, 'ULMFIT_HOME':str(tmp_path)})
    assert out.stdout.split()==[str(site/'ulmfit_toy'/'toy-fwd'), '1'], out.stderr

def test_package_of_the_wrong_direction_is_refused(road, tmp_path):
    (tmp_path/'toy-bwd').mkdir()
    for o in (road/'models'/'toy-fwd').iterdir(): (tmp_path/'toy-bwd'/o.name).write_bytes(o.read_bytes())
    with pytest.raises(SystemExit, match='other direction'): wiki_en.package(tmp_path, tmp_path/'dist')

def test_wikitext_marks_are_undone(tmp_path):
    text = ' \n = Title = \n \n A 1 @.@ 5 @-@ inch <unk> , 2 @,@ 000 of them . \n = = Part = = \n End . \n \n = Next = \n \n Text <unk> . \n'
    with lzma.open(tmp_path/'valid.tokens.xz', 'wt', encoding='utf8') as f: f.write(text)
    texts,n,unk = release_lm.wikitext(tmp_path/'valid.tokens.xz')
    assert len(texts)==2 and texts[0].split('\n')[2]=='A 1.5-inch xxunk , 2,000 of them .' and '= = Part = =' in texts[0]
    assert unk==2 and n==len(text.split())+text.count('\n')-unk

def test_card(road, tmp_path):
    "Its figures are those of plain PyTorch on the stored weights"
    wt = tmp_path/'wt'
    wt.mkdir()
    for part in ('valid','test'):
        with lzma.open(wt/f'{part}.tokens.xz', 'wt', encoding='utf8') as f: f.write(' = The food = \n \n The food was good @-@ ish and <unk> cheap . \n')
    (tmp_path/'about.json').write_text('{"licence": "CC0"}')
    release_lm.main([str(road/'run'), 'toy-fwd', '--out', str(tmp_path), '--corpus', str(road/'there'/'corpus'), '--texts', str(road/'texts.jsonl'), '--valid', '400',
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
    assert got['tokens_of_wikitext']==16 and got['unk_left_out']==1 and math.isclose(math.log(got['perplexity_per_token_of_wikitext']), sum(want)/16, abs_tol=1e-3)
    held = card['results']['before rounding']['articles kept aside']
    assert 0<held['texts']<600 and abs(held['loss']-card['pretraining']['valid_loss'])<.15 # the stream that pretrain validates on cuts off its end
