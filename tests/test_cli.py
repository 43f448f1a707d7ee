"The `ulmfit` command as a user meets it: files in, files out, one line for a mistake"
import json, os, shutil, subprocess, sys
import pandas as pd, pytest
from ulmfit_nb import arguments, cli
from ulmfit_nb.inference import has_bf16
from ulmfit_nb.texts import sentences
from forks import ulmfit

@pytest.fixture(scope='module')
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp('cli')
    df = sentences().sample(260, random_state=0).rename(columns={'text':'review','label':'verdict'})
    df['stars'] = (df.verdict=='positive')*4+1
    df['film'] = [f'f{i//3}' for i in range(len(df))]
    df[:200].to_csv(path/'train.csv', index=False)
    df[200:].to_json(path/'valid.jsonl', orient='records', lines=True)
    df[['review']].to_csv(path/'more.tsv', index=False, sep='\t')
    return path

quick = ['--size','tiny','--lm-epochs',1,'--clas-epochs','1,0,0,1','--bs',16,'--pretrained','none']

@pytest.fixture(scope='module')
def model(files):
    r = ulmfit('train', files/'train.csv', '--text-col','review', '--label-col','verdict', '--valid',
        files/'valid.jsonl', '--unlabelled',files/'more.tsv', '--out',files/'model',
        '--bag-of-words','no', '--json', *quick)
    assert r.returncode==0, r.stderr[-3000:]
    return files/'model',json.loads(r.stdout)

def test_train_says_what_it_did(model):
    _,res = model
    assert (res['train'],res['valid'],res['pretrained'])==(200,60,None)
    # the unlabelled texts were read too
    assert 0<=res['accuracy']<=1 and 0<=res['baseline']<=1 and res['lm_tokens']>460*3
    assert res['accuracy_alone']==res['accuracy'] and res['weights']==[1,0]
    assert [o['name'] for o in res['report']]==['ULMFiT','largest class']

def test_bag_of_words_is_yes_no_or_auto(files):
    r = ulmfit('train', files/'train.csv', '--bag-of-words', 'perhaps')
    assert r.returncode==2 and 'neither yes, no nor auto' in r.stderr.replace('\n', ' ')
    from ulmfit_nb.cli import option, parameters_of
    parser = option(parameters_of('estimator.ULMFiTClassifier.__init__'), 'bag_of_words').parser
    assert [parser(o) for o in ('yes','No','auto')]==[True,False,'auto']

def test_predict_is_what_python_says(model, files):
    from ulmfit_nb.estimator import ULMFiTClassifier
    texts = ['A great film.','', 'Bad!', 'The food was '+'very '*200+'good.']
    r = ulmfit('predict', model[0], '--json', '--', *texts)
    assert r.returncode==0, r.stderr[-3000:]
    p = ULMFiTClassifier.load(model[0]).predict_proba(texts)
    got = json.loads(r.stdout)
    for o,q,t in zip(got, p.tolist(), texts):
        assert o['text']==t and abs(o['p_negative']-q[0])<1e-6 and abs(o['p_positive']-q[1])<1e-6
        assert o['label']==['negative','positive'][q.index(max(q))]
    if not has_bf16(): return
    half = json.loads(ulmfit('predict', model[0], '--bf16', '--bs',2, '--json', '--', *texts).stdout)
    off = [abs(a['p_positive']-b['p_positive']) for a,b in zip(got, half)]
    assert 0<max(off)<.02

@pytest.mark.parametrize('out', ['out.csv','out.jsonl'])
def test_file_to_file_keeps_the_order(model, files, out):
    r = ulmfit('predict', model[0], '--file',files/'valid.jsonl', '--text-col','review', '--out',files/out)
    assert r.returncode==0, r.stderr[-3000:]
    got = pd.read_csv(files/out) if out.endswith('csv') else pd.read_json(files/out, lines=True)
    assert got.text.tolist()==pd.read_json(files/'valid.jsonl', lines=True).review.tolist()
    assert abs(got.p_negative+got.p_positive-1).max()<1e-4

