"What the build machine, conda, pre-commit and GitHub are told is well formed, and what they are to call exists"
import re, subprocess, sys
from pathlib import Path
import pytest, yaml
from conftest import root
from test_project import settings

bins = Path(sys.executable).parent

def read(name): return yaml.safe_load((root/name).read_text(encoding='utf8'))
def targets(): return set(re.findall(r'^([a-z][\w-]*):', (root/'Makefile').read_text(encoding='utf8'), re.M))
def makes(text):
    "Targets of `make` that a text names as code"
    code = re.findall(r'`[^`\n]+`', text) + re.findall(r'^```.*?^```', text, re.M|re.S)
    return {o for c in code for o in re.findall(r'\bmake ([a-z][\w-]*)', c)}

# The build machine

workflows = sorted((root/'.github'/'workflows').iterdir())

def steps(flow): return [s for job in flow['jobs'].values() for s in job['steps']]

@pytest.mark.parametrize('path', workflows, ids=lambda o: o.stem)
def test_workflow(path):
    "It begins where it should, its actions have versions, its commands exist, it may do no more than it needs"
    flow = read(path)
    assert {'name','jobs','permissions'}<=set(flow) and {'push','pull_request'}<=set(flow[True]) # `on` is a yes in YAML
    assert flow['permissions']['contents']=='read'
    for job in flow['jobs'].values():
        assert job['runs-on']=='ubuntu-latest'
        for s in job['steps']: assert ('uses' in s)!=('run' in s)
    for s in steps(flow):
        if 'uses' in s: assert re.fullmatch(r'actions/[\w-]+@v\d+', s['uses'])
        for o in re.findall(r'\bmake ([\w-]+)', s.get('run', '')): assert o in targets()
        for o in str(s.get('with', {}).get('cache-dependency-path', 'Makefile')).split(): assert (root/o).exists()

def test_workflows_agree():
    "The same action has one version in all of them"
    used = {o['uses'] for path in workflows for o in steps(read(path)) if 'uses' in o}
    assert len({o.split('@')[0] for o in used})==len(used)

def test_every_python_is_tested():
    flow = read('.github/workflows/test.yaml')
    versions = flow['jobs']['test']['strategy']['matrix']['python']
    assert versions==['3.11','3.12','3.13'] and versions[0]==settings()['min_python']
    assert 'make test' in [o.get('run') for o in steps(flow)]
    assert '${{ matrix.python }}' in [o.get('with', {}).get('python-version') for o in steps(flow)]

# Questions and changes

@pytest.mark.parametrize('name', ['bug','question'])
def test_issue_form(name):
    form = read(f'.github/ISSUE_TEMPLATE/{name}.yml')
    assert set(form)=={'name','description','labels','body'} and form['labels']==[name]
    assert len({o['id'] for o in form['body']})==len(form['body'])
    for o in form['body']: assert o['type'] in ('textarea','input') and o['attributes']['label']
    assert any(o['validations']['required'] for o in form['body'])

def test_blank_issues_are_welcome():
    assert read('.github/ISSUE_TEMPLATE/config.yml')=={'blank_issues_enabled':True}

@pytest.mark.parametrize('name', ['.github/pull_request_template.md','CONTRIBUTING.md','docs/releasing.md',
    'docs/run.md','docs/index.md','README.md'])
def test_pages_name_targets_that_exist(name):
    found = makes((root/name).read_text(encoding='utf8'))
    assert found and found<=targets()

def test_targets_are_read():
    assert {'test','docs','check','wiki-en'}<=targets() and 'nbs' in targets()
    assert makes('we make do, `make test`, and\n```bash\nmake docs # so\n```\n')=={'test','docs'}

@pytest.mark.parametrize('name', sorted(targets()))
def test_target_can_be_made(name):
    "make knows how, down to the last file"
    r = subprocess.run(['make','-n',name], cwd=root, capture_output=True, text=True)
    assert not r.returncode, r.stderr
    for o in re.findall(r'\b(?:tools|docs)/\w+\.py', r.stdout): assert (root/o).exists()

def test_page_on_releases():
    text = (root/'docs'/'releasing.md').read_text(encoding='utf8')
    assert len(re.findall(r'^\d+\. ', text, re.M))==10 and f"v{settings()['version']}" in text
    files = re.findall(r'`((?:tools|tests|ulmfit_nb)/[\w/]+\.py|[\w.]+\.(?:md|ini))`', text)
    assert len(files)>4 and all((root/o).exists() for o in files)

# Before a commit

def test_hooks_do_what_make_check_does():
    repos = read('.pre-commit-config.yaml')['repos']
    assert [o['repo'] for o in repos]==['local']
    hooks = repos[0]['hooks']
    assert all(o['language']=='system' and o['pass_filenames'] is False and re.compile(o['files']) for o in hooks)
    make = ['make','--no-print-directory','-n','check','VENV=.venv']
    said = subprocess.run(make, cwd=root, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-len(hooks):]==[o['entry'] for o in hooks]
    for o in hooks:
        command,*args = o['entry'].split()
        assert (bins/Path(command).name).exists() and all((root/a).exists() for a in args)

# conda

def test_conda_environment():
    env = read('environment.yml')
    *plain,last = env['dependencies']
    assert env['name']==settings()['lib_name'] and f"python={settings()['min_python']}" in plain and 'pip' in plain
    pins,package = (o.split() for o in last['pip'])
    assert pins==['--constraint','constraints.txt'] and (root/pins[1]).exists()
    extras = re.fullmatch(r'\.\[(.*)\]', package[1])[1].split(',')
    assert package[0]=='--editable' and all(f'{o}_requirements' in settings() for o in extras)
