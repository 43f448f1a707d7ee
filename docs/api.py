"""The reference pages: every name in a module's `__all__`, with a table of its parameters from their docments.

The docments are read by fastcore. Its own table (`DocmentTbl`) is not used because it leaves out a column that is
empty and a function without comments, and shows Typer's options and default objects by their address in memory.
Sphinx's autodoc is not used because it doesn't know docments. What is written here are Sphinx's Python directives,
so that index, search and the contents on the right come from Sphinx."""
import ast, importlib, inspect, re
from functools import cache, partial
from pathlib import Path
from build import notebooks, page_name, root

modules = [page_name(p) for p in notebooks() if (root/'ulmfit_nb'/f'{page_name(p)}.py').exists()]

values = { # what is no function and no class has no docstring: what it means stands here
    'UNK':'The token that stands for a word outside the vocabulary.', 'PAD':'The token that fills up a batch of '
    'documents of different lengths.',
    'BOS':'The token at the beginning of every text.', 'EOS':'The token at the end of a text; the default rules never '
    'write it.',
    'FLD':'The token before each column where several columns make one text.', 'TK_REP':'The token before a count and '
    'a character that was repeated.',
    'TK_WREP':'The token before a count and a word that was repeated.', 'TK_UP':'The token before a word that was '
    'written in capitals.',
    'TK_MAJ':'The token before a word that began with a capital.', 'text_spec_tok':'The special tokens, in the order '
    'in which they open every vocabulary.',
    'text_proc_rules':'The rules that a text goes through before it is cut into tokens.',
    'text_postproc_rules':'The rules that the tokens go through afterwards.',
    'awd_lstm_lm_config':'Sizes and dropouts of the language model: those of fastai and of the published weights.',
    'awd_lstm_clas_config':"Sizes and dropouts of the classifier's encoder: fastai's.",
    'awd_lstm_compact_config':'A smaller model with as many layers, for a CPU and for the bundled weights.',
    'format_version':'Version of the files that hold a model; a file of a later version is refused.',
    'default_pretrained':'Name of the pretrained model that a learner looks for unless it is told another.',
    'pretrained_urls':'Where pretrained models by these names are downloaded from, and their checksums where there are '
    'any.',
    'sizes':'Sizes of the models that `ulmfit train --size` knows.', 'recipes':'Epochs and rates of gradual '
    'unfreezing, with a pretrained model and without one.',
    'app':'The `ulmfit` command, a Typer application.'}

@cache
def load(module):
    importlib.import_module('ulmfit_nb.all') # methods that a later module patches in are there, too
    return importlib.import_module(f'ulmfit_nb.{module}')

@cache
def tree(module): return ast.parse((root/'ulmfit_nb'/f'{module}.py').read_text(encoding='utf8'))

def ours(f): return (getattr(inspect.unwrap(f), '__module__', None) or '').startswith('ulmfit_nb')

def plain(o): return o.fget if isinstance(o, property) else getattr(o, '__func__', o)

def methods(cls):
    "Names of the public methods that this package defines for `cls`, in the order of the source"
    return [k for k,v in vars(cls).items() if k[0]!="_" and inspect.isfunction(plain(v)) and ours(plain(v))
        and described_itself(plain(v))]

def described_itself(f):
    "Does `f` say anything that the method which it replaces doesn't?"
    return f.__doc__ or any(meant for *_,meant in params(f)[0])

def entries(module):
    "Every name with an entry on the page of `module`: those in `__all__`, and `Class.method`"
    m = load(module)
    own = [f'{n}.{k}' for n in m.__all__ if inspect.isclass(getattr(m, n)) for k in methods(getattr(m, n))]
    return [*m.__all__, *own, *patched(module)]

@cache
def patched(module):
    "Methods that `module` adds to a class of another module, as `Class.method`"
    res = []
    for o in tree(module).body:
        if not isinstance(o, ast.FunctionDef) or o.name[0]=='_' or not any(ast.unparse(d).startswith('patch')
            for d in o.decorator_list):
            continue
        cls = ast.unparse(o.args.args[0].annotation).split('|')[0].strip() if o.args.args and o.args.args[
            0].annotation else None
        if cls and cls[0]!='_' and cls not in load(module).__all__: res.append(f'{cls}.{o.name}')
    return res

def described(module, name):
    "The comment behind the assignment of `name`, where there is one"
    lines = (root/'ulmfit_nb'/f'{module}.py').read_text(encoding='utf8').splitlines()
    m = next((m for l in lines if (m := re.match(rf'{re.escape(name)}\s*=[^#]*#\s*(.+)', l))), None)
    return values.get(name) or (m[1] if m else '')

def show(o):
    "A default or a type as a reader would write it"
    if isinstance(o, str): return repr(o)
    if isinstance(o, partial): return show(o.func)
    if type(o).__module__.startswith('typer'): return '' if o.default is ... else show(o.default)
    if inspect.isclass(o) or inspect.isroutine(o): return o.__name__
    text = ' '.join(repr(o).split())
    return f'{type(o).__name__}()' if text.startswith('<') else text

def type_name(p):
    "The type that the signature states, else that of a default"
    anno,default = p['anno'],p['default']
    if anno is inspect.Parameter.empty or anno is type(None): return ''
    text = anno if isinstance(anno, str) else anno.__name__ if inspect.isclass(anno) and not getattr(anno, '__args__',
        ()) else str(anno)
    return re.sub(r'\b(?:\w+\.)+(?=\w)', '', text)