def test_a_classifier_by_name(model, tmp_path):
    "It answers in any folder; a folder of that name comes first; a wrong name says which there are"
    ask = 'predict', 'imdb-sentiment', '--json', '--', 'A wonderful film, and so well played.', 'A waste of time.'
    r = ulmfit(*ask, cwd=tmp_path)
    assert r.returncode==0, r.stderr[-3000:]
    assert [o['label'] for o in json.loads(r.stdout)]==['pos','neg']
    slow = json.loads(ulmfit(*ask[:2], '--device', 'cpu', *ask[2:], cwd=tmp_path).stdout) # with PyTorch
    assert all(abs(a['p_pos']-b['p_pos'])<1e-4 for a,b in zip(json.loads(r.stdout), slow))
    assert 'test half' in json.loads(ulmfit('info', 'imdb-sentiment', '--json').stdout)['accuracy']
    shutil.copytree(model[0], tmp_path/'imdb-sentiment')
    assert 'p_positive' in json.loads(ulmfit(*ask, cwd=tmp_path).stdout)[0]
    for o in 'predict','info':
        r = ulmfit(o, 'imdb-sentimental', *(['A text.'] if o=='predict' else []), cwd=tmp_path)
        assert r.returncode==1 and 'no such folder: imdb-sentimental' in r.stderr and 'are imdb-sentiment' in r.stderr

def test_generate_takes_a_pretrained_model_by_name(tmp_path):
    r = ulmfit('generate', 'wiki-en-compact-fwd', 'The river', '--n-words',3, cwd=tmp_path)
    assert r.returncode==0 and r.stdout.startswith('The river'), r.stderr[-3000:]

def test_generate(model):
    r = ulmfit('generate', model[0], 'The film', '--n-words',10, '--n',2, '--seed',1, '--json')
    a,b = json.loads(r.stdout)
    assert a!=b and a.startswith('The film') and json.loads(ulmfit('generate', model[0], 'The film', '--n-words',10,
        '--n',2, '--seed',1, '--json').stdout)==[a,b]

def test_demo_goes_all_the_way(tmp_path):
    r = ulmfit('demo', '--limit',90, '--lm-epochs',1, '--out',tmp_path/'demo', '--json')
    assert r.returncode==0, r.stderr[-3000:]
    assert '\r' not in r.stdout+r.stderr and '█' not in r.stderr
    epochs = [o.split()[0] for o in r.stderr.splitlines() if o.split() and o.split()[0].isdigit()]
    # head and whole of the language model, then the classifier's steps; in both directions
    assert epochs[:2]==['0','0'] and len(epochs)>8
    res = json.loads(r.stdout)
    assert (res['train'],res['valid'])==(72,18) and 0<=res['accuracy']<=1 and 0<=res['baseline']<=1
    assert res['pretrained'].startswith('wiki-en-compact') and len(set(res['generated']))==2 and all(
        o.startswith('The food was') for o in res['generated'])
    again = ulmfit('predict', tmp_path/'demo', '--json', '--', *(o['text'] for o in res['predicted']))
    assert len(res['predicted'])==2 and json.loads(again.stdout)==res['predicted'] # what the demo's new process said

def test_groups_stay_together_and_sample_is_seeded(files):
    from ulmfit_nb.cli import _labelled
    df = _labelled(files/'train.csv', 'review', 'verdict', 'film', '0.3', 120, 7)
    assert len(df)==120 and not set(df.film[df.is_valid]) & set(df.film[~df.is_valid])
    assert df.text.tolist()==_labelled(files/'train.csv', 'review', 'verdict', 'film', '0.3', 120, 7).text.tolist()
    shares = pd.read_csv(files/'train.csv').verdict.value_counts(normalize=True)
    assert (df.label.value_counts(normalize=True)-shares).abs().max()<.02

def write(path, name, text):
    (path/name).write_bytes(text if isinstance(text, bytes) else text.encode()); return path/name

