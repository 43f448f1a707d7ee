"What machines read: every page as plain Markdown beside its HTML, and llms.txt that lists them"
import json, re
from pathlib import Path

def text(o):
    "A stored output as Markdown"
    data = o.get('data', {})
    if 'text/markdown' in data: return ''.join(data['text/markdown'])
    body = ''.join(o.get('text') or data.get('text/plain') or '').rstrip()
    return '' if not body or body.startswith(('<Figure','<IPython')) else f'```\n{body}\n```'

def notebook(path):
    parts = []
    for c in json.loads(path.read_text(encoding='utf8'))['cells']:
        source = ''.join(c['source']).strip()
        if c['cell_type']=='markdown': parts.append(source)
        else: parts += [f'```python\n{source}\n```', *map(text, c['outputs'])]
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
        'classifier from the few labels that you have. On fastai and PyTorch.', 'Every page is here as Markdown, too: '
        'its address with `.md` at the end.']
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
