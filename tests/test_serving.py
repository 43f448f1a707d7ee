"A real server on a free port: every answer is right, none is lost, what is wrong is said in JSON, and it ends cleanly"
import http.client, json, os, random, re, signal, socket, subprocess, sys, threading, time
import pytest
pytest.importorskip('fastapi')
pytest.importorskip('uvicorn')
import browser

timeout,max_bytes = 3,60_000

@pytest.fixture(scope='module')
def model(tmp_path_factory):
    from ulmfit_nb.estimator import ULMFiTClassifier
    from ulmfit_nb.texts import sentences
    df = sentences().sample(200, random_state=0)
    clf = ULMFiTClassifier(False, ('fwd','bwd'), size='tiny', lm_epochs=0, epochs=(1,0,0,0)).fit(df.text, df.label)
    return clf,clf.save(tmp_path_factory.mktemp('serving')/'model', language_models=False)

@pytest.fixture(scope='module')
def texts():
    "200 texts, from none to 300 words"
    from ulmfit_nb.texts import sentences
    rng,words = random.Random(0),' '.join(sentences().text).split()
    starts = [rng.randrange(len(words)-300) for _ in range(200)]
    return [' '.join(words[i:i+round(300**rng.random())-1]) for i in starts]

class Server:
    "`ulmfit serve` in a process of its own"
    def __init__(self, folder, port=0):
        how = dict(port=port, timeout=timeout, max_bytes=max_bytes, max_texts=20)
        options = [p for k,v in how.items() for p in (f"--{k.replace('_', '-')}", str(v))]
        env = os.environ | {'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore'}
        command = [sys.executable, '-m', 'ulmfit_nb', 'serve', str(folder), *options]
        self.p = subprocess.Popen(command, text=True, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said = self.p.stdout.readline()
        assert (m := re.match(r'serving at http://127\.0\.0\.1:(\d+) ', said)), said+self.p.stderr.read()
        self.port = int(m[1])

    def ask(self, body, path='/predict', kind='application/json', method='POST', connection=None):
        "Status and answer"
        c = connection or http.client.HTTPConnection('127.0.0.1', self.port, timeout=120)
        body = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        c.request(method, path, body, {'Content-Type':kind})
        r = c.getresponse()
        text = r.read()
        return r.status,json.loads(text) if r.headers['content-type']=='application/json' else text.decode()

    def raw(self, *parts, pause=0):
        "What comes back for bytes: status line, and the body as JSON"
        with socket.create_connection(('127.0.0.1', self.port), timeout=60) as s:
            for o in parts:
                s.sendall(o)
                time.sleep(pause)
            got = b''
            while o := s.recv(65536): got += o
        head,_,body = got.partition(b'\r\n\r\n')
        return head.split(b'\r\n')[0].decode(),json.loads(body)

@pytest.fixture(scope='module')
def server(model):
    s = Server(model[1])
    yield s
    s.p.kill()
    s.p.wait()

def clients(server, texts, n=8):
    "Answers by number of the text, and errors of connections, of `n` clients that ask at the same time"
    answers,errors = {},[]
    def one(mine):
        c = http.client.HTTPConnection('127.0.0.1', server.port, timeout=120)
        try:
            for i in mine: answers[i] = server.ask({'text':texts[i]}, connection=c)
        except (OSError,http.client.HTTPException) as e: errors.append(e)
    threads = [threading.Thread(target=one, args=(range(k, len(texts), n),)) for k in range(n)]
    for t in threads: t.start()
    return threads,answers,errors

def right(answers, want):
    "Every answer is what the classifier says of this text, and of no other"
    for i,(status,o) in answers.items():
        assert status==200, o
        p = o['probabilities']
        assert abs(p['negative']-want[i][0])<1e-6 and abs(p['positive']-want[i][1])<1e-6, i
        assert o['label']==max(p, key=p.get)

@pytest.fixture(scope='module')
def want(model, texts): return model[0].predict_proba(texts)

def test_every_answer_is_right(server, texts, want):
    "8 clients, 200 requests; and they were read together"
    threads,answers,errors = clients(server, texts)
    for t in threads: t.join()
    assert not errors and sorted(answers)==list(range(len(texts)))
    right(answers, want)
    _,health = server.ask(None, '/health', method='GET')
    assert health['texts']>=len(texts) and health['groups']<health['texts'] and health['waiting']==0

def test_a_wrong_answer_would_be_seen(want):
    o = dict(label='negative', probabilities=dict(negative=want[1][0], positive=want[1][1]))
    with pytest.raises(AssertionError): right({0:(200, o)}, want)

def test_many_in_a_request(server, texts, want):
    status,o = server.ask({'texts':texts[:20]})
    right({i:(status,a) for i,a in enumerate(o['answers'])}, want)

def test_explained(server, model):
    from ulmfit_nb.interpret import attribute
    _,o = server.ask({'text':'I loved it, but never again.', 'label':'negative'}, '/explain')
    a = attribute(model[0], 'I loved it, but never again.', 'negative')
    assert [w for w,_ in o['words']]==[w for w,_ in a.words()]
    assert max(abs(x-y) for (_,x),(_,y) in zip(o['words'], a.words()))<1e-5 and o['explained']=='negative'

wrong = [({'texts':['a']*21},422,'at most 20'), ({'text':'a', 'file':'x'},422,'file'), ({'text':3},422,'text'),
    (b'{"text"',400,'JSON'), (b'\xff\xfe\x00',400,'UTF-8'), (b'\x80\x04\x95pickle.',400,'UTF-8'),
    ({'text':'a'*70_000},413,'60,000 bytes'), (b'x'*2_000_000,413,'60,000 bytes'), ({'text':'a'*50_001},422,'50000')]

@pytest.mark.parametrize('body,status,says', wrong, ids=range(len(wrong)))
def test_wrong_bodies(server, body, status, says):
    got,o = server.ask(body)
    assert got==status and list(o)==['error'] and says in o['error']

def test_wrong_ways_in(server):
    for path,method,status in (('/etc/passwd','GET',404), ('/../setup.py','GET',404), ('/predict','GET',405)):
        got,o = server.ask(None, path, method=method)
        assert got==status and '/docs' in o['error']
    assert server.ask(b'text=a', kind='application/x-www-form-urlencoded')[0]==415

head = b'POST /predict HTTP/1.1\r\nHost: a\r\n'
cut = [([b'\x16\x03\x01\x02\x00binary\r\n\r\n'],400,'no HTTP'), ([b''],408,'3 s'), ([head],408,'3 s'),
    ([head,b'Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"te'],408,'3 s')]

@pytest.mark.parametrize('parts,status,says', cut, ids=['binary','silent','half a head','half a body'])
def test_binary_and_slow(server, parts, status, says):
    line,o = server.raw(*parts)
    assert line.startswith(f'HTTP/1.1 {status} ') and says in o['error']

def test_patience_ends_with_every_request(server):
    "Half a head after a request that was answered holds the connection no longer than one at its beginning"
    with socket.create_connection(('127.0.0.1', server.port), timeout=60) as s:
        s.sendall(b'GET /health HTTP/1.1\r\nHost: a\r\n\r\n')
        assert s.recv(65536).startswith(b'HTTP/1.1 200 ')
        s.sendall(head+b'X: ')
        got,start = b'',time.monotonic()
        while o := s.recv(65536): got += o
    assert b'408 Request Timeout' in got and time.monotonic()-start<4*timeout

def test_half_a_request_behind_a_whole_one(server):
    with socket.create_connection(('127.0.0.1', server.port), timeout=60) as s:
        s.sendall(b'GET /health HTTP/1.1\r\nHost: a\r\n\r\n'+head)
        got = b''
        while o := s.recv(65536): got += o
    assert b'HTTP/1.1 200 ' in got and b'408 Request Timeout' in got

@pytest.mark.parametrize('labels,asked,means', [([1.,2.],1,1.), ([1,2],1,1), ([False,True],1,None), ([0,1],True,None),
    (['1','2'],1,None)])
def test_labels_as_javascript_writes_them(labels, asked, means):
    from types import SimpleNamespace
    from ulmfit_nb.serving import _Model
    got = _Model.known(SimpleNamespace(labels=labels), asked)
    assert got==means and type(got)==type(means)

def test_a_page_for_people(server, model):
    "In a browser: a text typed in, its label, probabilities and coloured words; no other host is asked"
    if not browser.find(): pytest.skip('no browser')
    url = f'http://127.0.0.1:{server.port}/'
    with browser.chromium() as tab:
        tab.open(url)
        tab.js("document.getElementById('text').value = 'I loved it <b>so</b> much.'")
        tab.js("document.querySelector('button').click()")
        tab.until("!!document.querySelector('#why span[title]')", 90)
        assert tab.js("document.querySelector('#answer h2').textContent") in ('negative','positive')
        assert tab.js("document.querySelectorAll('#answer tr').length")==2
        assert 'loved' in tab.js("document.querySelector('#why').textContent")
        assert tab.js("document.querySelectorAll('#why b').length")==0
        assert not tab.complaints() and all(o.startswith((url,'data:')) for o in tab.requests())
        if to := os.getenv('ULMFIT_SHOT'): tab.shot(to, 800)

def test_killed_under_load_and_started_again(server, model, texts, want):
    "Clients get right answers or a broken connection; the next server has the same address, and ends on SIGTERM with 0"
    threads,answers,errors = clients(server, texts)
    while len(answers)<20: time.sleep(.01)
    server.p.kill()
    server.p.wait()
    for t in threads: t.join()
    assert errors and len(answers)<len(texts)
    right(answers, want)
    again = Server(model[1], server.port)
    threads,answers,errors = clients(again, texts)
    while len(answers)<20: time.sleep(.01)
    again.p.send_signal(signal.SIGTERM)
    assert again.p.wait(60)==0
    for t in threads: t.join()
    assert len(answers)>=20
    right(answers, want) # what was asked before the end got its whole answer