bad = {
    'no such file': (lambda p: ['train', p/'nowhere.csv'], 'nowhere.csv'),
    'no such column': (lambda p: ['train', p/'train.csv', '--text-col','text'], "'text'"),
    'columns are listed': (lambda p: ['train', p/'train.csv', '--text-col','review', '--label-col','mood'], 'verdict'),
    'one class': (lambda p: ['train', write(p, 'one.csv', 'text,label\na,x\nb,x\nc,x\n')], 'one class'),
    'missing text': (lambda p: ['train', write(p, 'gap.csv', 'text,label\ngood,x\n,y\nbad,y\nfine,x\n')], 'row 1'),
    'empty': (lambda p: ['train', write(p, 'empty.csv', 'text,label\n')], 'empty.csv'),
    'bytes': (lambda p: ['train', write(p, 'latin.csv', 'text,label\ncaf\xe9,x\nb,y\n'.encode('latin1'))], 'latin.csv'),
    'no model': (lambda p: ['predict', p/'no_model', 'text'], 'no_model'),
    'pretrained': (lambda p: ['train', p/'train.csv', '--text-col','review', '--label-col','verdict', '--pretrained',
    'my-own'], 'my-own'),
}

@pytest.mark.parametrize('name', bad)
def test_mistakes_get_one_line(files, name, tmp_path):
    args,says = bad[name]
    extra = ['--out',tmp_path/'never'] if args(files)[0]=='train' and '--out' not in args(files) else []
    r = ulmfit(*args(files), *extra)
    assert r.returncode==1 and r.stdout=='' and 'Traceback' not in r.stderr
    assert r.stderr.strip().splitlines()[-1].startswith('ulmfit: ') and says in r.stderr
    assert not (tmp_path/'never'/'classifier').exists()

@pytest.mark.parametrize('args', [['train'], ['predict','m'], ['predict','m','a','--file','b.txt'],
    ['predict','m','a','--out','x.xlsx'], ['train','x.csv','--size','huge'], ['train','x.csv','--clas-epochs','1,2'],
    ['nonsense']])
def test_wrong_usage_is_2(args): assert ulmfit(*args).returncode==2

def test_a_file_in_the_place_of_a_text(tmp_path):
    "Its name would be labelled as if it were a text"
    path = write(tmp_path, 'reviews.csv', 'text\ngood\n')
    for out in ([], ['--out',tmp_path/'out.csv']):
        r = ulmfit('predict', 'm', 'A text.', path, *out)
        said = ' '.join(r.stderr.replace('│', ' ').split()) # out of its frame
        assert r.returncode==2 and 'is a file: give it with --file' in said and not (tmp_path/'out.csv').exists()

@pytest.mark.parametrize('args,says', [(['predict','m','-5 stars'], 'ulmfit predict m -- "-5 stars"'),
    (['predict','my model','Good.','-bad'], "ulmfit predict 'my model' -- \"-bad\""),
    (['generate','m','-hello there'], 'ulmfit generate m -- "-hello there"')])
def test_a_text_that_begins_with_a_dash(args, says):
    r = ulmfit(*args)
    assert r.returncode==2 and says in ' '.join(r.stderr.replace('│', ' ').split())
    r = ulmfit('predict', 'm', '--fil', 'x')
    assert r.returncode==2 and '--file' in r.stderr and '--,' not in r.stderr # that was no text

def test_after_two_dashes_it_is_a_text(model):
    r = ulmfit('predict', model[0], '--json', '--', '-5 stars')
    assert r.returncode==0 and json.loads(r.stdout)[0]['text']=='-5 stars'

def test_files_as_they_come(files, tmp_path, model):
    "Latin 1, semicolons behind a header with a comma, gaps: the error names the option, and the option helps"
    df = pd.read_csv(files/'train.csv')[['review','verdict']].head(60)
    df.loc[0,'review'] = 'Un café très bon.'
    df.loc[[2,3],'review'] = None
    df.loc[4,'verdict'] = None
    df.rename(columns={'verdict':'good, or bad'}).to_csv(tmp_path/'t.csv', index=False, sep=';', encoding='latin1')
    given = ['--text-col','review', '--label-col','good, or bad']
    add = {'--encoding':['--encoding','latin1'], '--sep':['--sep',';'], '--drop-missing':['--drop-missing']}
    for i,(option,more) in enumerate(add.items()):
        before = [o for k in list(add)[:i] for o in add[k]]
        r = ulmfit('train', tmp_path/'t.csv', *given, *before, '--out',tmp_path/'m', '--quiet', *quick)
        said = r.stderr.strip().splitlines()[-1]
        assert r.returncode==1 and said.startswith('ulmfit: ') and not (tmp_path/'m').exists()
        assert option in said or option=='--sep' and 'its columns are' in said, said
        for o in ('=True','encoding=','errors=','df.','df['): assert o not in said
    r = ulmfit('train', tmp_path/'t.csv', *given, *sum(add.values(), []), '--out',tmp_path/'m', '--json', '--valid',
        '0.3', *quick)
    assert r.returncode==0, r.stderr[-2000:]
    assert json.loads(r.stdout)['train']+json.loads(r.stdout)['valid']==57
    r = ulmfit('predict', model[0], '--file',tmp_path/'t.csv', '--text-col','review', *sum(add.values(), []), '--out',
        tmp_path/'out.csv', '--json')
    assert r.returncode==0 and json.loads(r.stdout)['n']==58, r.stderr[-2000:]
    assert pd.read_csv(tmp_path/'out.csv').text[0]=='Un café très bon.'
    r = ulmfit('predict', model[0], '--file',tmp_path/'t.csv', '--encoding','latin-one')
    assert r.returncode==1 and '--encoding latin-one is not known' in r.stderr

