"""How many requests `ulmfit serve` answers in a second, one at a time and read together, and is every answer right?

    python experiments/serving_load.py MODEL --out nbs/logs/serving.jsonl

MODEL is a folder that `ulmfit train` or `ulmfit demo` wrote. A text is one to eight of the bundled sentences, as many
of each. Every answer is compared with `predict_proba`. The server has one thread to compute with."""
import http.client, json, os, random, re, signal, subprocess, sys, threading, time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from runs import Log, parser, use_threads

def mixed_texts(n, most=8, seed=0):
    "`n` texts of one to `most` sentences"
    from ulmfit_nb.texts import sentences
    rng,all_of_them = random.Random(seed),sentences().text.tolist()
    return [' '.join(rng.choices(all_of_them, k=rng.randint(1, most))) for _ in range(n)]

@contextmanager
def server(model, *options):
    "A running `ulmfit serve`: its process and its port"
    command = [sys.executable, '-m', 'ulmfit_nb', 'serve', str(model), '--port', '0', *map(str, options)]
    p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {'OMP_NUM_THREADS':'1'})
    try: yield p,int(re.search(r'http://[^ ]*:(\d+)', p.stdout.readline())[1])
    finally:
        p.send_signal(signal.SIGTERM)
        p.wait(60)

def ask(port, texts, answers, mine):
    "One client: sends its texts one after the other over one connection"
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=300)
    for i in mine:
        c.request('POST', '/predict', json.dumps({'text':texts[i]}), {'Content-Type':'application/json'})
        answers[i] = json.loads(c.getresponse().read())

def cpu_seconds(pid):
    "That the process has computed so far"
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11])+int(fields[12]))/os.sysconf('SC_CLK_TCK')

def load(model, texts, want, clients, *options):
    "What `clients` that ask at the same time see"
    with server(model, *options) as (p,port):
        ask(port, texts, {}, range(5)) # what is arranged once
        answers,begin,cpu = {},time.monotonic(),cpu_seconds(p.pid)
        threads = [threading.Thread(target=ask, args=(port, texts, answers, range(k, len(texts), clients)))
            for k in range(clients)]
        for t in threads: t.start()
        for t in threads: t.join()
        spent,cpu = time.monotonic()-begin,cpu_seconds(p.pid)-cpu
        c = http.client.HTTPConnection('127.0.0.1', port)
        c.request('GET', '/health')
        health = json.loads(c.getresponse().read())
    off = max(abs(v-w) for i,o in answers.items() for v,w in zip(o['probabilities'].values(), want[i]))
    return dict(requests=len(texts), answered=len(answers), largest_difference=off, wall_seconds=round(spent, 1),
        per_second=round(len(answers)/spent, 1), server_cpu=round(cpu, 2), per_cpu_second=round(len(answers)/cpu, 1),
        texts_per_group=round(health['texts']/health['groups'], 2))

def main(args=None):
    p = parser(__doc__, folder=False, out='serving.jsonl', threads=1)
    p.add_argument('model', type=Path, help='Folder of a ULMFiTClassifier')
    p.add_argument('--requests', type=int, default=2000)
    p.add_argument('--clients', type=int, default=8)
    a = p.parse_args(args)
    use_threads(a.threads)
    from ulmfit_nb.estimator import ULMFiTClassifier
    texts = mixed_texts(a.requests)
    want = ULMFiTClassifier.load(a.model, 'cpu').predict_proba(texts).tolist()
    log = Log(a.out)
    for way,n in (('one client', 1), (f'{a.clients} clients', a.clients)):
        log.run(partial(load, a.model, texts, want, n), way=way)

if __name__=='__main__': main()
