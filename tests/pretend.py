"""A graphics card for machines without one: tensors of the CPU that behave as if they were on `cuda`.

Within `with Card() as card:` a tensor that is sent to `cuda` is marked, and so is all that is computed from it. An
operation that mixes marked and other tensors raises, as it does on a card. `card.waits` counts the places where the
host would have to wait for the card: reading a number, copying between the two but for pinned memory with
`non_blocking`, operations whose result's shape depends on values. The LSTM is cuDNN's in what it does to precision:
under autocast it runs in float16, whatever autocast says; elsewhere in the type of its inputs, float32 with the ten
bits of TF32. Kernels are the CPU's: speed, memory and streams are not rehearsed."""
import sys, torch
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

cuda = torch.device('cuda', 0)

def on_card(t):
    "Is `t` a tensor that was sent to the card?"
    try: return isinstance(t, Tensor) and getattr(t.untyped_storage(), 'on_card', False)
    except (RuntimeError,NotImplementedError): return False # no storage, as in oneDNN's layout

def put(t, where=True):
    "Mark the memory of `t` as the card's, or the host's"
    try: t.untyped_storage().on_card = where
    except (RuntimeError,NotImplementedError): pass
    return t

def _kind(device):
    return None if device is None else torch.device(device).type if not isinstance(device, int) else 'cuda'

def _place():
    "Where in the package or in fastai the present operation was asked for"
    f = sys._getframe(1)
    while f:
        p = Path(f.f_code.co_filename)
        if p.parent.name in ('ulmfit_nb','tools') or 'fastai' in p.parts: return f'{p.name}:{f.f_lineno}'
        f = f.f_back
    return 'elsewhere'

class _Move(torch.autograd.Function):
    "A copy on the other side, whose gradient comes back"
    @staticmethod
    def forward(ctx, x, to_card):
        ctx.to_card = to_card
        return put(x.clone(), to_card)
    @staticmethod
    def backward(ctx, g): return put(g.clone(), not ctx.to_card),None

class _Generator(torch.Generator):
    def __new__(cls, device='cpu'):
        res = super().__new__(cls, 'cpu')
        res.on_card = _kind(device)=='cuda'
        return res

class _Calls(TorchFunctionMode):
    "What Python code asks of tensors: where they are, to be moved, to be made on the card"
    def __init__(self, card):
        super().__init__()
        self.card = card
        self.own = {Tensor.to:self.to, Tensor.cuda:lambda x, *a, **k: self.move(x, 'cuda', False),
            Tensor.cpu:lambda x: self.move(x, 'cpu', False),
            Tensor.pin_memory:self.pin, Tensor.is_pinned:lambda x: getattr(x.untyped_storage(), 'pinned', False),
            Tensor.tolist:self.tolist,
            Tensor.device.__get__:lambda x, *a: cuda if on_card(x) else Tensor.device.__get__(x),
            Tensor.is_cuda.__get__:lambda x, *a: on_card(x),
            Tensor.is_cpu.__get__:lambda x, *a: not on_card(x), Tensor.numpy:self.numpy, Tensor.__array__:self.array,
            Tensor.__deepcopy__:self.deepcopy}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.own: return self.own[func](*args, **kwargs)
        name = getattr(func, '__name__', '')
        if name=='lstm' and on_card(args[0]): return self.card._lstm(func, *args)
        if name=='pad_sequence' and on_card(args[0][0]):
            with self.card.not_counting():
                return put(func(*args, **kwargs)) # made inside of C++ without a word of where
        gen = kwargs.get('generator')
        if gen is not None and args and isinstance(args[0], Tensor) and getattr(gen, 'on_card',
            False)!=on_card(args[0]):
            raise RuntimeError(f"Expected a '{'cuda' if on_card(args[0]) else 'cpu'}' device type for generator in "
                f"{name}, at {_place()}")
        if kwargs.get('device') is None or name=='_parse_to': return func(*args, **kwargs)
        return self.made(func, name, args, dict(kwargs))

    def made(self, func, name, args, kwargs):
        "A new tensor, where it was asked for"
        there,x = _kind(kwargs.pop('device'))=='cuda',args[0] if args else None
        if isinstance(x, Tensor) and name in ('as_tensor','tensor'):
            return self.move(func(x, **kwargs), 'cuda' if there else 'cpu', False)
        res = func(*args, **kwargs, device='cpu')
        if not isinstance(res, Tensor): return res
        if there and name in ('as_tensor','tensor'):
            self.card._wait('to the card')
            res = res.clone() # as_tensor shares the memory of an array
        return put(res, there)

    def to(self, x, *args, **kwargs):
        args,device,rest = list(args),kwargs.pop('device', None),[]
        non_blocking,_ = kwargs.pop('non_blocking', False),kwargs.pop('copy', None)
        if args and isinstance(args[0], Tensor):
            device,args = 'cuda' if on_card(args[0]) else 'cpu',[args[0].dtype,*args[1:]]
        for o in args:
            if isinstance(o, (str,torch.device,int)) and not isinstance(o, bool): device = o
            elif isinstance(o, bool): non_blocking = o
            elif o is not None: rest.append(o)
        y = x.to(*rest, **kwargs) if rest or kwargs else x
        return self.move(y, _kind(device), non_blocking)

    def move(self, x, to, non_blocking):
        if to is None or (to=='cuda')==on_card(x): return x
        if not (to=='cuda' and non_blocking and getattr(x.untyped_storage(), 'pinned', False)):
            self.card._wait('to the card' if to=='cuda' else 'to the host')
        with self.card.not_counting():
            return _Move.apply(x, to=='cuda') if x.requires_grad and torch.is_grad_enabled() else put(x.clone(),
                to=='cuda')

    def pin(self, x, *a):
        if on_card(x):
            raise RuntimeError("cannot pin 'torch.cuda.LongTensor': only dense CPU tensors can be pinned, at "
                f"{_place()}")
        res = x.clone()
        res.untyped_storage().pinned = True
        return res

    def host(self, x, what):
        if on_card(x): raise TypeError(f"can't convert cuda:0 device type tensor to numpy: {what} at {_place()}")
        return x
    def numpy(self, x, **k): return self.host(x, 'numpy').numpy(**k)
    def array(self, x, *a, **k): return self.host(x, '__array__').__array__(*a, **k)
    def tolist(self, x): return self.move(x.detach(), 'cpu', False).tolist()
    def deepcopy(self, x, memo): return put(Tensor.__deepcopy__(x, memo), on_card(x))