def test_half_written_output_never_replaces_a_good_one(model, files):
    "An input that fails leaves the file of an earlier run as it was"
    out = files/'kept.csv'
    out.write_text('kept')
    r = ulmfit('predict', model[0], '--file',write(files, 'gap2.csv', 'text\ngood\n""\n,\n'), '--out',out)
    assert r.returncode==1 and out.read_text()=='kept' and not list(files.glob('.kept*'))

def test_damaged_model_is_refused(model, tmp_path):
    import shutil
    for name,harm in (('cut', lambda f: f.write_bytes(f.read_bytes()[:-10])), ('gone', lambda f: f.unlink())):
        shutil.copytree(model[0], tmp_path/name)
        harm(tmp_path/name/'classifier'/'weights.safetensors')
        r = ulmfit('predict', tmp_path/name, 'text')
        assert r.returncode==1 and 'weights.safetensors' in r.stderr and 'Traceback' not in r.stderr

def test_help_answers_without_torch():
    code = ("import sys; from ulmfit_nb.cli import app; from typer.testing import CliRunner; assert "
        "CliRunner().invoke(app, ['train','--help']).exit_code==0; print(sorted({'torch','fastai','pandas','spacy'} & "
        "set(sys.modules)))")
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip()=='[]'

def test_both_directions_and_balance(files):
    from ulmfit_nb.estimator import ULMFiTClassifier
    r = ulmfit('train', files/'train.csv', '--text-col','review', '--label-col','verdict', '--out',files/'both',
        '--both', '--balanced', '--quiet', '--json', *quick)
    assert r.returncode==0 and 'epoch' not in r.stderr, r.stderr[-3000:]
    res,clf = json.loads(r.stdout),ULMFiTClassifier.load(files/'both')
    assert res['directions']==['fwd','bwd'] and clf.directions==('fwd',
        'bwd') and clf.class_weight=='balanced' and res['temperature']==clf.ensemble_.temperature
    p = json.loads(ulmfit('predict', files/'both', '--json', 'Good.').stdout)[0]
    assert abs(p['p_positive']-clf.predict_proba(['Good.'])[0,1])<1e-6
    one = json.loads(ulmfit('predict', files/'both'/'classifier_bwd', '--json', 'Good.').stdout)[0] # a member alone
    assert abs(one['p_positive']-p['p_positive'])>1e-9
    assert not (files/'both.checkpoints').exists()
    assert json.loads(ulmfit('info', files/'both', '--json').stdout)['directions']==['fwd','bwd']

def test_train_looks_first_where_it_will_write(files, tmp_path):
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.txt').write_text('…')
    r = ulmfit('train', files/'train.csv', '--text-col','review', '--label-col','verdict', '--out',tmp_path/'mine',
        '--size','tiny', '--pretrained','none', '--lm-epochs','500')
    assert r.returncode==1 and 'exists and holds something else' in r.stderr and [o.name
        for o in tmp_path.rglob('*')]==['mine','thesis.txt']

