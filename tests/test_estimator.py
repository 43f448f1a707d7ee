"ULMFiTClassifier as scikit-learn, other processes, and careless people use it"
import io, json, os, pickle, re, shutil, signal, subprocess, sys, time, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks
from sklearn.utils.validation import check_is_fitted, validate_data
from ulmfit_nb.inference import has_bf16
from ulmfit_nb.ensemble import Ensemble
from ulmfit_nb.estimator import *
from ulmfit_nb.texts import sentences

def quick(**kw):
    return ULMFiTClassifier(**{**dict(pretrained=False, size='tiny', lm_epochs=1, epochs=(1,0,0,1), seq_len=24), **kw})
env = {**os.environ, 'OMP_NUM_THREADS':'1'}
some = ['Good.', '', 'The food was cold.', 'great '*150]

@pytest.fixture(scope='module')
def df(): return sentences().sample(120, random_state=1).reset_index(drop=True)

@pytest.fixture(scope='module')
def clf(df): return quick(directions=('fwd','bwd')).fit(df.text, df.label, unlabelled=['More to read.', 'And more.'])

@pytest.fixture(scope='module')
def saved(clf, tmp_path_factory): return clf.save(tmp_path_factory.mktemp('est')/'clf')

def test_conventions(clf, df):
    assert is_classifier(clf) and clf.fit.__doc__ and list(clf.classes_)==['negative','positive']
    p = clf.predict_proba(some)
    assert p.shape==(4,2) and np.allclose(p.sum(1), 1, atol=1e-12) and p.min()>=0
    assert list(clf.predict(some))==list(clf.classes_[p.argmax(1)])
    assert clf.score(df.text, df.label)==(clf.predict(df.text)==df.label).mean()
    assert not hasattr(clone(clf), 'classes_') and clone(clf).get_params()==clf.get_params()
    assert set(clf.history_.direction)=={'fwd','bwd'} and set(clf.history_.stage)=={'language model','classifier'}

@pytest.mark.parametrize('kind', ['list','array','series','table','object'])
def test_any_container(clf, kind):
    X = dict(list=some, array=np.array(some), series=pd.Series(some, index=[7,7,1,0]), table=pd.DataFrame({'t':some}),
        object=np.array(some, dtype=object)[:,None])[kind]
    assert np.array_equal(clf.predict_proba(X), clf.predict_proba(some))

@pytest.mark.parametrize('labels', [[3,5], [True,False], [np.int64(0),np.int64(1)], ['a','ü'], [1.,2.]], ids=str)
def test_any_labels(df, labels, tmp_path):
    y = np.where(df.label=='positive', *labels)
    clf = quick(lm_epochs=0, epochs=(1,0,0,0)).fit(df.text, y)
    assert clf.classes_.tolist()==sorted(set(y.tolist())) and set(clf.predict(some).tolist())<=set(y.tolist())
    again = ULMFiTClassifier.load(clf.save(tmp_path/'m'))
    assert again.classes_.dtype==clf.classes_.dtype and np.array_equal(again.predict(some), clf.predict(some))

@pytest.mark.parametrize('dtype', ['Int64','boolean','string','category','str','int8'])
def test_labels_of_pandas(df, dtype):
    "Labels come back as they went in, and a missing one is named"
    y = pd.Series(np.where(df.label=='positive', 1, 0), index=range(500, 620))
    y = y.map({0:'a', 1:'b'}).astype(dtype) if dtype in ('string','category','str') else y.astype(dtype)
    clf = quick(lm_epochs=0, epochs=(1,0,0,0)).fit(df.text, y)
    assert clf.classes_.tolist()==sorted(set(y.tolist())) and clf.classes_.dtype.kind==dict(Int64='i', boolean='b',
        int8='i').get(dtype, 'U')
    if dtype=='int8': return
    y = y.copy()
    y.iloc[3] = None
    with pytest.raises(ValueError, match='no label at position 3'): clf.fit(df.text, y)

def test_threads(clf, df):
    "As in a web server: what one thread asks doesn't change what another is told"
    parts = [df.text[i:i+5].tolist() for i in range(0, 120, 5)]
    want,old = [clf.predict_proba(o) for o in parts],sys.getswitchinterval()
    again = pickle.loads(pickle.dumps(clf)) # nothing is arranged or remembered yet
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as ex: got = list(ex.map(again.predict_proba, parts*3))
    finally: sys.setswitchinterval(old)
    for a,b in zip(got, want*3): assert np.abs(a-b).max()<1e-6

