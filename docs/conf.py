"""The documentation as a site: `sphinx-build -W docs site`."""

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
autodoc_class_signature = "separated"  # a frozen value is not made by its users
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


def setup(app):  # noqa: ANN001, ANN201
    """Register what this site adds to Sphinx."""
    app.connect("autodoc-process-docstring", _bars)
