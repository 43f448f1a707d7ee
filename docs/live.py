"""What readers can move: boxes in which they type, pages of `export_web` in frames, and a slider. Without JavaScript,
what they would show"""
import json
from html import escape

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

def slider(lm, prompt='The food was', n=10):
    "The likeliest words after `prompt` at any temperature. The sum over all words is worked out here, for each step"
    import torch
    ds,vocab = lm.dls.train_ds,list(lm.vocab)
    ids = ds.numericalize(ds.tokenizer(prompt))
    lm.model.eval().reset()
    with torch.no_grad(): logits = lm.model(torch.as_tensor(ids)[None])[0][0,-1].float()
    logits = logits[torch.tensor([not o.startswith('xx') for o in vocab])] # words, and not marks
    words = [o for o in vocab if not o.startswith('xx')]
    temps = [round(.2+.05*i, 2) for i in range(37)]
    best = logits.topk(n)
    data = dict(temperatures=temps, sums=[round((logits/t).logsumexp(0).item(), 4) for t in temps],
        words=[[words[i],round(v, 4)] for v,i in zip(best.values.tolist(), best.indices.tolist())])
    rows = ''.join(f'<tr><th scope="row">{escape(o)}</th><td></td><td><div class="bar"></div></td></tr>'
        for o in [*(w for w,_ in data['words']), f'{len(words)-n:,} others'])
    said = (f'The word that <a href="models/wiki-en-compact-fwd.html">wiki-en-compact-fwd</a> expects after '
        f'<em>{escape(prompt)}</em>')
    return (f'<figure class="slider" hidden data-slider="{escape(json.dumps(data))}"><figcaption>{said}</figcaption>'
        '<label>Temperature <input type="range" min="0" max="36" value="16"> <output></output></label>'
        f'<table><caption class="visually-hidden">Probabilities</caption><tbody>{rows}</tbody></table></figure>')

def make(to, model=None):
    """Write the pages into the folder `to`; the HTML of what stands in the site's pages, by kind. `model`: a
    classifier, whose box is empty without one"""
    from ulmfit_nb.included import find_classifier
    from ulmfit_nb.language_model import load_language_model
    from ulmfit_nb.scoring import classifier_of
    from ulmfit_nb.web import export_web
    to.mkdir(parents=True, exist_ok=True)
    lm = load_language_model('wiki-en-compact-fwd')
    export_web(lm, to/'words.html', text=text)
    boxes = dict(words=frame('words', without_script(lm)), classifier='', slider=slider(lm))
    try: model = model and find_classifier(model)
    except FileNotFoundError: model = None
    if model is None:
        (to/'classifier.html').unlink(missing_ok=True) # of an earlier build
        return boxes
    page = export_web(classifier_of(model, 'cpu')[0], to/'classifier.html',
        text='A long film, but I loved every minute of it.')
    # closed, it loads nothing
    boxes['classifier'] = (f'<details class="live"><summary>Type a text of your own ({page.stat().st_size/1e6:.0f} MB '
        f'are loaded once, and nothing that you type leaves your computer)</summary>{frame("classifier")}</details>')
    return boxes

def raw(box): return f'```{{raw}} html\n{box}\n```' if box else ''

# Under the title of these pages
places = {'rules':'words', 'tokenization':'words', 'interpret':'classifier', 'generation':'slider'}