def test_same_seed_same_model(df):
    a,b,c = (quick(random_state=s).fit(df.text, df.label).predict_proba(some) for s in (1,1,2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)

def test_fit_forgets(df):
    clf = quick().fit(df.text, df.label)
    p = clf.predict_proba(some)
    clf.fit(df.text, df.source)
    assert clf.predict_proba(some).shape==(4,3)
    assert np.array_equal(clf.fit(df.text, df.label).predict_proba(some), p)

def test_validation_part_is_not_trained_on(df):
    "Changing only the held-out labels changes the temperature, and no weight"
    held = df.text[100:],df.label[100:]
    wrong = held[0],held[1].map({'positive':'negative','negative':'positive'})
    a,b = (quick().fit(df.text[:100], df.label[:100], valid=v) for v in (held,wrong))
    assert all(x.equal(y) for x,y in zip(a.ensemble_.learners[0].model.parameters(),
        b.ensemble_.learners[0].model.parameters()))
    assert a.n_valid_==20 and abs(a.valid_accuracy_+b.valid_accuracy_-1)<1e-6
    plain = quick(validation_fraction=0).fit(df.text[:100], df.label[:100])
    assert plain.n_valid_==0 and plain.ensemble_.temperature==1 and plain.valid_accuracy_ is None

# scikit-learn's company

def test_cross_validation_grid_and_pipeline(df):
    cv = cross_val_score(quick(), df.text, df.label, cv=2)
    assert cv.shape==(2,) and np.isfinite(cv).all()
    search = GridSearchCV(quick(), {'drop_mult':[.1,.5]}, cv=2).fit(df.text, df.label)
    assert search.best_params_['drop_mult'] in (.1,.5) and search.predict(some).shape==(4,)
    pipe = Pipeline([('lower', FunctionTransformer(lambda X: [o.lower() for o in X])), ('clf', quick())])
    pipe.fit(df.text, df.label, clf__unlabelled=['more'])
    assert np.array_equal(pipe.predict_proba(['GOOD.']), pipe.predict_proba(['good.']))
    p = cross_val_predict(quick(lm_epochs=0), df.text, df.source, cv=2, method='predict_proba')
    assert p.shape==(120,3)

def test_pickle(clf):
    again = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(again.predict_proba(some), clf.predict_proba(some)) and again.get_params()==clf.get_params()
    assert again.language_model('bwd').dls.backwards
    assert not hasattr(pickle.loads(pickle.dumps(quick())), 'classes_')

# scikit-learn's own checks. `check_estimator` runs none of them for an estimator of texts but the first, since all
# build tables of numbers. So they are run on
# a subclass that writes each row of numbers as a text, and leaves everything else as it is.

def as_texts(X): return [' '.join(f'f{j}v{round(float(v)*2)}' for j,v in enumerate(r)) for r in X]

class OfNumbers(ULMFiTClassifier):
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string,tags.input_tags.two_d_array,tags.input_tags.one_d_array = False,True,False
        tags.classifier_tags.poor_score = True
        return tags
    def fit(self, X, y, unlabelled=None, valid=None):
        if y is None: raise ValueError('requires y to be passed, but the target y is None')
        return super().fit(as_texts(validate_data(self, X)), y)
    def predict_proba(self, X, bs=64):
        check_is_fitted(self)
        return super().predict_proba(as_texts(validate_data(self, X, reset=False)), bs)
    def predict(self, X, bs=64):
        p = self.predict_proba(X, bs)
        return self.classes_[p.argmax(1)]
    def score(self, X, y, sample_weight=None): return np.average(self.predict(X)==np.asarray(y), weights=sample_weight)

@pytest.mark.slow
def test_sklearns_checks():
    est = OfNumbers(pretrained=False, size='tiny', lm_epochs=0, epochs=(1,0,0,0), validation_fraction=0)
    res = checks.check_estimator(est, on_skip=None, on_fail=None)
    bad = {o['check_name']:repr(o['exception']) for o in res if o['status']=='failed'}
    assert not bad
    assert sum(o['status']=='passed' for o in res)>35

def test_sklearns_checks_of_the_class_itself():
    "Those that need no data run on the estimator of texts as it is"
    est = ULMFiTClassifier()
    for o in ('check_estimator_cloneable','check_estimator_tags_renamed','check_valid_tag_types','check_estimator_repr',
        'check_no_attributes_set_in_init','check_parameters_default_constructible',
        'check_get_params_invariance','check_set_params','check_do_not_raise_errors_in_init_or_set_params',
        'check_mixin_order'):
        getattr(checks, o)('ULMFiTClassifier', est)

# Saved here, loaded there

elsewhere = '''
import json,sys
from ulmfit_nb.estimator import ULMFiTClassifier
clf = ULMFiTClassifier.load(sys.argv[1])
probs = clf.predict_proba(json.loads(sys.argv[2])).tolist()
print(json.dumps([probs, clf.get_params()['directions'], len(clf.history_)]))
'''

def test_loaded_in_another_process(clf, saved):
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', elsewhere, str(saved), json.dumps(some)],
        capture_output=True, text=True, env=env)
    assert r.returncode==0, r.stderr
    p,directions,n = json.loads(r.stdout.splitlines()[-1])
    assert np.abs(np.array(p)-clf.predict_proba(some)).max()<1e-9 and directions==['fwd','bwd'] and n==len(clf.history_)

def test_nothing_that_runs_code_and_nothing_left_over(saved):
    assert {o.suffix for o in saved.rglob('*') if o.is_file()}=={'.json','.safetensors'}
    assert [o.name for o in saved.parent.iterdir()]==['clf']