waiting = {'_local_scalar_dense','nonzero','masked_select','equal','bincount','_unique2','unique_dim',
    'unique_consecutive'}
indexing = {'index','index_put','index_put_','_index_put_impl_','_unsafe_index','_unsafe_index_put'}

class _Operations(TorchDispatchMode):
    "Every operation, those of the backward pass too: all of its tensors are on one side, and what comes out is there"
    def __init__(self, card):
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ts = [o for o in tree_leaves((args,kwargs)) if isinstance(o, Tensor)]
        there = [on_card(o) for o in ts]
        if not any(there): return func(*args, **kwargs)
        name = func._schema.name.removeprefix('aten::')
        if not all(there): self.check(name, ts, there, args, kwargs)
        self.count(name, args, kwargs)
        out = func(*args, **kwargs)
        if name!='copy_' or there[0]:
            for o in tree_leaves(out):
                if isinstance(o, Tensor): put(o)
        return out

    def check(self, name, ts, there, args, kwargs):
        "Raise as a card would, where tensors of both sides meet"
        if name=='copy_':
            free = there[0] and (args[2] if len(args)>2
                else kwargs.get('non_blocking')) and getattr(ts[1].untyped_storage(), 'pinned', False)
            return None if free else self.card._wait('to the card' if there[0] else 'to the host')
        if name in indexing and there[0]: # an index on the host is taken over
            values = args[2:3] if len(args)>2 else ()
            if all(on_card(o) or not o.ndim for o in values if isinstance(o, Tensor)):
                return self.card._wait('index to the card')
        elif all(o.ndim==0 or t for o,t in zip(ts, there)) and not (name.endswith('_') and not there[0]):
            return # a number on the host may join
        shapes = ', '.join(f"{tuple(o.shape)} on {'cuda' if t else 'cpu'}" for o,t in zip(ts, there))
        raise RuntimeError(f'Expected all tensors to be on the same device: {name} of {shapes}, at {_place()}')

    def count(self, name, args, kwargs):
        self.card.operations[name] += 1
        if name in waiting or name=='repeat_interleave' and kwargs.get('output_size') is None: self.card._wait(name)
        if name in indexing and any(isinstance(o, Tensor) and o.dtype in (torch.bool,torch.uint8) for o in args[1]
            or ()):
            self.card._wait('boolean index')