def cell(text): return ' '.join(str(text).split()).replace('|', '\\|')

def params(f):
    "Rows `(name, type, default, meaning)` of the parameters of `f`, and what it returns"
    from fastcore.docments import docments
    try: d = docments(f, full=True)
    except (ValueError, TypeError): return [],None
    rows,back = [],None
    for k,p in d.items():
        if k=='return':
            back = p
            continue
        if k in ('self','cls'): continue
        star = {2:'*', 4:'**'}.get(int(p.get('kind') or 0), '')
        meant = getattr(p['default'], 'help', None) or p['docment'] or {'*':'More of them.',
            '**':'Passed on.'}.get(star, '')
        default = '' if p['default'] is inspect.Parameter.empty else show(p['default'])
        rows.append((star+k, type_name(p), default, meant))
    return rows,back

def signature(rows): return ', '.join(f'{n}={d}' if d else n for n,_,d,_ in rows)

def code(text): return f'`` {text} ``' if '`' in text else f'`{text}`' if text else ''

def table(rows, back):
    if not rows and not (back and (back['docment'] or type_name(back))): return ''
    if not any(t or d or m for _,t,d,m in rows): rows = [] # the signature has the names
    lines = ['| parameter | type | default | meaning |', '|---|---|---|---|'] if rows else []
    lines += [f'| {code(n)} | {code(cell(t))} | {code(cell(d))} | {cell(m)} |' for n,t,d,m in rows]
    text = '{.params}\n' + '\n'.join(lines) + '\n' if lines else ''
    if back and (back['docment'] or type_name(back)):
        text += f'\n{{.returns}}\n**Returns** {code(type_name(back))} {cell(back["docment"] or "")}\n'
    return text

def docs(o):
    "The docstring of `o`, its own"
    return inspect.cleandoc(getattr(o, '__doc__', '') or '')

def block(kind, module, name, sig, body, n=4, **opts):
    fence = '`'*n
    options = ''.join(f':{k}: {v}\n' for k,v in dict(module=f'ulmfit_nb.{module}', **opts).items())
    return f'{fence}{{py:{kind}}} {name}{sig}\n{options}\n{body}\n{fence}\n'

def links(module, name, o):
    """A link to the source of `o`, in the module that defines it: a method may be patched in by another one than its
    class"""
    from build import source_line
    if ours(plain(o)): module = inspect.unwrap(plain(o)).__module__.split('.')[-1]
    line = source_line(module, name)
    return f'{{.entry}}\n<a href="../source/{module}.html#L-{line}">source</a>\n' if line else ''

def routine(module, name, o, kind='function', n=4, **opts):
    rows,back = params(o)
    return block(kind, module, name, f'({signature(rows)})',
        f'{links(module, name, o)}\n{docs(o)}\n\n{table(rows, back)}', n, **opts)

def value(module, name, o):
    text = show(o) if ours(type(o)) or isinstance(o, (str,int,float,dict)) else ', '.join(map(show, o)) if isinstance(o,
        (list,tuple)) else ''
    lines = re.sub(r"(?<=.{70}[,])[ ]", chr(10), text) if len(text)<80 else wrapped(text)
    lexer = 'text' if '<class' in text else 'python'
    body = f'{described(module, name)}\n\n' + (f'```{lexer}\n{lines}\n```\n' if text else '')
    return block('data', module, name, '', body, 5)

def wrapped(text):
    import textwrap
    return '\n'.join(textwrap.wrap(text, 88, break_long_words=False, break_on_hyphens=False))

def class_params(cls):
    "Rows of the parameters of `cls`, and a sentence in their place where another library's class takes them"
    owner = next(c for c in cls.__mro__ if '__init__' in vars(c))
    if owner is object: return [],''
    return (params(cls)[0],'') if ours(owner) else ([],f"\n\nParameters are those of `{owner.__name__}`.")

def klass(module, name, cls):
    rows,taken = class_params(cls)
    inner = []
    for k in methods(cls):
        o = vars(cls)[k]
        opts = {'classmethod':''} if isinstance(o, classmethod) else {'staticmethod':''} if isinstance(o,
            staticmethod) else {}
        if isinstance(o, property):
            inner.append(block('property', module, f'{name}.{k}', '',
                f'{links(module, f"{name}.{k}", o)}\n{docs(o)}\n', 4))
        else: inner.append(routine(module, f'{name}.{k}', plain(o), 'method', 4, **opts))
    body = f'{links(module, name, cls)}\n{docs(cls)}{taken}\n\n{table(rows, None)}\n' + '\n'.join(inner)
    return block('class', module, name, f'({signature(rows)})', body, 5)

def page(module):
    "The reference page of `module`, as Markdown"
    m = load(module)
    parts = [f'# `ulmfit_nb.{module}`\n\n{{.lead}}\n{docs(m)}\n\n[Read the chapter](../{module}.ipynb) that builds '
        f'this module, or [its source](../source/{module}.md).\n']
    for n in m.__all__:
        o = getattr(m, n)
        if inspect.isclass(o): parts.append(klass(module, n, o))
        elif inspect.isroutine(o) or (callable(o) and hasattr(o, '__wrapped__')): parts.append(routine(module, n, o))
        else: parts.append(value(module, n, o))
    for n in patched(module):
        cls,k = n.split('.')
        home = next((getattr(load(o), cls) for o in modules if hasattr(load(o), cls)), None)
        if home is not None: parts.append(routine(module, n, plain(vars(home).get(k) or getattr(home, k)), 'method', 5))
    return '\n'.join(parts)