def test_moved_and_saved_again(clf, saved, tmp_path):
    shutil.copytree(saved, tmp_path/'moved')
    again = ULMFiTClassifier.load(tmp_path/'moved')
    small = again.save(tmp_path/'small', language_models=False)
    assert not (small/'language_model').exists()
    with pytest.raises(ValueError, match='without its language model'): ULMFiTClassifier.load(small).language_model()
    assert np.array_equal(ULMFiTClassifier.load(small).predict_proba(some), clf.predict_proba(some))
    assert ULMFiTClassifier.load(again.save(tmp_path/'whole')).language_model('bwd').dls.backwards

def every_file(saved): return [o.relative_to(saved).as_posix() for o in sorted(saved.rglob('*')) if o.is_file()]

@pytest.mark.parametrize('harm', ['gone','cut','changed'])
def test_every_file_is_watched(saved, tmp_path, harm):
    for i,name in enumerate(every_file(saved)):
        copy = tmp_path/f'{i}'
        shutil.copytree(saved, copy)
        f = copy/name
        b = f.read_bytes()
        if harm=='gone': f.unlink()
        elif harm=='cut': f.write_bytes(b[:len(b)//2])
        else: f.write_bytes(b[:-20]+bytes([b[-20]^1])+b[-19:])
        with pytest.raises((ValueError,FileNotFoundError), match=Path(name).name.replace('.', r'\.')):
            ULMFiTClassifier.load(copy)

def test_newer_format_and_other_kinds(saved, tmp_path):
    shutil.copytree(saved, tmp_path/'new')
    f = tmp_path/'new'/'estimator.json'
    f.write_text(json.dumps({**json.loads(f.read_text()), 'format_version':99}))
    with pytest.raises(ValueError, match='format version 99.*upgrade'): ULMFiTClassifier.load(tmp_path/'new')
    with pytest.raises(FileNotFoundError, match='no such folder'): ULMFiTClassifier.load(tmp_path/'nowhere')

def test_save_replaces_only_its_own(clf, saved, tmp_path):
    (tmp_path/'thesis.txt').write_text('mine')
    with pytest.raises(ValueError, match='holds something else'): clf.save(tmp_path)
    assert (tmp_path/'thesis.txt').exists()
    (tmp_path/'empty').mkdir()
    assert ULMFiTClassifier.load(clf.save(tmp_path/'empty'))

def test_moved_away(saved, tmp_path, monkeypatch):
    "A loaded classifier lives without its folder; only the language model is gone with it"
    shutil.copytree(saved, tmp_path/'m')
    monkeypatch.chdir(tmp_path)
    clf,clf2 = ULMFiTClassifier.load('m'),ULMFiTClassifier.load('m')
    p = clf.predict_proba(some)
    monkeypatch.chdir('/')
    assert np.array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(some), p)
    shutil.rmtree(tmp_path/'m')
    with pytest.warns(UserWarning, match='is gone'): again = pickle.loads(pickle.dumps(clf2))
    with pytest.warns(UserWarning, match='is gone'): clf2.save(tmp_path/'n')
    for o in (again, ULMFiTClassifier.load(tmp_path/'n')): assert np.array_equal(o.predict_proba(some), p)
    with pytest.raises(FileNotFoundError, match='is gone'): clf2.language_model()

def test_settings_come_back(df, tmp_path):
    kw = dict(lm_epochs=0, lrs=(slice(1e-3,1e-2),)*4, class_weight={'negative':2.},
        random_state=np.random.RandomState(1))
    clf = quick(**kw).fit(df.text, df.label)
    again = ULMFiTClassifier.load(clf.save(tmp_path/'m'))
    assert again.lrs==kw['lrs'] and again.class_weight==kw['class_weight'] and again.random_state is None
    assert again.fit(df.text, df.label).predict_proba(some).shape==(4,2)

def test_no_epochs_at_all(df, tmp_path):
    clf = quick(lm_epochs=0, epochs=(0,0,0,0)).fit(df.text, df.label)
    assert len(clf.history_)==0 and list(ULMFiTClassifier.load(clf.save(tmp_path/'m')).history_.columns)==list(
        clf.history_.columns)

# Careless people

bad_fits = {
    'wrong length': (lambda t,y: (t, y[:-1]), '120 texts, but 119 labels'),
    'NaN label': (lambda t,y: (t, [np.nan]+list(y[1:])), 'no label at position 0'),
    'None label': (lambda t,y: (t, list(y[:-1])+[None]), 'no label at position 119'),
    'one class': (lambda t,y: (t, ['a']*120), "one class only, 'a'"),
    'missing text': (lambda t,y: ([None]+list(t[1:]), y), 'X has no text at position 0'),
    'NaN text': (lambda t,y: (list(t[:-1])+[float('nan')], y), 'no text at position 119'),
    'number': (lambda t,y: ([5]+list(t[1:]), y), 'holds 5'), 'one text': (lambda t,y: (t[0], y[:1]), 'X is one text'),
    'empty': (lambda t,y: ([], []), 'X is empty'),
    'two columns': (lambda t,y: (pd.DataFrame({'a':t,'b':t}), y), "give the column of texts: X\\['a'\\]"),
    'fractions': (lambda t,y: (t, np.linspace(0, 1, 120)), 'no classes'),
    'mixed': (lambda t,y: (t, ['a',1]*60), 'mixes labels'), 'no labels': (lambda t,y: (t, None), 'y is missing'),
}
@pytest.mark.parametrize('name', bad_fits)
def test_bad_fit(df, name):
    f,says = bad_fits[name]
    with pytest.raises((ValueError,TypeError), match=says): quick().fit(*f(df.text, df.label))

@pytest.mark.parametrize('kw,says', [(dict(directions='bwd'),'directions'), (dict(directions=()),'directions'),
    (dict(size='big'),'size'), (dict(tokenizer='bytes'),'tokenizer'),
    (dict(pretrained='no-such'),'no-such'), (dict(class_weight={'lukewarm':2}),'lukewarm'),
    (dict(class_weight='balance'),"'balanced'"), (dict(monitor='f1'),"'accuracy'"),
    (dict(epochs=(1,)),'four values'), (dict(lrs=1e-2),'four values'), (dict(div=0),'above 0'),
    (dict(label_smoothing=2),'label_smoothing is 2'), (dict(lm_epochs=-1),'lm_epochs is -1'),
    (dict(bs=-3),'bs is -3'), (dict(bs=1),'bs is 1; it can be a whole number, 2 or more'),
    (dict(max_vocab=0),'max_vocab is 0; it can be a whole number, 10 or more'), (dict(seq_len=1500),'up to 1440'),
    (dict(validation_fraction=-.1),'held out'), (dict(validation_fraction=1.),'held out'),
    (dict(directions=('fwd','bwd'), pretrained='saved'),'reads forwards, but directions')], ids=str)
def test_bad_settings(df, kw, says, saved, monkeypatch):
    "They are noticed before the language model is trained"
    monkeypatch.setattr(ULMFiTClassifier, '_fit_lm', lambda *args: pytest.fail('it trains'))
    if kw.get('pretrained')=='saved': kw = {**kw, 'pretrained':str(saved/'language_model')}
    with pytest.raises((ValueError,FileNotFoundError), match=says): quick(**kw).fit(df.text, df.label)

@pytest.mark.parametrize('valid', [-.1, 1., True, 5, pd.DataFrame({'text':['a'], 'label':['b']})], ids=repr)
def test_bad_valid(df, valid):
    with pytest.raises(ValueError, match='held out|should be a pair'): quick().fit(df.text, df.label, valid=valid)

def test_nothing_held_out_for_monitor(df):
    with pytest.warns(UserWarning, match='no text is held out'):
        quick(lm_epochs=0, monitor='accuracy', validation_fraction=0).fit(df.text, df.label)

def test_other_bad_input(df):
    with pytest.raises(ValueError, match='Unknown label type'): quick().fit(df.text, np.array([b'a',b'b']*60))
    with pytest.raises(ValueError, match="'b' is in the validation part only"):
        quick().fit(df.text, df.label, valid=(['x'],['b']))
    with pytest.raises(ValueError, match='unlabelled has no text at position 1'):
        quick().fit(df.text, df.label, unlabelled=['a',None])

def test_bad_questions(clf):
    for f in (clf.predict, clf.predict_proba):
        with pytest.raises(TypeError, match='one text'): f('Good.')
        with pytest.raises(ValueError, match='no text at position 1'): f(['a',None])
    with pytest.raises(NotFittedError): quick().predict(['a'])
    with pytest.raises(ValueError, match='2 texts, but 1 labels'): clf.score(['a','b'], ['negative'])
    assert clf.score(['a','b'], ['lukewarm','lukewarm'])==0 # documented: an unseen label counts as an error
    assert clf.predict([]).shape==(0,) and clf.predict_proba([]).shape==(0,2)

def test_a_class_with_one_example(df):
    y = df.label.mask(df.index==3, 'odd')
    with pytest.warns(UserWarning, match="class 'odd' has a single text"): clf = quick().fit(df.text, y)
    assert clf.classes_.tolist()==['negative','odd','positive'] and clf.predict_proba(some).shape==(4,3)

def test_next_to_nothing():
    "Two texts, empty texts, more batch than text"
    clf = quick().fit(['good','bad'], [1,0])
    assert clf.predict_proba(['good','']).shape==(2,2)
    assert quick().fit(['','',''], [1,0,1]).predict(['']).shape==(1,)

@pytest.mark.parametrize('kw', [dict(class_weight='balanced'), dict(balanced_sampling=True), dict(label_smoothing=.1),
    dict(monitor='accuracy', patience=1), dict(tokenizer='subword'), dict(tokenizer='char'),
    dict(lm_epochs=0), dict(calibrate=False), dict(bs=7), dict(directions=('bwd',)), dict(lrs=(1e-2,)*4, div=1.),
    dict(bf16='auto')], ids=str)
def test_every_setting_is_saved(df, kw, tmp_path):
    clf = quick(**kw).fit(df.text[:80], df.source[:80])
    again = ULMFiTClassifier.load(clf.save(tmp_path/'m'))
    assert again.get_params()==clf.get_params() and np.array_equal(again.predict_proba(some), clf.predict_proba(some))

@pytest.mark.skipif(not has_bf16(), reason='this processor does not compute in bfloat16')
def test_bfloat16_is_for_training_only(df):
    "Other roundings, nearly the same answers; what comes out is float32, and repeats itself"
    a,b,c = (quick(bf16=o, bag_of_words=False).fit(df.text, df.label) for o in (True,'auto',False))
    p,q,r = (o.predict_proba(some) for o in (a,b,c))
    assert np.array_equal(p, q) and not np.array_equal(p, r) and abs(p-r).max()<.05
    for o in (*a.ensemble_.learners, a.language_model()):
        assert {w.dtype for w in o.model.parameters()}=={torch.float32} and not any('bfloat16' in cb.name
            for cb in o.cbs)

def test_rare_class_is_found_more_often_when_balanced():
    rng = np.random.default_rng(0)
    def text(rare):
        return ' '.join(rng.permutation(['win' if rare and rng.random()<.6 else 'so',
            *rng.choice(list('abcdefgh'), 5)]))
    y = np.array([1]*25+[0]*375)
    X = [text(o) for o in y]
    recall = [(ULMFiTClassifier(pretrained=False, size='tiny', lm_epochs=0, epochs=(0,0,0,3), validation_fraction=0,
        **kw).fit(X, y).predict_proba(X)[y==1,1]).mean() for kw in ({}, dict(class_weight='balanced'),
        dict(balanced_sampling=True))]
    assert recall[1]>recall[0] and recall[2]>recall[0]

def test_pretrained_brings_size_and_tokenizer(df, tmp_path):
    base = quick(tokenizer='subword', lm_epochs=1).fit(df.text, df.label)
    folder = base.save(tmp_path/'m')/'language_model'
    clf = quick(pretrained=str(folder), size='full', lm_epochs=1).fit(df.text, df.label)
    assert clf.language_model().encoder.n_hid==sizes['tiny']['n_hid'] and clf.pretrained_=='language_model'
    assert clf.language_model().describe()['tokenizer']['kind']==base.language_model().describe()['tokenizer']['kind']
    assert len(clf.history_)==2+2 # a frozen epoch more

killed = '''
import sys, pandas as pd
from ulmfit_nb.estimator import ULMFiTClassifier
df = pd.read_json(sys.argv[1], lines=True)
clf = ULMFiTClassifier(pretrained=False, size='tiny', lm_epochs=3, epochs=(1,1,1,3), seq_len=24,
    checkpoint_dir=sys.argv[2], monitor='valid_loss')
clf.fit(df.text, df.label).save(sys.argv[3])
'''

def test_killed_and_taken_up_again(df, tmp_path):
    "Killed several times wherever it happens to be: the weights are those of a training that nobody disturbed"
    df[['text','label']].to_json(tmp_path/'data.jsonl', orient='records', lines=True)
    def start(out):
        return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', killed, tmp_path/'data.jsonl', tmp_path/'ckpt',
            out], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    p = start(tmp_path/'whole')
    assert p.wait(600)==0, p.stderr.read()
    n_kills = 0
    for n in (1,3,6):
        p = start(tmp_path/'again')
        while p.poll() is None and len(list((tmp_path/'ckpt').rglob('*.ckpt')) if (tmp_path/'ckpt').exists()
            else [])<min(n, 5):
            time.sleep(.02)
        if p.poll() is None:
            p.send_signal(signal.SIGKILL)
            n_kills += 1
        p.wait()
    p = start(tmp_path/'again')
    assert p.wait(600)==0, p.stderr.read()
    assert n_kills>=1 and not (tmp_path/'ckpt').exists()
    a,b = (ULMFiTClassifier.load(tmp_path/o) for o in ('whole','again'))
    for (n,x),y in zip(a.ensemble_.learners[0].model.named_parameters(), b.ensemble_.learners[0].model.parameters()):
        assert x.equal(y), n
    assert a.ensemble_.temperature==b.ensemble_.temperature and len(a.history_)==len(b.history_)