class Card:
    "A pretended card, whose waits are counted"
    def __init__(self, bf16=True, cudnn=91300): self.bf16,self.cudnn,self.counting,self.as_it_is = bf16,cudnn,True,False

    @contextmanager
    def _as_it_is(self):
        was,self.as_it_is = self.as_it_is,True
        try: yield
        finally: self.as_it_is = was

    def reset(self): self.waits,self.operations,self.lstms = Counter(),Counter(),Counter()

    def _wait(self, what):
        if self.counting: self.waits[f'{what}, {_place()}'] += 1

    @contextmanager
    def not_counting(self):
        was,self.counting = self.counting,False
        try: yield
        finally: self.counting = was

    def _lstm(self, func, x, hx, ws, *args):
        "cuDNN's LSTM, as far as devices and precision go"
        ts = [x, *hx, *ws]
        if not all(map(on_card, ts)):
            raise RuntimeError(f'Input and parameter tensors are not at the same device, at {_place()}')
        auto = torch.is_autocast_enabled('cuda')
        if not auto and len({o.dtype for o in ts})>1:
            raise ValueError(f'RNN input and hidden state dtypes differ: {[o.dtype for o in ts]}, at {_place()}')
        dtype = torch.float16 if auto else x.dtype
        self.lstms[dtype] += 1
        def rounded(o): return (o.to(dtype) if dtype!=torch.float32 else _tf32(o)).float()
        with torch.autocast('cuda', enabled=False):
            res = func(rounded(x), [rounded(o) for o in hx], [rounded(o) for o in ws], *args)
        return tuple(o.to(dtype) for o in res)

    def __enter__(self):
        self.reset()
        self.stack = stack = ExitStack()
        real,on,dt = torch.autocast,torch.is_autocast_enabled,torch.get_autocast_dtype
        class autocast(real): # the CPU's stands in for the card's; the CPU's own is off
            def __init__(auto, device_type, dtype=None, enabled=True, cache_enabled=None):
                there = device_type=='cuda'
                with self._as_it_is():
                    super().__init__('cpu', dtype or (torch.float16 if there else None), enabled and there,
                        cache_enabled)
            def __enter__(auto):
                with self._as_it_is(): return super().__enter__()
            def __exit__(auto, *a):
                with self._as_it_is(): return super().__exit__(*a)
        def enabled(d='cuda'): return on('cpu') if self.as_it_is else d=='cuda' and on('cpu')
        group = torch._C._group_tensors_by_device_and_dtype
        def grouped(lists, with_indices=False):
            return {(next(o.device for o in ts[0] if o is not None),k[1]):(ts,i) for k,
                (ts,i) in group(lists, with_indices).items()}
        now = [(torch.cuda, dict(is_available=lambda: True, current_device=lambda: 'cuda:0', device_count=lambda: 1,
            get_device_name=lambda *a: 'a pretended card',
                is_bf16_supported=lambda *a, **k: self.bf16, get_device_capability=lambda *a: (9,0) if self.bf16
                else (7,5), mem_get_info=lambda *a: (int(7e10),int(8e10)),
                get_rng_state_all=lambda: [torch.zeros(16, dtype=torch.uint8)], set_rng_state_all=lambda s: None,
                synchronize=lambda *a: self._wait('synchronize'),
                max_memory_allocated=lambda *a: 0, reset_peak_memory_stats=lambda *a: None, empty_cache=lambda: None,
                manual_seed_all=lambda s: None)),
            (torch, dict(autocast=autocast, Generator=_Generator, is_autocast_enabled=enabled,
            get_autocast_dtype=lambda d: dt('cpu' if d=='cuda' else d))),
            (torch.amp, dict(autocast=autocast)), (torch.amp.autocast_mode, dict(autocast=autocast)),
            (torch._C, dict(_group_tensors_by_device_and_dtype=grouped)),
            (torch.backends.cudnn, dict(version=lambda: self.cudnn, is_acceptable=lambda t: False))]
        import fastai.callback.fp16 as fp16, safetensors.torch as files
        load_file = files.load_file
        def loaded(fname, device='cpu'): return {k:o.to(device) for k,o in load_file(fname).items()}
        now += [(fp16, dict(autocast=autocast)), (files, dict(load_file=loaded))]
        for place,names in now:
            for k,v in names.items(): stack.enter_context(patch.object(place, k, v))
        stack.enter_context(_Operations(self))
        stack.enter_context(_Calls(self))
        return self

    def __exit__(self, *a):
        torch.set_autocast_enabled('cpu', False) # which a training that failed may have left on
        return self.stack.__exit__(*a)

class _Tf32(torch.autograd.Function):
    "A float32 with the ten bits of mantissa that TF32 keeps"
    @staticmethod
    def forward(ctx, x): return (x.detach().clone().view(torch.int32) & -8192).view(torch.float32)
    @staticmethod
    def backward(ctx, g): return g
def _tf32(x): return _Tf32.apply(x) if x.dtype==torch.float32 else x
