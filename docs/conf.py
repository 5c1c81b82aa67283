"""How Sphinx builds the site ('make docs'): the Markdown files of this folder, and the API from the docstrings.

Signatures are shown as they are written in the source, shapes included; nothing is fetched, at building or at reading.
"""

import ast
import copy
import functools
import importlib
import inspect
import itertools
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock
from sphinx.ext.napoleon import GoogleDocstring

import mimctr

SOURCE = Path(mimctr.__file__).parent

project = "mimctr"
author = "the mimctr developers"
release = mimctr.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["results"]
nitpicky = True  # a reference to what is not there is a warning, unless it is of another package
nitpick_ignore_regex = [("py:class", r"(?!mimctr\.)\w+\..*")]

myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_mock_imports = ["ray"]
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "show-inheritance": True,
    "no-value": True,
}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Shape", "notes_style"), ("Cost", "notes_style")]
python_maximum_signature_line_length = 100
add_module_names = False

html_theme = "furo"
html_title = "mimctr"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False


def modules() -> dict[str, list[str]]:
    """Return the modules of each layer, by the layer's name; private and empty ones are left out."""
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if not parts[-1].startswith("_"):
            found.setdefault(parts[0], []).append(".".join(("mimctr", *parts)))
    return found


def write_reference(folder: Path) -> None:
    """Write a page for each layer, and one that lists them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    layers = modules()
    lines = [
        "# API reference",
        "",
        "From the docstrings; the layers are those of [the architecture](../architecture.md).",
        "",
    ]
    lines += ["```{toctree}", ":maxdepth: 1", "", *layers, "```", ""]
    (folder / "index.md").write_text("\n".join(lines))
    for layer, names in layers.items():
        page = [f"# mimctr.{layer}", ""]
        for name in names:
            title = [] if name == f"mimctr.{layer}" else [f"## {name}", ""]
            every = ["   :undoc-members:"] if layer == "errors" else []  # an exception's name says it all
            page += [*title, "```{eval-rst}", f".. automodule:: {name}", *every, "```", ""]
        (folder / f"{layer}.md").write_text("\n".join(page))


@functools.cache
def _tree(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text())


class _Qualified(ast.NodeTransformer):
    """Names of our classes become ``~mimctr.module.Name``, which Sphinx shows as the name and links."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        value = self.known.get(node.id)
        if isinstance(value, type) and value.__module__.startswith("mimctr."):
            return ast.UnaryOp(ast.Invert(), ast.Name(f"{value.__module__}.{value.__qualname__}"))
        return node


def written_signature(value: Any) -> tuple[str, str | None] | None:
    """Return arguments and result of a function, or of a class's ``__init__``, as they stand in the source."""
    of_class = isinstance(value, type)
    function = inspect.unwrap(value.__init__ if of_class else value)
    code = getattr(function, "__code__", None)
    if code is None or not code.co_filename.startswith(str(SOURCE)):
        return None
    for node in ast.walk(_tree(code.co_filename)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name != code.co_name:
            continue
        if min([node.lineno, *(one.lineno for one in node.decorator_list)]) != code.co_firstlineno:
            continue
        node = _Qualified(function.__globals__).visit(copy.deepcopy(node))
        every = node.args.posonlyargs or node.args.args
        if every and every[0].arg in ("self", "cls"):
            every.pop(0)
        result = ast.unparse(node.returns) if node.returns and not of_class else None
        return f"({ast.unparse(node.args)})", result
    return None


def _signature(app: Sphinx, what: str, name: str, value: Any, options: Any, *given: Any) -> Any:
    return written_signature(value) if what in ("class", "exception", "function", "method") else None


def _plain_types(app: Sphinx, tree: nodes.document) -> None:
    """Types in signatures are links where they are ours, else words; what a docstring refers to must exist."""
    for link in list(tree.findall(pending_xref)):
        written = isinstance(link[0], nodes.literal)
        if link.get("refdomain") == "py" and not written and not link["reftarget"].startswith("mimctr."):
            link.replace_self(link.children)


def _undescribed_type(app: Sphinx, env: Any, link: pending_xref, shown: nodes.Node) -> nodes.Node | None:
    """A type in a signature that has no docstring, hence no place in the reference, is a word there."""
    return shown if link.get("refdomain") == "py" and not isinstance(shown, nodes.literal) else None


def setup(app: Sphinx) -> None:
    """Write the reference's pages before Sphinx looks for them."""
    write_reference(Path(app.srcdir) / "api")
    with mock(autodoc_mock_imports):
        for name in itertools.chain(*modules().values()):  # autodoc would import them as a type checker does
            importlib.import_module(name)
    # What stands under an attribute is a sentence, which may have a colon; Napoleon would take it for "type: sentence".
    GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-read", _plain_types)
    app.connect("missing-reference", _undescribed_type)