@pytest.mark.parametrize('kw,uses', [({}, True), (dict(tokenizer='word'), True), (dict(tokenizer='subword'), False),
    (dict(tokenizer='char'), False), (dict(lang='de'), False)], ids=str)
def test_default_model_only_where_it_fits(kw, uses, df, capsys, monkeypatch):
    """The model in the package reads English words: other tokens, or another language, begin from random weights, and
    this is said"""
    monkeypatch.setattr('ulmfit_nb.learner._said', set())
    clf = ULMFiTClassifier(size='tiny', lm_epochs=0, epochs=(1,0,0,0), keep_vocab=False, **kw).fit(df.text, df.label)
    assert clf.pretrained_==('wiki-en-compact-fwd' if uses else None)
    assert ("'wiki-en-compact' reads word tokens, lang='en'" in capsys.readouterr().out)!=uses
    assert clf.ensemble_.learners[0].encoder.n_hid==(400 if uses else 128)

# The bag of words beside the network

def log_p(p): return np.log(np.clip(np.asarray(p, np.float64), 1e-12, 1))

def test_probabilities_are_the_weighted_product(clf, df):
    ens,w = clf.ensemble_,clf.ensemble_.weights
    both = np.exp(w[0]*log_p(ens.networks_proba(list(df.text)))+w[1]*ens.bag.log_proba(list(df.text)))
    assert np.allclose(clf.predict_proba(df.text), both/both.sum(1, keepdims=True), atol=1e-6)