def test_valid_file_of_other_labels(files, tmp_path):
    df = pd.read_csv(files/'train.csv')
    df.assign(verdict=df.stars).to_csv(tmp_path/'stars.csv', index=False)
    r = ulmfit('train', files/'train.csv', '--text-col','review', '--label-col','verdict', '--valid',
        tmp_path/'stars.csv', '--out',tmp_path/'m', *quick)
    assert r.returncode==1 and 'no label in common' in r.stderr and not (tmp_path/'m').exists()

def test_texts_without_words(tmp_path):
    pd.DataFrame({'text':['😀 !','😡 ?']*20, 'label':['good','bad']*20}).to_csv(tmp_path/'t.csv', index=False)
    r = ulmfit('train', tmp_path/'t.csv', '--out',tmp_path/'m', '--json', *quick)
    assert r.returncode==0 and json.loads(r.stdout)['baseline'] is None, r.stderr[-2000:]

@pytest.mark.parametrize('kind', ['number','many'])
def test_predict_wants_one_label(kind, tmp_path):
    from fastai.basics import ColReader, ColSplitter, DataBlock, MultiCategoryBlock, RegressionBlock
    from ulmfit_nb.all import AWD_LSTM, TextBlock, text_classifier_learner
    df = pd.DataFrame({'text':['good','bad']*8, 'y':[1.,0.]*8 if kind=='number' else ['a;b','b']*8,
        'is_valid':[False]*12+[True]*4})
    y = dict(get_y=ColReader('y')) if kind=='number' else dict(get_y=ColReader('y', label_delim=';'))
    dls = DataBlock((TextBlock.from_df('text'), RegressionBlock() if kind=='number' else MultiCategoryBlock()),
        get_x=ColReader('text'), splitter=ColSplitter(), **y).dataloaders(df, bs=4, path=tmp_path)
    learn = text_classifier_learner(dls, AWD_LSTM, pretrained=False, config=dict(emb_sz=8, n_hid=8, n_layers=2),
        n_out=1 if kind=='number' else None)
    learn.export('m')
    r = ulmfit('predict', tmp_path/'m', 'good')
    assert r.returncode==1 and 'not one label per text' in r.stderr and 'Traceback' not in r.stderr

def test_narrow_console(model):
    env = os.environ | {'OMP_NUM_THREADS':'1', 'PYTHONIOENCODING':'cp1252'}
    for extra in ([], ['--json']):
        r = subprocess.run([sys.executable, '-m', 'ulmfit_nb', 'predict', str(model[0]), *extra, '--', 'great 😀\nfilm'],
            capture_output=True, env=env)
        assert r.returncode==0, r.stderr[-2000:]
        out = r.stdout.decode('cp1252')
        if extra: assert json.loads(out)[0]['text']=='great 😀\nfilm'
        else: assert out.strip().endswith('great ? film') and len(out.splitlines())==1

# A parameter is documented once

def command_of(name):
    "A command as it stands in the shell: its options by name, and by the name of their parameter"
    from typer.main import get_command
    return {o.name:o for o in get_command(cli.app).commands[name].params}

def comments(function):
    "What fastcore reads, from the imported function, of the parameters that it has"
    import inspect
    from fastcore.docments import docments
    has = inspect.signature(function).parameters
    said = docments(function, returns=False)
    return {k:' '.join((v or '').split()) for k,v in said.items() if k in has and k!='self'}

def differences(options, comments, differs, renamed):
    "Parameters without an option, and options whose help is another than the parameter's comment"
    res = []
    for k,says in comments.items():
        option = options.get(renamed.get(k, k))
        if k in differs and k not in renamed: continue
        if option is None: res.append(f'{k}: no option')
        elif not says or not option.help.startswith(cli.help_of(says)): res.append(f'{k}: {option.help} | {says}')
        elif k not in renamed and option.help!=cli.help_of(says): res.append(f'{k}: {option.help} | {says}')
    return res

