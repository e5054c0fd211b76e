"""The settings of Sphinx for the documentation site. ``docs/build`` builds it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from conchrec import __version__

project = "conchrec"
author = "The conchrec developers"
project_copyright = "The conchrec developers"
release = __version__

extensions = ["myst_parser"]
#: A heading down to this level is a link target, as on GitHub: configuration.md#limitstries.
myst_heading_anchors = 4
#: Straight quotes in shell examples must stay straight when they are copied.
smartquotes = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"conchrec {__version__}"
html_copy_source = False
html_show_sourcelink = False