def test_bag_learned_from_all_labelled_texts(clf, df):
    "also from the held-out ones, with the strength found on the others"
    from ulmfit_nb.bag_of_words import BagOfWords
    y = np.searchsorted(clf.classes_, df.label.to_numpy(clf.classes_.dtype))
    alone = BagOfWords().fit(list(df.text), y, len(clf.classes_))
    alone.C = clf.ensemble_.bag.C
    assert np.allclose(alone.refit(list(df.text), y).log_proba(list(df.text)),
        clf.ensemble_.bag.log_proba(list(df.text)), atol=1e-3)

def test_alone_without_a_bag(df):
    c = quick(bag_of_words=False).fit(df.text, df.label)
    assert c.ensemble_.bag is None and list(c.report_.index)==['ULMFiT','largest class']
    assert np.allclose(c.predict_proba(df.text), c.ensemble_.networks_proba(list(df.text)), atol=1e-6)

def test_bag_and_report_are_saved(clf, saved, df):
    c = ULMFiTClassifier.load(saved)
    pd.testing.assert_frame_equal(c.report_, clf.report_)
    assert c.ensemble_.weights==pytest.approx(clf.ensemble_.weights)
    assert np.allclose(c.predict_proba(df.text), clf.predict_proba(df.text), atol=1e-6)

