"""The documentation as a site: `sphinx-build -W docs site`."""

import ast
import inspect
import io
import textwrap
import tokenize
from importlib.metadata import version as version_of

project = "ilin"
author = "The ilin developers"
project_copyright = author
release = version = version_of("ilin")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["decisions/README.md"]
html_theme = "furo"
html_title = f"ilin {release}"
html_copy_source = False

myst_heading_anchors = 3
default_role = "code"  # what stands in single backticks in docstrings
autodoc_class_signature = "separated"  # a frozen value is not made by its users, so it is shown without
autodoc_default_options = {"exclude-members": "__init__, __new__"}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpicky = False


def _bars(app, what, name, obj, options, lines):  # noqa: ANN001, ANN202
    """Absolute values in docstrings are no substitutions of reStructuredText."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def _fields(app, what, name, obj, options, lines):  # noqa: ANN001, ANN202
    """The fields of a class, each with the comment at the end of its line."""
    if what != "class":
        return
    told = []
    for each in reversed(obj.__mro__):
        if not each.__module__.startswith("ilin."):
            continue
        source = textwrap.dedent(inspect.getsource(each))
        comments = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        for node in ast.parse(source).body[0].body:
            if isinstance(node, ast.AnnAssign):
                field, kind = node.target.id, f" ``{ast.unparse(node.annotation)}``"
            elif isinstance(node, ast.Assign):  # of an enumeration
                field, kind = node.targets[0].id, f" ``{ast.unparse(node.value)}``"
            else:
                continue
            if field.startswith("_") or field in (options.exclude_members or ()):
                continue
            comment = comments.get(node.end_lineno, "")
            comment = comment.replace("|", r"\|").replace("*", r"\*")
            told.append(f":ivar {field}:{kind}" + (f", {comment}" if comment else ""))
    if told:
        lines += ["", *told, ""]


def _sentences(app, what, name, obj, options, lines):  # noqa: ANN001, ANN202
    """A property's docstring begins with a sentence, not with `type: description`, as napoleon reads it."""
    types = [line for line in lines if line.startswith(":type: ")]
    if what == "property" and types:
        lines.remove(types[0])
        lines[0] = f"{types[0].removeprefix(':type: ')}: {lines[0]}"


def setup(app):  # noqa: ANN001, ANN201
    """Register what this site adds to Sphinx."""
    app.connect("autodoc-process-docstring", _bars)
    app.connect("autodoc-process-docstring", _sentences)
    app.connect("autodoc-process-docstring", _fields)
