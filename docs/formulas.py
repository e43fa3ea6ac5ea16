"""Formulas as MathML, which browsers draw by themselves; Sphinx's own way loads a script."""

import re

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

# Commands that only space what follows: MathML spaces operators by itself.
_SPACING = re.compile(r"\\(?:mathrel|mathbin)\{([^}]*)\}")


def _markup(node, **options):
    return tex2mathml(_SPACING.sub(r"\1", node.astext()), **options)


def _inline(self, node):
    self.body.append(_markup(node))
    raise SkipNode


def _display(self, node):
    self.body.append(f'<div class="math">{_markup(node, as_block=True)}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
