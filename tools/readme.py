"Write README.md from nbs/index.ipynb: its text, its code and what the code printed"
import json, re
from pathlib import Path

root = Path(__file__).resolve().parent.parent

def directives(src):
    "The nbdev directives that open a cell, and the code below them"
    lines = src.splitlines()
    n = next((i for i,l in enumerate(lines) if not l.startswith('#|')), len(lines))
    return [l[2:].strip() for l in lines[:n]],'\n'.join(lines[n:]).strip()

def output(o):
    "An output as Markdown: its own Markdown, else its text in a block"
    data = o.get('data', {})
    if 'text/markdown' in data: return ''.join(data['text/markdown']).strip()
    text = re.sub(r'\x1b\[[0-9;]*m', '', ''.join(o.get('text') or data.get('text/plain') or '')).rstrip()
    return f'```\n{text}\n```' if text else ''

def render(nb):
    "The notebook `nb` (as parsed JSON) as Markdown that stands in the repository's root"
    parts = []
    for c in nb['cells']:
        flags,src = directives(''.join(c['source']))
        if 'hide' in flags or not src: continue
        if c['cell_type']=='markdown':
            parts.append(re.sub(r'\]\(((?:\w+/)?[\w-]+\.ipynb)', r'](nbs/\1', src).replace('](../', ']('))
        elif c['cell_type']=='code':
            if 'echo: false' not in flags: parts.append(f'```python\n{src}\n```')
            parts += filter(None, map(output, c['outputs']))
    head = '<!-- Made from nbs/index.ipynb by `make readme`: edit it there -->\n\n'
    return head + '\n\n'.join(parts) + '\n'

def readme(): return render(json.loads((root/'nbs'/'index.ipynb').read_text(encoding='utf8')))

if __name__=='__main__': (root/'README.md').write_text(readme(), encoding='utf8')