def test_network_that_learned_nothing_is_not_heard(df, monkeypatch):
    "and began again twice, more slowly each time"
    from ulmfit_nb.classifier import TextClassifierLearner
    rates = []
    def break_it(self, *args, **kw):
        rates.append(kw['lrs'][0])
        for p in self.model.parameters(): p.data.zero_()
    monkeypatch.setattr(TextClassifierLearner, 'fit_gradual', break_it)
    c = quick(epochs=None).fit(df.text, df.label)
    assert rates==pytest.approx([rates[0],rates[0]/4,rates[0]/16])
    assert c.ensemble_.weights==(0.,1.)
    assert np.allclose(c.predict_proba(df.text), np.exp(c.ensemble_.bag.log_proba(list(df.text))), atol=1e-6)

def test_network_that_recovers_is_kept(df, monkeypatch):
    "with the rows of its own epochs alone"
    from ulmfit_nb import estimator
    from ulmfit_nb.classifier import TextClassifierLearner
    fit,rates,answers = TextClassifierLearner.fit_gradual,[],iter([False,True])
    def watched(self, *args, **kw):
        rates.append(kw['lrs'][0])
        return fit(self, *args, **{**kw, 'epochs':(1,0,0,1)})
    monkeypatch.setattr(TextClassifierLearner, 'fit_gradual', watched)
    monkeypatch.setattr(estimator, 'has_learned', lambda *_, **__: next(answers))
    c = quick(epochs=None).fit(df.text, df.label)
    assert rates==pytest.approx([rates[0],rates[0]/4])
    assert list(c.history_.stage)==['language model','classifier','classifier']

@pytest.mark.parametrize('better', [False,True])
def test_language_model_that_lost_to_frequencies_is_dropped(df, monkeypatch, better):
    "and its classifier begins with the random weights that one without a language model has"
    from ulmfit_nb.language_model import LMLearner
    asked = []
    def answer(self): return asked.append(self.validate()[0]) or better
    monkeypatch.setattr(LMLearner, 'beats_frequencies', answer)
    c,none = (quick(lm_epochs=o, directions=('bwd',), bag_of_words=False).fit(df.text, df.label) for o in (2,0))
    assert len(asked)==1 and asked[0]==pytest.approx(c.history_.valid_loss[1], abs=1e-4) # it was trained
    a,b = (o._lms['bwd'].model.state_dict() for o in (c,none))
    assert all(torch.equal(v, b[k]) for k,v in a.items())!=better
    assert np.array_equal(c.predict_proba(df.text), none.predict_proba(df.text))!=better

def test_language_model_that_learned_nothing_is_dropped(df):
    "Little text at a high rate: it is worse than frequencies"
    c,none = (quick(lm_epochs=o, lm_lr=.5, bag_of_words=False).fit(df.text, df.label) for o in (2,0))
    assert np.array_equal(c.predict_proba(df.text), none.predict_proba(df.text))

