"""The first ten minutes on a graphics card: what has to hold there, from the versions to a step at full size, each
with its verdict and figures.

    python tools/first_gpu_run.py --out first_gpu_run                    # everything, on bundled sentences
    # the last steps on real reviews: FOLDER holds train, test and unsup as JSON lines
    python tools/first_gpu_run.py --out first_gpu_run --imdb FOLDER
    python tools/first_gpu_run.py --out first_gpu_run --only losses full # some steps alone

Every step is a line of OUT/log.jsonl, written when it is over: `verdict` is `ok`, `failed` (with the error) or
`skipped` (with the reason), and figures. The steps go on after one that failed; the exit code says whether any did.
Without a card the same steps run on the CPU at sizes that take a minute or two, and what says nothing there is
skipped."""
import argparse, gc, json, lzma, math, signal, subprocess, sys, time, traceback, warnings
from importlib.metadata import version
from pathlib import Path
import numpy as np, torch
from fastai.basics import Callback, CancelFitException, DataLoaders, set_seed
import ulmfit_nb.generation # gives language models `generate`
from ulmfit_nb.awd_lstm import AWD_LSTM, WeightDropLSTM, awd_lstm_lm_config, get_language_model
from ulmfit_nb.batching import LMDataLoader
from ulmfit_nb.files import read_meta
from ulmfit_nb.inference import best_precision, has_bf16, pick_device
from ulmfit_nb.language_model import language_model_learner, load_language_model
from ulmfit_nb.pretraining import lm_loss
from ulmfit_nb.texts import sentences

experiments = Path(__file__).resolve().parent.parent/'experiments'

class Skip(Exception): "A step that says nothing here"

