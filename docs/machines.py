"""What machines read: every page as plain Markdown beside its HTML, and llms.txt that lists them. Sphinx has a builder
for plain text, but none for Markdown; notebooks are Markdown already"""
import json, re
from pathlib import Path
from bs4 import BeautifulSoup

def said(cell): return ' '.join(cell.get_text(' ').split()).replace('|', '\\|')

def grid(rows):
    "The texts of a table's rows, one for each column; a cell that reaches down or to the right leaves blanks there"
    res,reach = [],{} # by column: rows that a cell from above still takes
    for tr in rows:
        row,new = [],tr(['th','td'])[::-1]
        while new or reach.get(len(row)):
            if reach.get(len(row)):
                reach[len(row)] -= 1
                row.append('')
                continue
            o = new.pop()
            for i in range(int(o.get('colspan', 1))):
                reach[len(row)] = int(o.get('rowspan', 1))-1
                row.append('' if i else said(o))
        res.append(row)
    return res

def table(html):
    "An HTML table as Markdown; several lines of headings become one"
    head = html.select('thead tr')
    rows,head = grid(o for o in html('tr') if o not in head),grid(head)
    n = max(map(len, head+rows))
    names = [' '.join(filter(None, o)) for o in zip(*(o+['']*(n-len(o)) for o in head))] or ['']*n
    lines = [names, ['---']*n, *(o+['']*(n-len(o)) for o in rows)]
    return '\n'.join(f"| {' | '.join(o)} |" for o in lines)

def text(o, alt=''):
    "A stored output as Markdown; of a picture, what it shows"
    data = o.get('data', {})
    if 'text/markdown' in data: return ''.join(data['text/markdown'])
    if 'text/html' in data:
        html = BeautifulSoup(''.join(data['text/html']), 'html.parser')
        for o in html(['style','script']): o.decompose()
        if tables := html('table'): return '\n\n'.join(map(table, tables))
        return ' '.join(html.get_text().split())
    body = ''.join(o.get('text') or data.get('text/plain') or '').rstrip()
    if alt and any(k.startswith('image/') for k in data): return f'[Picture: {alt}]'
    return '' if not body or body.startswith(('<Figure','<IPython')) else f'```\n{body}\n```'

def alt(cell): return cell['metadata'].get('mystnb', {}).get('image', {}).get('alt', '')

def notebook(path):
    parts = []
    for c in json.loads(path.read_text(encoding='utf8'))['cells']:
        source = ''.join(c['source']).strip()
        if c['cell_type']=='markdown': parts.append(source)
        else: parts += [f'```python\n{source}\n```', *(text(o, alt(c)) for o in c['outputs'])]
    return '\n\n'.join(filter(None, parts))

def clean(md):
    "Markdown without what only Sphinx understands; links lead to the Markdown pages"
    def picture(m):
        return ' '.join(['[Picture:', *re.findall(r'<title>(.*?)</title><desc>(.*?)</desc>',
            m[0])[0]]) + ']' if '<title>' in m[0] else ''
    md = re.sub(r'^(`{3,})\{raw\} html\n.*?\n\1$', picture, md, flags=re.M|re.S)
    md = re.sub(r'^\{\.\w+\}\n', '', md, flags=re.M)
    md = re.sub(r'^:::+\{dropdown\} (.*)$', r'**\1**\n', md, flags=re.M)
    md = re.sub(r'^`{4,}\{py:\w+\} (\S.*)$', r'## `\1`', md, flags=re.M)
    md = re.sub(r'^(:::+|`{4,})(\{.*)?$|^:[\w-]+: .*$', '', md, flags=re.M)
    md = re.sub(r'<a href="([^"]+)"[^>]*>([^<]*)</a>', r'[\2](\1)', md)
    md = re.sub(r'\]\((?!https?:|notebooks/)([\w./-]+)\.(?:ipynb|md)(#[\w.-]*)?\)',
        lambda m: f']({m[1]}.html{"" if "source/" in m[1] else ".md"})', md)
    return re.sub(r'\n{3,}', '\n\n', md).strip() + '\n'

def main(src, html):
    index = (src/'index.md').read_text(encoding='utf8')
    parts = ['# ulmfit_nb', '> ULMFiT as a book that you can run and install: a language model learns a language from '
        'plain text, goes on with your texts, and becomes a '
        'classifier from the few labels that you have. On fastai and PyTorch.', 'Each of '
        'these pages is here as Markdown, too: its address with `.md` at the end.']
    for caption,body in re.findall(r':caption: (.*?)\n(.*?)```', index, re.S):
        lines = []
        for name in re.findall(r'^(?:.*<)?([\w/-]+)>?$', body, re.M):
            page = next((p for p in (src/f'{name}.ipynb', src/f'{name}.md') if p.exists()), None)
            if page is None: continue
            md = clean(notebook(page) if page.suffix=='.ipynb' else page.read_text(encoding='utf8'))
            to = html/f'{name}.html.md'
            to.write_text(md, encoding='utf8')
            title = re.search(r'^# (.*)$', md, re.M)[1].replace('`', '')
            lead = next((l for l in md.split('\n\n')[1:] if l and l[0] not in '#`[*|{<!'), '')
            lines.append(f"- [{title}]({name}.html.md): {' '.join(lead.split())[:200]}")
        parts.append(f'## {caption}\n\n' + '\n'.join(lines))
    (html/'llms.txt').write_text('\n\n'.join(parts) + '\n', encoding='utf8')
    (html/'.nojekyll').touch()