@pytest.mark.slow
def test_no_collapse_from_random_weights(data_path):
    "On top of a language model that lost to frequencies, the network was far behind counting words"
    from ulmfit_nb.texts import read_texts, split_texts, stratified_sample
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    trec = split_texts(read_texts(data_path('small/trec_train.jsonl.xz')), .25, seed=3)
    few,others = stratified_sample(trec[~trec.is_valid], 2000, seed=11),trec[trec.is_valid]
    c = ULMFiTClassifier(pretrained=False, bag_of_words=False, random_state=11).fit(few.text, few.label)
    rival = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000)).fit(few.text, few.label)
    assert c.score(others.text, others.label)>rival.score(others.text, others.label)-.15

def test_a_probe_that_stops_early_warns_nobody(monkeypatch):
    from ulmfit_nb import second_opinion
    from sklearn.linear_model import LogisticRegression
    stopped = lambda **kw: LogisticRegression(**{**kw, 'max_iter':1})
    monkeypatch.setattr(second_opinion, 'LogisticRegression', stopped)
    X = np.random.default_rng(0).normal(size=(60,5))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert second_opinion.probe(X, (X[:,0]>0).astype(int), 2).shape==(60,2)

def test_time_is_said_before_a_long_training(df, monkeypatch, capsys):
    "and that the steps were timed changes nothing"
    from ulmfit_nb import estimator
    c = quick().fit(df.text, df.label)
    assert 'will take' not in capsys.readouterr().err
    monkeypatch.setattr(estimator, 'step_seconds', lambda *_: dict(step=100., learn=100., read=50.))
    slow = quick().fit(df.text, df.label)
    assert re.search(r'will take about \d+ min|will take about [\d.]+ h', capsys.readouterr().err)
    assert np.array_equal(c.predict_proba(df.text), slow.predict_proba(df.text))

def test_max_time_shortens_every_stage(df, monkeypatch):
    "and leaves no time to begin again"
    from ulmfit_nb import estimator
    monkeypatch.setattr(estimator, 'has_learned', lambda *_, **__: False)
    monkeypatch.setattr(estimator, 'step_seconds', lambda *_: dict(step=100., learn=100., read=50.))
    c = quick(epochs=None, lm_epochs=50, max_time=.05).fit(df.text, df.label, unlabelled=sentences().text)
    n = c.history_.stage.value_counts()
    assert n['language model']<50 and n['classifier']<=4 # the steps of one training, each cut short
    assert c.predict(df.text).shape==(len(df),)

@pytest.mark.parametrize('bad', [0, -1, 'long', True])
def test_max_time_is_a_number_above_0(df, bad):
    with pytest.raises(ValueError, match='max_time is'): quick(max_time=bad).fit(df.text, df.label)

class Guesses:
    "Networks that know each label, but say it with less decision than the bag"
    labels,many,temperature,weights,bag = ['negative','positive'],False,1.,(1.,0.),None
    ys,listen,with_bag = Ensemble.ys,Ensemble.listen,Ensemble.with_bag
    def __init__(self, known): self.known = known
    def networks_proba(self, texts):
        right = torch.tensor([self.known[o]=='positive' for o in texts]).float()
        return torch.stack([.6-.2*right, .4+.2*right], 1)

def test_a_good_probe_raises_the_trust_and_a_poor_one_does_not_lower_it():
    "What the encoder knew beforehand decides, where few texts are held out"
    from ulmfit_nb.second_opinion import hear, suitable_bag
    some = sentences().drop_duplicates('text').sample(140, random_state=0)
    known = dict(zip(some.text, some.label))
    train,held = ((list(o.text), list(o.label)) for o in (some[:130],some[130:]))
    def share(features):
        ens = Guesses(known)
        hear(ens, train, held, suitable_bag(train[0]), features=features)
        return ens.weights[0]/ens.weights[1]
    rng = np.random.default_rng(0)
    def noise(texts): return rng.normal(size=(len(texts),5))
    def knew(texts): return noise(texts)+2*np.array([[known[o]=='positive'] for o in texts])
    assert share(knew)>1.5*share(None)
    assert share(noise)==pytest.approx(share(None))

def test_probe_reads_with_the_encoder_that_saw_no_label(df):
    "The language model's, whose numbers are not those of the classifier"
    from ulmfit_nb.second_opinion import summaries
    c = quick(epochs=(0,0,0,1), lrs=(1e-1,)*4).fit(df.text, df.label)
    learn,texts = c.ensemble_.learners[0],list(df.text[:9])
    before = {k:v.clone() for k,v in learn.model.state_dict().items()}
    own,lm = summaries(learn, texts),summaries(learn, texts, c.language_model().encoder)
    assert own.shape==lm.shape==(9, learn.model[1].layers[0][0].num_features) and np.abs(own-lm).max()>1e-3
    with torch.no_grad(): scores = learn.model[1].layers(torch.from_numpy(own)).softmax(1)
    assert np.allclose(scores, learn.predict_proba(texts, progress=False), atol=1e-5)
    assert all(torch.equal(v, before[k]) for k,v in learn.model.state_dict().items())

@pytest.mark.parametrize('how,asked', [({}, False), ({'self_training':True}, True),
    ({'self_training':True, 'max_time':5}, False)])
