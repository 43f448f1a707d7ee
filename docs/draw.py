"""The site's pictures, drawn by code as SVG that takes its colours from the page, light or dark. Sphinx's graphviz
extension needs a program beside Python and gives a picture its colours once and for all"""
import math
from html import escape

blue,orange,green,grey = ('#5b8fc7','#d08a4e','#4f9e5c','#8a8f98')

def svg(w, h, title, desc, *parts):
    "An inline picture: text in the page's colour, a title and a description for those who can't see it"
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" class="drawn" viewBox="0 0 {w} {h}" width="{w}" role="img" '
        'fill="currentColor" font-family="inherit" font-size="14">')
    return f'{head}<title>{escape(title)}</title><desc>{escape(desc)}</desc>{arrowhead}{"".join(parts)}</svg>'

arrowhead = ('<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="currentColor"/></marker></defs>')

def box(x, y, w, h, color=grey, strong=.22, dash='', r=6):
    return (f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}" fill="{color}" fill-opacity="{strong}" '
        f'stroke="{color}" stroke-width="1.5"{f" stroke-dasharray={chr(34)}{dash}{chr(34)}" if dash else ""}/>')
def text(x, y, s, size=14, bold=False, anchor='middle', soft=False):
    style = ' font-weight="700"'*bold + ' opacity=".75"'*soft
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}"{style}>{escape(s)}</text>'
def line(x1, y1, x2, y2, tip=True, dash='', w=1.6):
    style = (' marker-end="url(#tip)"' if tip else '') + (f' stroke-dasharray="{dash}"' if dash else '')
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="currentColor" stroke-width="{w}"{style}/>'
def path(points, color, w=2.2):
    return '<path fill="none" stroke="%s" stroke-width="%s" d="M%s"/>' % (color, w,
        'L'.join(f'{x:.1f} {y:.1f}' for x,y in points))

def stages():
    cols = [(20,'Wikipedia','millions of words','1 pretrain'), (270,'your texts','no labels needed','2 fine-tune'),
        (520,'your labels','a few hundred, or more','3 classify')]
    p = []
    for i,(x,a,b,step) in enumerate(cols):
        p += [box(x, 18, 200, 52), text(x+100, 40, a, bold=True), text(x+100, 58, b, 12, soft=True),
            line(x+100, 72, x+100, 108), text(x+110, 94, step, 12, anchor='start')]
        p += [box(x, 112, 200, 56, blue, .18+.1*i), text(x+100, 136, 'encoder', bold=True),
            text(x+100, 154, 'reads', 12)]
        head = ('pooling and head','answers your question',green) if i==2 else ('decoder','guesses the next word',
            orange)
        p += [box(x, 174, 200, 56, head[2]), text(x+100, 198, head[0], bold=True), text(x+100, 216, head[1], 12)]
        if i<2: p.append(line(x+203, 140, x+247, 140))
    return svg(740, 245, 'ULMFiT in three stages', 'A language model is pretrained on Wikipedia and fine-tuned on your '
        'texts. Its encoder, with pooling and a head in place of the decoder, becomes a classifier trained on a few '
        'labels.', *p)

