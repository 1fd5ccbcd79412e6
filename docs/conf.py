"""How the pages are built: `nox -s docs`."""

import html
import re
from importlib.metadata import metadata

import fc_arrayapi

project = "fc_arrayapi"
author = "The fc_arrayapi developers"
copyright = author
release = version = fc_arrayapi.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_copybutton"]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"  # docstrings name functions in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and dtypes say more, and are in the docstrings
numpydoc_show_class_members = False
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"fc_arrayapi {version}"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_favicon = "static/favicon.svg"
pygments_style = "a11y-light"
pygments_dark_style = "github-dark"

# What is copied is what was typed: no prompts, no output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def mathml(writer, node):
    """Write a formula as MathML, which browsers show without a script from elsewhere."""
    from docutils import nodes
    from docutils.utils.math import latex2mathml

    if isinstance(node, nodes.math_block):  # formulas side by side stand below each other where there is no room
        formulas = [latex2mathml.tex2mathml(part, as_block=True) for part in node.astext().split(r"\qquad")]
        writer.body.append(f'<div class="formulas">{"".join(f"<div>{formula}</div>" for formula in formulas)}</div>')
    else:
        writer.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def as_people_write_it(app, what, name, obj, options, signature, returns):
    """Write a default that is a module by its name, without its path, and leave out what takes unknown options."""
    signature = re.sub(r"<module '(\w+)' from '[^']*'>", r"\1", signature or "")
    return signature.replace(", **unknown", "") or None, returns


def without_empty_last_lines(app, document):
    """Drop the empty line that ends an example, which Markdown needs before its fence and readers do not."""
    from docutils import nodes

    for block in document.findall(nodes.literal_block):
        text = block.astext().rstrip("\n")
        block.rawsource, block.children = text, [nodes.Text(text)]


def with_description(app, page, template, context, document):
    """Describe a page to search engines: the landing page as the package is, others by their first sentences."""
    from docutils import nodes

    paragraph = document and document.next_node(nodes.paragraph)
    if page == app.config.root_doc:
        text = metadata("fc_arrayapi")["Summary"]
    elif paragraph and page != "changelog":
        text = " ".join(paragraph.astext().split())
        text = text if len(text) <= 200 else re.match(r".{1,200}[.:](?= |$)|.{1,200}(?= )", text)[0]
    else:
        return
    context["metatags"] += f'<meta name="description" content="{html.escape(re.sub(":$", ".", text))}" />'


def in_its_language(app, page, template, context, document):
    """Say that the Chinese page is Chinese, to browsers and to those who have pages read to them."""
    if page.endswith("_zh"):
        context["language"] = "zh-Hans"


def setup(app):
    app.connect("doctree-read", without_empty_last_lines)
    app.connect("html-page-context", in_its_language)
    app.connect("html-page-context", with_description)
    app.connect("autodoc-process-signature", as_people_write_it)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))


html_math_renderer = "mathml"
