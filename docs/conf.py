"""How the documentation is built (``make docs``): Markdown pages, with code included from files that tests run."""

from importlib.metadata import version as version_of

project = "sftplug"
author = "The sftplug developers"
version = release = version_of("sftplug")

extensions = ["myst_nb"]  # pages in Markdown, and notebooks with the outputs that they were committed with
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"
exclude_patterns = ["_build", "tutorial", "how"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"sftplug {release}"
html_copy_source = False

# A link to a page, a heading or a file that is not there is an error: the build runs with -W.
nitpicky = True