def test_unlabelled_texts_teach_the_bag_where_that_is_wanted(df, monkeypatch, how, asked):
    from ulmfit_nb import second_opinion
    seen = []
    def taught(ensemble, train, held, unlabelled):
        seen.append((len(train[0]), len(held[0]), unlabelled))
        return ['superb superb superb']*5,np.ones(5, int)
    monkeypatch.setattr(second_opinion, 'self_taught', taught)
    monkeypatch.setattr(second_opinion, 'has_learned', lambda *_, **__: True)
    more = ['A text of nobody.', 'Another one.']
    c = quick(**how).fit(df.text, df.label, unlabelled=more)
    assert seen==([(len(df)-c.n_valid_, c.n_valid_, more)] if asked else [])
    share = dict(c.ensemble_.bag.explain('superb superb superb', 1, 50))
    assert bool(share.get('superb superb'))==asked # it has learned those, too

def test_the_dice_of_the_program_go_on(df):
    "Whoever draws after each training doesn't draw the same each time"
    import random
    def drawn(): return random.random(),float(np.random.rand()),float(torch.rand(1))
    for o in (random.seed, np.random.seed, torch.manual_seed): o(5)
    want = drawn()
    for o in (random.seed, np.random.seed, torch.manual_seed): o(5)
    quick(lm_epochs=0, epochs=(1,0,0,0), random_state=3).fit(df.text, df.label)
    assert drawn()==want and not torch.backends.cudnn.deterministic

def test_the_language_model_of_another(df, tmp_path):
    "A folder that was replaced since is not read for the classifier that was loaded from it"
    a = quick(lm_epochs=0, epochs=(1,0,0,0)).fit(df.text, df.label)
    loaded = ULMFiTClassifier.load(a.save(tmp_path/'m'))
    quick(lm_epochs=0, epochs=(1,0,0,0)).fit(df.text[60:], df.label[60:]).save(tmp_path/'m')
    with pytest.raises(FileNotFoundError, match='another classifier now'): loaded.language_model()
    with pytest.warns(UserWarning, match='was replaced'): loaded.save(tmp_path/'n')
    assert not (tmp_path/'n'/'language_model').exists()
    assert np.array_equal(ULMFiTClassifier.load(tmp_path/'n').predict_proba(some), a.predict_proba(some))

def test_saved_small_where_it_was_loaded_from(df, tmp_path):
    loaded = ULMFiTClassifier.load(quick(lm_epochs=0, epochs=(1,0,0,0)).fit(df.text, df.label).save(tmp_path/'m'))
    loaded.save(tmp_path/'m', language_models=False)
    with pytest.warns(UserWarning, match='was replaced'): again = pickle.loads(pickle.dumps(loaded))
    assert np.array_equal(again.predict_proba(some), loaded.predict_proba(some))

def test_rare_class_in_no_sample():
    "Five of 5,000: a sample of 500 that happened to have none of them said that nothing was learned"
    from ulmfit_nb.second_opinion import has_learned, some_of_each
    y = (np.arange(5000)%1000==7).astype(int)
    log_p = np.log(np.where(y[:,None]==[0,1], .999, .001))
    for seed in range(20):
        rows = some_of_each(y, 500, seed)
        assert y[rows].any() and has_learned(log_p[rows], y[rows])
        assert not has_learned(np.log([[.999,.001]]*500), y[rows]) # the same answer to all

@pytest.mark.parametrize('name,v', [('max_time',float('inf')), ('lm_lr',float('inf')), ('drop_mult',float('inf'))])
def test_numbers_are_finite(df, name, v):
    "JSON has no infinity: such a classifier could be saved, but not loaded"
    with pytest.raises(ValueError, match=name): quick(**{name:v}).fit(df.text, df.label)

def test_half_a_character(df):
    texts = [*df.text[:-1], 'cut \ud83c']
    for how in ({}, dict(tokenizer='char')):
        with pytest.raises(ValueError, match='half a character at position 4'): quick(**how).fit(texts, df.label)
    with pytest.raises(ValueError, match='half a character'):
        quick().fit(df.text, df.label, unlabelled=['\ud83c'])

def test_the_pieces_that_were_read(df, tmp_path):
    "`tokenizer='subword'` with a pretrained model of pieces takes its pieces"
    from ulmfit_nb.pretraining import pretrain
    df[['text']].to_json(tmp_path/'t.jsonl', orient='records', lines=True)
    pretrain(tmp_path/'t.jsonl', tmp_path, config=dict(emb_sz=8, n_hid=12), bs=4, seq_len=12, vocab_sz=100,
        tokenizer='subword')
    def pieces(**kw):
        folder,tok = ULMFiTClassifier(pretrained=str(tmp_path/'model'), **kw)._start(False)
        return tok['tok'].model
    assert pieces()==pieces(tokenizer='subword') and pieces() is not None

def test_unfitted_and_pickled_keeps_its_requests():
    from sklearn import config_context
    with config_context(enable_metadata_routing=True):
        clf = quick().set_fit_request(unlabelled=True)
        again = pickle.loads(pickle.dumps(clf))
        assert again.get_metadata_routing().fit.requests==clf.get_metadata_routing().fit.requests
