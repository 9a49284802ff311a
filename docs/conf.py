"""Settings of the site: python -m sphinx -W -b html docs docs/_build/html"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import peergrid

project = "peergrid"
author = copyright = "The peergrid developers"
release = version = peergrid.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_mock_imports = ["stable_baselines3"]  # an extra of its own
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

# Names of types must lead somewhere, but for shapes, which look like names to Sphinx, and others' types: nothing is
# fetched to find those.
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"'.*|ndarray|Tensor|tuple\[int|(numpy|jaxtyping|torch|gymnasium|pettingzoo|stable_baselines3)\..*"),
    ("py:class", r"(collections\.abc|pathlib)\..*|peergrid\.grid\.opf\.(admm\.AdmmState|coordinators\.State)"),
    ("py:class", r"peergrid\.envs\.common\.episodes\.Episodes"),
    ("py:class", r"peergrid\.surrogate\.questions\.(Array|Other)"),  # type variables
]

html_theme = "furo"
html_title = f"peergrid {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False


def write_inline(writer: Any, node: nodes.math) -> None:
    """A formula as MathML, which browsers draw themselves: no script, no fonts, nothing fetched."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def write_block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def as_markup(app: Any, what: str, name: str, of: object, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: names in single backticks are code, and so are tables and what is indented.

    From its first heading on, the docstring of an environment says what stands on its page.
    """
    # Of an attribute, napoleon takes what stands before a colon in the first line for its type: here that is a comment.
    first = ["..", ""] if what in ("attribute", "property") else []
    lines[:] = first + [line for paragraph in paragraphs(lines) for line in (*paragraph, "")]


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    for is_text, group in groupby(lines, key=bool):
        paragraph = list(group)
        if not is_text:
            continue
        if paragraph[0].startswith("## "):
            return
        if all(line.startswith(("    ", "|")) for line in paragraph):
            yield ["::", "", *(f"    {line}" for line in paragraph)]
        else:
            yield [re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line) for line in paragraph]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_markup, priority=400)  # before napoleon reads Google's sections
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))


html_math_renderer = "mathml"
