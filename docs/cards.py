"""A page for each pretrained model that comes with the package, from its model.json: nothing in it is written by hand
here, and no extension of Sphinx reads that file"""
import json, re
from pathlib import Path

def cell(o):
    "The value `o` as the text of a table's cell, its Markdown marks taken literally"
    if isinstance(o, bool): return 'yes' if o else 'no'
    if isinstance(o, (int,float)):
        return f'{o:,.0f}' if abs(o)>=10_000 else f'{o:.4g}' if isinstance(o, float) else str(o)
    if isinstance(o, (list,tuple)): return ', '.join(map(cell, o))
    return re.sub(r'([\\`*_\[\]<>|$])', r'\\\1', ' '.join(str(o).split()))

def words(k): return k.replace('_', ' ')

def grid(heads, rows): return '\n'.join(f"| {' | '.join(r)} |" for r in [heads, ['---']*len(heads), *rows]) + '\n'

def tables(d, depth=2, name=words):
    """Markdown of the nested dict `d`: plain values as one table, dicts alike as rows of one table, others as sections
    of their own"""
    def nested(v): return isinstance(v, dict) or (isinstance(v, list) and v and all(isinstance(o, dict) for o in v))
    parts = []
    if plain := {k:v for k,v in d.items() if not nested(v) and v not in ('', ' ', None, [])}:
        parts.append(grid(['field','value'], [[name(k),cell(v)] for k,v in plain.items()]))
    for k,v in d.items():
        if not nested(v) or not v: continue
        rows = [dict({'':i}, **o) for i,o in v.items()] if isinstance(v,
            dict) and all(isinstance(o, dict) and not any(map(nested, o.values())) for o in v.values()) else v
        if isinstance(rows, list):
            heads = list(dict.fromkeys(h for o in rows for h in o))
            if len(heads)>5 and heads[0]=='':
                # too wide: turned over
                rows,heads = [{'':name(h), **{o['']:o.get(h, '') for o in rows}} for h in heads[1:]],['',
                    *(o[''] for o in rows)]
            parts.append(f'{"#"*depth} {words(k).capitalize()}\n\n'
                + grid(list(map(name, heads)), [[cell(o.get(h, '')) for h in heads] for o in rows]))
        else: parts.append(f'{"#"*depth} {words(k).capitalize()}\n\n{tables(v, depth+1, name)}')
    return '\n\n'.join(parts)

def card(folder):
    "The page of the model in `folder`, as Markdown"
    meta = json.loads((Path(folder)/'model.json').read_text(encoding='utf8'))
    about = dict(meta.pop('card', None) or {})
    what,name = about.pop('what', ''),about.pop('name', Path(folder).name)
    meta['vocabulary'] = len(meta.pop('vocab', ()))
    tokenizer = meta.get('tokenizer')
    if isinstance(tokenizer, dict): meta['tokenizer'] = {k:v for k,v in tokenizer.items() if k!='special_toks'}
    if stored := meta.pop('stored_as', None):
        meta['stored_as'] = sorted(set(stored.values())) # a word for every tensor is too many
    meta.pop('tied', None)
    if about: meta.pop('pretraining', None) # the card has it
    readme = Path(folder)/'README.md'
    more = re.sub(r'^# .*\n', '', readme.read_text(encoding='utf8')).strip() if readme.exists() else ''
    said = tables(
        about) if about else 'This model brings no description of its data, its licence and its results along.'
    return (f'# {name}\n\n{{.lead}}\n{cell(what) or "A pretrained language model."}\n\n{said}\n\n{more}\n\n## What the '
        f'file says\n\n{tables(meta, 3, lambda k: f"`{k}`" if k else "")}')

def cards(folder):
    "Pages by name of the models below `folder`"
    return {p.parent.name:card(p.parent) for p in sorted(Path(folder).glob('*/model.json'))}

def listing(pages):
    "What the page of all models says: a link and a line for each, or that there is none"
    if not pages:
        return ('This build of the package brings no pretrained model along: a learner says so once, and starts from '
            'random weights. [Make your own](pretraining.ipynb), and put its folder where a learner looks for it.')
    lead = lambda p: p.split('{.lead}\n', 1)[1].split('\n', 1)[0]
    return '\n'.join(f'- [{k}](models/{k}.md): {lead(v)}' for k,v in pages.items())
