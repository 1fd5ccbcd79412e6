"""How the pages are built: `nox -s docs`."""

import re

import fc_arrayapi

project = "fc_arrayapi"
author = "The fc_arrayapi developers"
copyright = author
release = version = fc_arrayapi.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"  # docstrings name functions in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and dtypes say more, and are in the docstrings
numpydoc_show_class_members = False
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = "fc_arrayapi"
html_show_sourcelink = False
html_copy_source = False


def mathml(writer, node):
    """Write a formula as MathML, which browsers show without a script from elsewhere."""
    from docutils import nodes
    from docutils.utils.math import latex2mathml

    block = isinstance(node, nodes.math_block)
    formula = latex2mathml.tex2mathml(node.astext(), as_block=block)
    writer.body.append(f'<div style="margin: 1.2em 0; overflow-x: auto">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def without_paths(app, what, name, obj, options, signature, returns):
    """Write a default that is a module by its name; Python's own text has a path of this machine in it."""
    return re.sub(r"<module '(\w+)' from '[^']*'>", r"\1", signature or "") or None, returns


def setup(app):
    app.connect("autodoc-process-signature", without_paths)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))


html_math_renderer = "mathml"