def functions(command):
    "The functions whose parameters are a command's options, what it says otherwise, and what only has another name"
    from ulmfit_nb.estimator import ULMFiTClassifier
    from ulmfit_nb.pretraining import pretrain
    from ulmfit_nb.serving import make_app,serve
    from ulmfit_nb.web import export_web
    if command=='serve': return [serve, make_app],cli.serve_differs,{}
    if command=='export-web': return [export_web],cli.web_differs,{'page':'page'}
    if command=='tokenize':
        from ulmfit_nb.distributed import corpus_from_files
        return [corpus_from_files],cli.tokenize_differs,{'out':'out', 'n_workers':'workers'}
    if command=='pretrain':
        return [pretrain],cli.pretrain_differs,{'out':'out', 'valid':'valid', 'n_workers':'workers'}
    names = {'epochs':'clas_epochs', 'lrs':'clas_lrs', 'random_state':'seed', 'unlabelled':'unlabelled'}
    return [ULMFiTClassifier.__init__, ULMFiTClassifier.fit],cli.train_differs,names

@pytest.mark.parametrize('command', ['train','pretrain','tokenize','serve','export-web'])
def test_every_parameter_is_an_option(command):
    "With its comment as help; what a command says otherwise is in a list, with options that exist"
    options = command_of(command)
    of,differs,names = functions(command)
    said = {k:v for f in of for k,v in comments(f).items()}
    assert differences(options, said, differs, names)==[]
    assert set(differs) <= set(said)
    flags = {o for p in options.values() for o in (*p.opts, *p.secondary_opts)}
    for k,v in differs.items(): assert v is None or set(v.split(', ')) <= flags, k

def test_three_parameters_have_no_option():
    "A share for `fit` to hold out has one of its own, `--validation-fraction`; a dict and a socket are for Python"
    assert [k for k,v in cli.train_differs.items() if v is None]==['valid']
    assert [k for k,v in cli.pretrain_differs.items() if v is None]==['config']
    assert [k for k,v in cli.serve_differs.items() if v is None]==['sock']

@pytest.mark.parametrize('command', ['train','pretrain','tokenize','serve','export-web'])
def test_defaults_are_those_of_the_function(command):
    import inspect
    options = command_of(command)
    of,differs,names = functions(command)
    for k,p in {k:p for f in of for k,p in inspect.signature(f).parameters.items()}.items():
        if k=='self' or k in differs and k not in names: continue
        default = options[names.get(k, k)].default
        if p.default is not p.empty: assert default==p.default or str(default)==str(p.default), k

def test_a_differing_help_is_found():
    options,(of,differs,names) = command_of('pretrain'),functions('pretrain')
    said = comments(of[0])
    assert differences(options, {**said, 'lr':said['lr']+' or so'}, differs, names)
    assert differences(options, {**said, 'n_workers':'Threads'}, differs, names)
    assert differences(options, {**said, 'momentum':'New'}, differs, names)==['momentum: no option']
    assert differences(options, {**said, 'lr':''}, differs, names)

def test_a_new_parameter_is_an_option(tmp_path, monkeypatch):
    "From its comment, its default and its type, wherever the comment stands; the command hands its value on"
    import typer
    from typer.testing import CliRunner
    source = """def f(
    path,                   # Where it is
    # So many, which takes
    # two lines
    n:int|None=None,
    rate=.5,                # How fast; `None`: as it comes
    loud=False,             # With noise?
    calm=True,              # At rest?
    words:int|str|None='auto' # Words
): pass
"""
    (tmp_path/'toy.py').write_text(source)
    spec = type('Spec', (), {'origin':str(tmp_path/'toy.py')})
    monkeypatch.setattr(arguments, 'find_spec', lambda name: spec)
    got = cli.parameters_of('toy.f')
    assert got['n']==('int | None', None, 'So many, which takes two lines') and got['path'][1:]==(..., 'Where it is')
    app,seen = typer.Typer(),{}
    @app.command()
    @cli.options_of(got, {'path':'path'})
    def command(path:str, **settings): seen.update(settings)
    run = lambda *args: CliRunner().invoke(app, ['x', *args]).exit_code
    assert run()==0 and seen==dict(n=None, rate=.5, loud=False, calm=True, words='auto')
    assert run('--n','3', '--rate','1', '--loud', '--no-calm', '--words','none')==0
    assert seen==dict(n=3, rate=1., loud=True, calm=False, words=None)
    assert run('--words','7')==0 and seen['words']==7
    assert run('--words','few')==run('--n','x')==run('--no-loud')==2

