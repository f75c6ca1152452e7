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

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpicky = False
