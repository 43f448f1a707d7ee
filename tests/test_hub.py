"A model goes to a hub, and comes back into another process with the same probabilities; the hub is a stand-in"
import json, os, subprocess, sys, threading
import pytest
pytest.importorskip('huggingface_hub')
from hub_stand_in import Hub, complaint

texts = ['I loved every minute of it.', '', 'Never again! '*50]

@pytest.fixture(scope='module')
def model(tmp_path_factory):
    from ulmfit_nb.estimator import ULMFiTClassifier
    from ulmfit_nb.texts import sentences
    df = sentences().sample(120, random_state=0)
    clf = ULMFiTClassifier(False, ('fwd','bwd'), size='tiny', lm_epochs=0, epochs=(1,0,0,0)).fit(df.text, df.label)
    return clf,clf.save(tmp_path_factory.mktemp('hub')/'model')

@pytest.fixture
def hub():
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()

def python(code, hub, tmp_path, *args, **env):
    "A process whose hub is `hub`, and whose cache is below `tmp_path`"
    env = os.environ | dict(HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path/'cache'), HF_TOKEN='good', HF_HUB_OFFLINE='0',
        HF_HUB_DISABLE_XET='1', HF_HUB_DISABLE_TELEMETRY='1', OMP_NUM_THREADS='1') | env
    head = 'import json, sys, warnings\nwarnings.filterwarnings("ignore")\nfrom ulmfit_nb.hub import *\n'
    return subprocess.run([sys.executable, '-c', head+code, *map(str, args)], env=env, capture_output=True, text=True)

push = '''from ulmfit_nb.hub import from_pretrained
print(push_to_hub(from_pretrained(sys.argv[1]), 'me/sentences', **json.loads(sys.argv[2])))'''
pull = '''o = from_pretrained('me/sentences')
print(json.dumps([type(o).__name__, o.predict_proba(json.loads(sys.argv[1])).tolist()]))'''

def test_there_and_back(model, hub, tmp_path):
    "Pushed, pulled into an empty folder by another process, and by a third one that has no network any more"
    clf,folder = model
    card = json.dumps(dict(licence='mit', data='Sentences.'))
    r = python(push, hub, tmp_path, folder, card, HF_HOME=str(tmp_path/'a'))
    assert r.returncode==0, r.stderr[-3000:]
    assert '/me/sentences/commit/' in r.stdout
    files = hub.repos['me/sentences']
    assert {'README.md','estimator.json','classifier/weights.safetensors','classifier_bwd/model.json'} <= set(files)
    assert not [o for o in files if o.startswith('language_model')] and complaint(files['README.md'].decode()) is None
    assert any('validate-yaml' in o for o in hub.asked) and hub.blobs
    files['evil.pkl'] = files['code.py'] = b'print("gotcha")'
    want = ['ULMFiTClassifier',clf.predict_proba(texts).tolist()]
    r = python(pull, hub, tmp_path, json.dumps(texts), HF_TOKEN='')
    assert r.returncode==0 and json.loads(r.stdout)==want, r.stderr[-3000:]
    kept = [o.name for o in (tmp_path/'cache').rglob('*')]
    assert 'estimator.json' in kept and 'evil.pkl' not in kept and 'code.py' not in kept
    hub.shutdown()
    hub.server_close()
    r = python(pull, hub, tmp_path, json.dumps(texts), HF_HUB_OFFLINE='1')
    assert r.returncode==0 and json.loads(r.stdout)==want, r.stderr[-3000:]
    r = python(pull, hub, tmp_path, json.dumps(texts), HF_HOME=str(tmp_path/'empty'))
    assert r.stderr.splitlines()[-1].startswith('ConnectionError: ') and 'cannot be reached' in r.stderr

refusals = [(dict(licence='all mine'),'"license" must be one of'), (dict(token='bad'),'Invalid cred')]

@pytest.mark.parametrize('how,says', refusals)
def test_a_refusal_is_one_error(model, hub, tmp_path, how, says):
    "By the validator of cards, and by the door"
    r = python(push, hub, tmp_path, model[1], json.dumps(how))
    assert r.returncode and says in r.stderr[-800:], r.stderr[-3000:]
    assert not hub.repos.get('me/sentences')

def test_nothing_there(hub, tmp_path):
    r = python(pull, hub, tmp_path, '[]')
    assert r.stderr.splitlines()[-1].startswith('ValueError: there is no model me/sentences'), r.stderr[-3000:]

def test_a_changed_file_is_refused(model, hub, tmp_path):
    files = hub.repos['me/sentences'] = {o.relative_to(model[1]).as_posix():o.read_bytes() for o in model[1].rglob('*')
        if o.is_file()}
    key = 'classifier/weights.safetensors'
    files[key] = files[key][:-1]+bytes([files[key][-1]^1])
    r = python(pull, hub, tmp_path, '[]')
    assert 'its content has changed' in r.stderr.splitlines()[-1], r.stderr[-3000:]

def test_names_are_those_of_the_room():
    from ulmfit_nb import hub as room
    assert {'model_card','push_to_hub','from_pretrained'} <= set(room.__all__)
