"""Formulas as MathML, made at build time: no script, no font, no network. Sphinx's own extensions load MathJax or call
LaTeX"""
import re
from html import escape
from latex2mathml.converter import convert

def mathml(tex, display='inline'):
    "MathML of `tex`, with the TeX as its text for those who can't see it"
    return convert(tex, display=display).replace('<math ', f'<math alttext="{escape(tex, quote=True)}" ', 1)

def inline(self, node):
    self.body.append(mathml(node.astext()))
    from docutils import nodes
    raise nodes.SkipNode

def block(self, node):
    "One line of display mathematics per `\\qquad`, so that a narrow page can break there"
    from docutils import nodes
    parts = [o for o in re.split(r'\\qquad', node.astext()) if o.strip()]
    start = self.starttag(node, 'div', CLASS='math-block', tabindex='0')
    self.body.append(start + ''.join(f'<span>{mathml(o, "block")}</span>'
        for o in parts) + '</div>')
    raise nodes.SkipNode

def setup(app):
    app.add_html_math_renderer('mathml', (inline,None), (block,None))
    app.config.html_math_renderer = 'mathml'
    return dict(parallel_read_safe=True, parallel_write_safe=True)
