"Boxes in which a reader types a text: pages of `export_web` in frames. Without JavaScript, what they would show"
from html import escape
from pathlib import Path

text = 'It#39;s GREAT!!!!<br />We saw it again and again and again.'
about = {
    'words':'The eight rules, the tokens and their numbers for a text that you type',
    'classifier':'What a classifier says of a text that you type, and which words spoke for it'}

def without_script(learn):
    "A table of what the rules, the tokenizer and the vocabulary make of `text`"
    from ulmfit_nb.rules import text_proc_rules
    ds,rows,t = learn.dls.train_ds,[],text
    for rule in text_proc_rules:
        now = rule(t)
        rows.append((rule.__name__, now if now!=t else 'no change'))
        t = now
    toks = list(ds.tokenizer(text))
    rows += [('tokens', ' '.join(toks)), ('numbers', ' '.join(map(str, ds.numericalize(toks).tolist())))]
    cells = ''.join(f'<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>' for a,b in [('text',text), *rows])
    return f'<table class="live">{cells}</table>'

def frame(kind, instead=''):
    alone = f'<noscript><style>iframe.live {{ display: none }}</style>{instead}</noscript>'
    return f'<iframe class="live" src="live/{kind}.html" title="{about[kind]}" loading="lazy"></iframe>{alone}'

def make(to, model=None):
    """Write the pages into the folder `to`; the HTML of their boxes by kind. `model`: the folder of a classifier, whose
    box is empty without one"""
    from ulmfit_nb.language_model import load_language_model
    from ulmfit_nb.scoring import classifier_of
    from ulmfit_nb.web import export_web
    to.mkdir(parents=True, exist_ok=True)
    lm = load_language_model('wiki-en-compact-fwd')
    export_web(lm, to/'words.html', text=text)
    boxes = dict(words=frame('words', without_script(lm)), classifier='')
    if model is None or not Path(model).exists(): return boxes
    page = export_web(classifier_of(model, 'cpu')[0], to/'classifier.html',
        text='A long film, but I loved every minute of it.')
    # closed, it loads nothing
    boxes['classifier'] = (f'<details class="live"><summary>Type a text of your own ({page.stat().st_size/1e6:.0f} MB '
        f'are loaded once, and nothing that you type leaves your computer)</summary>{frame("classifier")}</details>')
    return boxes

def raw(box): return f'```{{raw}} html\n{box}\n```' if box else ''

# Under the title of these pages
places = {'rules':'words', 'tokenization':'words', 'interpret':'classifier'}