def test_new_settings_reach_the_classifier(files, tmp_path):
    "Options that come from the comments alone do what the parameters do"
    from ulmfit_nb.estimator import ULMFiTClassifier
    r = ulmfit('train', files/'train.csv', '--text-col','review', '--label-col','verdict', '--out',tmp_path/'m',
        '--clas-lrs','.04,.02,.01,.002', '--no-calibrate', '--label-smoothing','.1', '--seq-len',20, '--quiet',
        '--json', *quick)
    assert r.returncode==0, r.stderr[-3000:]
    clf = ULMFiTClassifier.load(tmp_path/'m')
    assert tuple(clf.lrs)==(.04,.02,.01,.002) and clf.label_smoothing==.1 and clf.seq_len==20
    assert clf.calibrate is False and json.loads(r.stdout)['temperature']==1
    r = ulmfit('train', files/'train.csv', '--text-col','review', '--label-col','verdict', '--patience',0, *quick)
    assert r.returncode==1 and '--patience is 0' in r.stderr

def test_a_film_on_both_sides(files):
    "A file of held-out texts is checked like a part that is held out here"
    from ulmfit_nb.cli import _labelled
    def part(col): return _labelled(files/'train.csv', 'review', 'verdict', col, str(files/'valid.jsonl'), None, 0)
    with pytest.raises(ValueError, match="film 'f66' is in .*train.csv and in .*valid.jsonl"): part('film')
    with pytest.raises(ValueError, match="train.csv has no column 'author'"): part('author')
    assert len(part(None))==260

def test_a_full_disk_at_the_end_costs_no_training(tmp_path, monkeypatch):
    "What was trained waits in the checkpoints until it is saved"
    from fastai.learner import Learner
    from ulmfit_nb.cli import train_texts
    from ulmfit_nb.estimator import ULMFiTClassifier
    from ulmfit_nb.texts import split_texts
    df = split_texts(sentences().sample(100, random_state=0), .2, seed=1)
    def go(): return train_texts(df, tmp_path/'m', progress=False, pretrained=False, size='tiny', lm_epochs=1,
        epochs=(1,0,0,1), bag_of_words=False)
    def full(*_, **__): raise OSError(28, 'No space left on device')
    save,steps = ULMFiTClassifier.save,[]
    monkeypatch.setattr(ULMFiTClassifier, 'save', full)
    with pytest.raises(OSError): go()
    assert list((tmp_path/'m.checkpoints').iterdir()) and not (tmp_path/'m').exists()
    monkeypatch.setattr(ULMFiTClassifier, 'save', save)
    step = Learner._do_grad_opt
    monkeypatch.setattr(Learner, '_do_grad_opt', lambda self: steps.append(1) or step(self))
    res = go()
    assert not steps and (tmp_path/'m'/'estimator.json').exists() and not (tmp_path/'m.checkpoints').exists()
    assert 0<=res['results']['accuracy']<=1

@pytest.mark.parametrize('said,here', [("give another name, or start over with resume=False", '--fresh'),
    ("reads backwards: pass backwards=True to go on", 'add --backwards'), ("pass tokenizer='subword'",
    'add --tokenizer subword'), ('for always the likeliest token, use top_k=1', '0.01')])
def test_ways_out_of_the_shell(said, here):
    from ulmfit_nb.cli import _on_command
    assert here in _on_command(said) and not any(o in _on_command(said) for o in ('=False','=True',"='",'top_k'))

@pytest.mark.parametrize('labels', [[1,2], [False,True], ['a','b'], [1.,2.]], ids=str)
def test_parquet_keeps_the_kind_of_labels(labels, tmp_path):
    pytest.importorskip('pyarrow')
    from ulmfit_nb.scoring import score_file
    pd.DataFrame({'text':['x','yy','zzz'], 'id':[1,2,3]}).to_parquet(tmp_path/'in.parquet')
    def proba(texts): return [[len(t)%2,1-len(t)%2] for t in texts]
    assert score_file(proba, labels, tmp_path/'in.parquet', tmp_path/'out.parquet')==3
    got = pd.read_parquet(tmp_path/'out.parquet')
    assert got.label.tolist()==[labels[0],labels[1],labels[0]] and got.id.tolist()==[1,2,3]
    assert type(got.label.tolist()[0])==type(labels[0])