def learner(device, vocab_sz, config, bs, seq_len, n_tokens, drop_mult=1., seed=0):
    "A language model of random weights, and text in which the next word depends on the last ones"
    rng = np.random.default_rng(seed)
    words = rng.zipf(1.3, n_tokens)%vocab_sz
    words[1::2] = (words[::2][:len(words[1::2])]*7+3)%vocab_sz # every other word follows from the one before
    ids = torch.from_numpy(words.astype(np.int64))
    cut = max(bs*seq_len, n_tokens//20)
    dls = DataLoaders(LMDataLoader([ids[cut:]], bs=bs, seq_len=seq_len, device=device),
        LMDataLoader([ids[:cut]], bs=bs, seq_len=seq_len, device=device), device=device)
    dls.vocab = [str(i) for i in range(vocab_sz)]
    set_seed(seed)
    return language_model_learner(dls, AWD_LSTM, config=config, drop_mult=drop_mult, pretrained=False)

def quietly(learn, f):
    with learn.no_bar(), learn.no_logging(): f()

class Watch(Callback):
    "Time, tokens and gradients of each step, after so many to warm up"
    order,run_valid = 11,False
    def __init__(self, steps, warm=3): self.steps,self.warm = steps,warm
    def before_fit(self): self.n,self.tokens,self.start,self.norms,self.zeros = 0,0,None,{},{}
    def before_step(self): # after the scaler has taken its factor out
        if self.n<self.warm: return
        for k,p in self.model.named_parameters():
            if p.grad is not None and 'weight_ih' in k: # of which none is dropped
                self.norms.setdefault(k, []).append(p.grad.float().norm())
                self.zeros.setdefault(k, []).append((p.grad==0).float().mean())
    def after_batch(self):
        self.n,self.loss = self.n+1,self.learn.loss.detach()
        if self.n==self.warm: self.start = self.now()
        if self.n>self.warm: self.tokens += self.x.numel()
        if self.n>=self.warm+self.steps:
            self.seconds = self.now()-self.start
            raise CancelFitException
    def now(self):
        if self.x.is_cuda: torch.cuda.synchronize()
        return time.perf_counter()
    def figures(self):
        def last(d): return {k.split('.')[2]:float(v[-1]) for k,v in d.items()}
        return dict(tokens_per_second=round(self.tokens/self.seconds), gradient_norms=last(self.norms),
            zero_gradients=last(self.zeros), loss=float(self.loss))

class Run:
    "The steps, in their order"
    def __init__(self, out, imdb=None):
        self.out,self.imdb,self.device = Path(out).absolute(),imdb,pick_device()
        self.gpu = self.device.type=='cuda'
        self.out.mkdir(parents=True, exist_ok=True)

    def formats(self): return ['fp32','fp16','bf16'] if self.gpu else ['fp32','bf16']
    def dtype(self, precision): return dict(fp16=torch.float16, bf16=torch.bfloat16).get(precision)

    def versions(self):
        p = torch.cuda.get_device_properties(0) if self.gpu else None
        card = dict(gpu=p.name, memory_gb=round(p.total_memory/1e9, 1),
            capability=f'{p.major}.{p.minor}') if self.gpu else dict(gpu=None)
        return dict({o:version(o) for o in ('ulmfit-nb','torch','fastai','numpy')}, python=sys.version.split()[0],
            cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(), **card,
            has_bf16=has_bf16(self.device), best_precision=best_precision(self.device),
            tf32=torch.backends.cudnn.allow_tf32)

    def lstm_dtype(self):
        "In what an LSTM computes under autocast: PyTorch's own, and ours"
        res,x = {},torch.randn(4, 10, 32, device=self.device)
        state = [torch.zeros(1, 4, 32, device=self.device) for _ in range(2)]
        for name,layer in (('torch', torch.nn.LSTM(32, 32, batch_first=True)),
            ('ours', WeightDropLSTM(32, 32, weight_p=.1))):
            for k in self.formats()[1:]:
                with torch.autocast(self.device.type, dtype=self.dtype(k)):
                    res[f'{name} {k}'] = str(layer.to(self.device)(x, state)[0].dtype).removeprefix('torch.')
        if self.gpu:
            right = res['ours fp16']=='float16' and res['ours bf16']=='bfloat16'
            assert right, f'the LSTM is not in the format that was asked for: {res}'
        return res

    def bf16_lengths(self):
        "bfloat16 batches of changing lengths and rows, against float32; cuDNN has nothing to complain about"
        torch.manual_seed(0)
        layer,worst = WeightDropLSTM(400, 1152 if self.gpu else 200, weight_p=0.).to(self.device),0.
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            for bs,n in ((64,70), (64,69), (17,72), (3,1), (1,500), (128,5)):
                x = torch.randn(bs, n, 400, device=self.device)
                state = [torch.zeros(1, bs, layer.hidden_size, device=self.device) for _ in range(2)]
                want = layer(x, state)[0]
                with torch.autocast(self.device.type, dtype=torch.bfloat16): got = layer(x, state)[0]
                got.float().mean().backward()
                worst = max(worst, (got.detach().float()-want.detach()).abs().max().item())
        assert worst<.05, f'bfloat16 is {worst:.3g} away from float32'
        return dict(worst_difference=worst)

    def gradients(self):
        "Gradients of a small language model here, against the CPU's in float32"
        torch.manual_seed(0)
        config = dict(awd_lstm_lm_config, emb_sz=100, n_hid=200)
        model = get_language_model(AWD_LSTM, 2000, config=config, drop_mult=0.)
        x,y = (torch.randint(0, 2000, (16, 40)) for _ in range(2))
        def grads(device, precision, scale=1.):
            model.to(device).zero_grad()
            model.reset()
            with torch.autocast(device.type, dtype=self.dtype(precision), enabled=precision!='fp32'):
                loss = torch.nn.functional.cross_entropy(model(x.to(device))[0].float().flatten(0, 1),
                    y.to(device).flatten())
            (loss*scale).backward()
            return {k:p.grad.float().cpu()/scale for k,p in model.named_parameters()}
        want,res = grads(torch.device('cpu'), 'fp32'),{}
        for k in self.formats():
            got = grads(self.device, k, 1024. if k=='fp16' else 1.)
            res[k] = max(float((got[n]-w).norm()/w.norm()) for n,w in want.items())
            assert res[k]<(.02 if k=='fp32' else .15), f'{k}: gradients differ by {res[k]:.3g} of their length'
        return dict(relative_difference=res)

    def losses(self):
        "The same training in each format"
        config,size,res = dict(emb_sz=32, n_hid=48),dict(vocab_sz=200, bs=8, seq_len=20, n_tokens=16_000),{}
        if self.gpu:
            config,size = dict(emb_sz=200, n_hid=400),dict(vocab_sz=5000, bs=32, seq_len=50, n_tokens=400_000)
        for k in self.formats():
            learn = learner(self.device, config=config, drop_mult=.1, **size).to_precision(k)
            quietly(learn, lambda: learn.fit_one_cycle(1, 1e-2))
            res[k] = lm_loss(learn, learn.dls.valid)
        start = math.log(size['vocab_sz'])
        assert max(res.values())<start-.2, f'nothing was learned: losses {res}, at the start {start:.3f}'
        assert max(res.values())-min(res.values())<.1, f'the formats end apart: {res}'
        return dict(valid_loss=res)

    def pretrain(self):
        "`ulmfit pretrain`, interrupted and called again, then used"
        file,out = self.out/'texts.jsonl',self.out/'pretrained'
        file.write_text('\n'.join(json.dumps(dict(text=o)) for o in sentences().text[:1500 if self.gpu else 400]),
            encoding='utf8')
        size,epochs = ('compact','8') if self.gpu else ('tiny','3')
        args = [sys.executable, '-W', 'ignore', '-m', 'ulmfit_nb', 'pretrain', str(file), '--out', str(out),
            '--size', size, '--vocab-sz', '2000', '--bs', '16', '--seq-len', '20', '--epochs', epochs,
            '--log-every', '5', '--checkpoint', '.2', '--device', str(self.device)]
        log = out/'log.jsonl'
        def lines(): return [json.loads(o) for o in log.read_text(encoding='utf8').splitlines()] if log.exists() else []
        p = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while p.poll() is None and len(lines())<3: time.sleep(.05)
        stopped = p.poll() is None
        if stopped: p.send_signal(signal.SIGINT)
        errors = p.communicate(timeout=120)[1]
        assert stopped or not p.returncode, errors[-2000:]
        done = subprocess.run(args, capture_output=True, text=True, timeout=300)
        assert not done.returncode, done.stderr[-2000:]
        again = subprocess.run(args, capture_output=True, text=True, timeout=300) # finds that all is done
        assert not again.returncode, again.stderr[-2000:]
        learn = load_language_model(out/'model')
        assert not stopped or any(o.get('event')=='resumed' for o in lines()), 'it began anew'
        return dict(interrupted=stopped, **{k:read_meta(out/'model'/'model.json')['pretraining'][k]
            for k in ('valid_loss','tokens','seconds')}, writes=learn.generate(['the food'], 8, seed=1)[0])

    def reviews(self):
        "The folder of reviews, or bundled sentences in its place"
        if self.imdb: return Path(self.imdb)
        d = self.out/'reviews'
        d.mkdir(exist_ok=True)
        df = sentences().sample(frac=1, random_state=0)
        for i,(name,labelled) in enumerate((('train',True), ('test',True), ('unsup',False))):
            rows = [dict(id=k, label=r.label[:3] if labelled else 'unsup', rating=0, movie=f'{name}{k//4}', text=r.text)
                for k,r in enumerate(df[i*400:(i+1)*400].itertuples())]
            with lzma.open(d/f'{name}.jsonl.xz', 'wt', encoding='utf8') as f: f.write('\n'.join(map(json.dumps, rows)))
        return d

    def script(self, name, out, *more):
        "A script of `experiments`, and the lines of its log"
        args = [sys.executable, '-W', 'ignore', str(experiments/name), str(self.reviews()), '--out', str(out), *more]
        r = subprocess.run(args, capture_output=True, text=True, timeout=900)
        assert not r.returncode, r.stderr[-2000:]
        log = out if out.suffix=='.jsonl' else out/'log.jsonl'
        return [json.loads(o) for o in log.read_text(encoding='utf8').splitlines()]

    def imdb_small(self):
        "experiments/imdb.py --small: every step from reviews to classifiers"
        rows = self.script('imdb.py', self.out/'imdb', '--pretrained', 'none', '--small', '--lm-epochs', '1')
        return dict(jobs=[o['job'] for o in rows], device=rows[-2].get('device'),
            seconds_of=[o['seconds'] for o in rows])

    def full(self):
        "Twenty steps of the full model, 256 rows of 70 tokens, in both formats of 16 bits"
        config = dict(awd_lstm_lm_config) if self.gpu else dict(emb_sz=40, n_hid=80)
        size = dict(vocab_sz=500, bs=8, seq_len=20, n_tokens=8*20*12)
        if self.gpu: size = dict(vocab_sz=30000, bs=256, seq_len=70, n_tokens=256*70*30)
        res = {} if self.gpu else dict(note='no card: a small model, five steps')
        for k in self.formats()[1:]:
            gc.collect()
            if self.gpu: torch.cuda.reset_peak_memory_stats()
            learn,watch = learner(self.device, config=config, **size).to_precision(k),Watch(20 if self.gpu else 5)
            quietly(learn, lambda: learn.fit(1, 1e-3, cbs=watch))
            res[k] = watch.figures()
            if self.gpu: res[k]['peak_gb'] = round(torch.cuda.max_memory_allocated()/1e9, 2)
            zero = max(res[k]['zero_gradients'].values())
            loss = res[k]['loss']
            assert math.isfinite(loss) and zero<.2, f'{k}: {zero:.0%} of the gradients of an LSTM are zero, loss {loss}'
            del learn,watch
        return res

    def beside_fastai(self):
        "experiments/side_by_side.py on this card"
        real = self.gpu and self.imdb
        rows = self.script('side_by_side.py', self.out/'side_by_side.jsonl',
            *(['--texts', '4000', '--labelled', '1500', '--epochs', '1'] if real else ['--small']))
        res = {f"{o['job']}: {o['side']}":dict(tokens_per_second=round(o['tokens_per_second']),
            valid_loss=o['valid_loss'][-1], peak_gb=o['peak_gb']) for o in rows if o['job']!='profile'}
        if not real: res['note'] = 'bundled sentences and a small model: speeds say nothing. Give --imdb FOLDER'
        return dict(res, milliseconds=rows[-1]['milliseconds'])

steps = ['versions','lstm_dtype','bf16_lengths','gradients','losses','pretrain','imdb_small','full','beside_fastai']
needs_gpu = dict(lstm_dtype='on a CPU PyTorch chooses as asked')

def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=Path('first_gpu_run'))
    p.add_argument('--imdb', type=Path, help='Folder of reviews')
    p.add_argument('--only', nargs='+', choices=steps, default=steps)
    a = p.parse_args(args)
    run,failed = Run(a.out, a.imdb),False
    print(f'on {torch.cuda.get_device_name() if run.gpu else "the CPU: no card was found"}; log in '
        f'{run.out/"log.jsonl"}', flush=True)
    for name in [o for o in steps if o in a.only]:
        start,row = time.perf_counter(),dict(step=name, device=str(run.device))
        try:
            if not run.gpu and name in needs_gpu: raise Skip(needs_gpu[name])
            row.update(verdict='ok', **getattr(run, name)())
        except Skip as e: row.update(verdict='skipped', why=str(e))
        except Exception as e:
            row.update(verdict='failed', error=f'{type(e).__name__}: {e}', trace=traceback.format_exc()[-3000:])
        row['seconds'],failed = round(time.perf_counter()-start, 1),failed or row['verdict']=='failed'
        with open(run.out/'log.jsonl', 'a', encoding='utf8') as f: f.write(json.dumps(row)+'\n')
        print(f"{row['verdict']:8} {name:14} {row['seconds']:6.1f} s  "
            + json.dumps({k:v for k,v in row.items() if k not in ('step','device','verdict','seconds','trace')})[:600],
            flush=True)
    raise SystemExit(int(failed))

if __name__=='__main__': main()
