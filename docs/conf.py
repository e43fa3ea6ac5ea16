"""Sphinx: the pages of this folder and the docstrings of the package, as a site.

``make docs`` builds it without the network: no inventories are fetched, formulas are MathML and
pictures are drawn here. Warnings are errors, and a reference that leads nowhere is a warning.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import pictures  # noqa: E402

import mtlfast  # noqa: E402

project = "mtlfast"
author = copyright = "the mtlfast developers"
version = release = mtlfast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "formulas"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(torch|numpy|sklearn)\..*")]  # documented elsewhere
myst_heading_anchors = 3

# scikit-learn makes these in each class, with docstrings that refer to its own pages.
_routed = ["decision_function", "fit", "predict", "predict_log_proba", "predict_proba", "score"]
_made = ["get_metadata_routing", *(f"set_{name}_request" for name in _routed)]
autodoc_default_options = {"exclude-members": ", ".join(_made)}
autodoc_inherit_docstrings = False
autodoc_typehints = "none"  # an argument's forms are told in words
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "alabaster"
html_math_renderer = "mathml"
html_title = f"mtlfast {version}"
html_show_sourcelink = False
html_theme_options = {
    "description": "Task-relation regularizers for PyTorch",
    "fixed_sidebar": True,
    "page_width": "1100px",
    "sidebar_width": "230px",
}

pictures.draw_all(DOCS / "drawn")