def stream():
    "90 tokens: one stream, six rows of 15, three arrays of 5"
    hue = lambda r: f'hsl({(r*60+210)%360} 55% 55%)'
    cell = (lambda x,y,w,r,
        s: f'<rect x="{x:.1f}" y="{y}" width="{w:.1f}" height="18" fill="{hue(r)}" fill-opacity="{s}"/>')
    p,shade = [text(10, 18, '1  The stream: 90 tokens, one after the other', 13, True, 'start')],(.35,.6,.9)
    p += [cell(10+i*8, 28, 7.2, i//15, shade[i%15//5]) for i in range(90)]
    p.append(text(10, 80, '2  Six rows of 15: each goes on where the one above it stopped', 13, True, 'start'))
    p += [cell(10+i%15*16, 92+i//15*21, 14.5, i//15, shade[i%15//5]) for i in range(90)]
    p.append(text(10, 248, '3  Three arrays of 6 × 5: read one after the other, each row goes on from array to array',
        13, True, 'start'))
    for a in range(3):
        p += [cell(10+a*160+i%5*24, 260+i//5*21, 22, i//5, shade[a]) for i in range(30)]
        p.append(text(70+a*160, 404, f'batch {a+1}', 12, soft=True))
        if a<2: p += [line(134+a*160, 269+r*21, 164+a*160, 269+r*21, w=1.2) for r in range(6)]
    return svg(740, 415, 'A stream of tokens, cut into rows and arrays', 'A line of 90 tokens in six colours of 15; '
        'the same as six rows of 15; and the rows cut into three arrays of six rows and five columns, where every row '
        'goes on in the same row of the next array.', *p)

def awd_lstm():
    "From ids to scores, with the five dropouts at their places"
    p,cx = [],190
    layers = [(430,'token ids','xxbos the film was …',grey), (360,'embedding','a row per word: 400 numbers',blue),
        (280,'LSTM 1','400 → 1152',blue), (200,'LSTM 2','1152 → 1152',blue), (120,'LSTM 3','1152 → 400',blue),
        (30,'decoder','the embedding matrix again',orange)]
    for y,a,b,c in layers:
        p += [box(cx-110, y, 220, 44, c), text(cx, y+19, a, bold=True), text(cx, y+36, b, 12, soft=True)]
    for (y1,*_),(y2,*_) in zip(layers, layers[1:]): p.append(line(cx, y1-2, cx, y2+47))
    drops = [(382,'embed_p','1','whole words: rows of the matrix',382), (342,'input_p','2','features of the input, the '
        'same at every word',342), (262,'hidden_p','3','features between layers, the same at every word',262), (97,
        'output_p','4','features of the output, the same at every word',97)]
    for y,k,n,what,_ in drops:
        p += [f'<circle cx="{cx+136}" cy="{y}" r="11" fill="{green}"/>', f'<text x="{cx+136}" y="{y+5}" '
            f'text-anchor="middle" font-size="13" font-weight="700" fill="#fff">{n}</text>',
            line(cx+(112 if k=="embed_p" else 4), y, cx+124, y, False, '3 3', 1.2),
            text(cx+156, y-1, k, 13, True, 'start'), text(cx+156, y+15, what, 12, False, 'start', True)]
    p.append(line(cx+4, 182, cx+124, 190, False, '3 3', 1.2)); p.append(line(cx+136, 251, cx+136, 203, False, '3 3',
        1.2))
    for y in (142,222,302):
        p.append(f'<path d="M{cx-112} {y-8} C {cx-160} {y-14}, {cx-160} {y+14}, {cx-114} {y+8}" fill="none" '
            'stroke="currentColor" stroke-width="1.6" marker-end="url(#tip)"/>')
    for y in (142,222,302):
        p += [f'<circle cx="{cx-158}" cy="{y}" r="11" fill="{green}"/>', f'<text x="{cx-158}" y="{y+5}" '
            'text-anchor="middle" font-size="13" font-weight="700" fill="#fff">5</text>']
    p += [f'<circle cx="{cx+136}" cy="{192}" r="11" fill="{green}"/>', f'<text x="{cx+136}" y="197" '
        'text-anchor="middle" font-size="13" font-weight="700" fill="#fff">3</text>']
    p += [text(10, 500, '5  weight_p: weights between hidden states, the same at every word of the batch', 13, False,
        'start')]
    return svg(740, 515, 'The AWD-LSTM and its five dropouts', 'Token ids go through the embedding and three LSTM '
        'layers to the decoder, which shares the matrix of the embedding. embed_p drops whole words, input_p features '
        'of the input, hidden_p features between the layers, output_p features of the output, weight_p weights from '
        'one hidden state to the next.', *p)

def unfreezing():
    groups,steps = ['head','LSTM 3','LSTM 2','LSTM 1','embedding'],[(1,2e-2,'head only'), (2,1e-2,'freeze_to(-2)'),
        (3,5e-3,'freeze_to(-3)'), (5,1e-3,'unfreeze()')]
    p = [text(105, 56+i*42+25, g, 13, anchor='end') for i,g in enumerate(groups)]
    for s,(n,lr,what) in enumerate(steps):
        x = 120+s*155
        p += [text(x+65, 20, f'step {s+1}', 13, True), text(x+65, 40, what, 12, soft=True)]
        for i in range(5):
            on = i<n
            p += [box(x, 52+i*42, 130, 36, green if on else grey, .5*.75**i+.12 if on else .06, '' if on else '4 3'),
                text(x+65, 75+i*42, f'{lr/2.6**i if s else lr:.1e}'.replace('e-0','e-') if on else 'frozen', 12,
                soft=not on)]
        if s<3: p.append(line(x+133, 157, x+151, 157))
    return svg(740, 275, 'Gradual unfreezing, step by step', 'Four steps of training. In the first only the head '
        'learns, at 2e-2. In the second the last LSTM layer joins, in the third one more, in the fourth everything. '
        'Each group learns at a rate 2.6 times lower than the one above it.', *p)

def schedules():
    "One cycle (cosine up in a quarter, cosine down) and the paper's slanted triangle (up in a tenth, straight down)"
    def one_cycle(t):
        a,b,u = (1/25,1,t/.25) if t<.25 else (1,1e-5,(t-.25)/.75)
        return a+(b-a)*(1-math.cos(math.pi*u))/2
    def slanted(t):
        u = t/.1 if t<.1 else 1-(t-.1)/.9
        return (1+u*31)/32
    def momentum(t):
        a,b,u = (.8,.7,t/.25) if t<.25 else (.7,.8,(t-.25)/.75)
        return a+(b-a)*(1-math.cos(math.pi*u))/2
    ts = [i/200 for i in range(201)]
    def axes(x, label):
        return [line(x, 190, x+300, 190, False, w=1.2), line(x, 190, x, 30, False, w=1.2),
            text(x+150, 212, 'steps of training', 12, soft=True), text(x, 20, label, 13, True, 'start')]
    p = [*axes(40, 'learning rate'), *axes(400, 'momentum')]
    p += [path([(40+300*t, 190-145*one_cycle(t)) for t in ts], blue),
        path([(40+300*t, 190-145*slanted(t)) for t in ts], orange)]
    p += [f'<rect x="60" y="226" width="22" height="4" fill="{blue}"/>', text(88, 233, 'one cycle (fastai, the '
        'chapter)', 12, anchor='start'), f'<rect x="60" y="246" width="22" height="4" fill="{orange}"/>', text(88, 253,
        'slanted triangle (the paper)', 12, anchor='start')]
    p += [path([(400+300*t, 190-1400*(momentum(t)-.69)) for t in ts], blue),
        text(395, 42, '0.8', 12, anchor='end', soft=True), text(395, 180, '0.7', 12, anchor='end', soft=True),
        text(35, 49, 'max', 12, anchor='end', soft=True)]
    return svg(740, 262, 'Learning-rate schedules', 'On the left the learning rate: one cycle rises along a cosine in '
        'a quarter of the steps and falls along a cosine to almost nothing; the slanted triangle rises in a tenth and '
        'falls in a straight line. On the right the momentum of one cycle: 0.8, down to 0.7 where the rate is highest, '
        'and back.', *p)

def figure(draw, caption):
    below = f'<figcaption>{escape(caption)}</figcaption>' if caption else ''
    return f'```{{raw}} html\n<figure class="drawn-figure">{draw()}{below}</figure>\n```\n'

pictures = { # the page: pictures, what stands below them, and the heading that they follow (none: the title)
    'batching':[(stream, 'From a stream of tokens to batches. A colour is a row, a shade is a batch.', '')],
    'awd_lstm':[(awd_lstm, 'The model of this page, and the places of its five dropouts.', '')],
    'imdb':[(unfreezing,
    "The chapter's four steps and rates: each group learns 2.6 times more slowly than the one above it.",
    'The classifier'),
        (schedules, "Within a step the rate isn't constant: it rises quickly and falls slowly.", 'The classifier')]}
