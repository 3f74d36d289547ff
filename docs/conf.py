"""Documentation: ``python -m sphinx -W -b html docs <folder>``, without a network."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx

import sdaxr
from sdaxr import systems

ROOT = Path(__file__).parents[1]
_project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = _project["name"]
author = _project["authors"][0]["name"]
copyright = author
release = version = _project["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_templates", "notebooks/.ipynb_checkpoints"]

# A single backtick in a docstring is the name of something; it links where the name is in the reference.
default_role = "py:obj"
# NumPy's section References lists sources; the text need not cite them by number.
suppress_warnings = ["ref.footnote"]

# The notebooks are executed files, and a test runs them.
nb_execution_mode = "off"
myst_heading_anchors = 3

# A page of a name that is gone would be left over from an earlier build, and warn that nothing leads to it.
shutil.rmtree(Path(__file__).parent / "reference" / "generated", ignore_errors=True)
# Sphinx imports what it documents, and sdaxr.baselines is a short name of a module that lies elsewhere.
for _name, _value in [(name, getattr(sdaxr, name)) for name in sdaxr.__all__]:
    if isinstance(_value, ModuleType):
        sys.modules.setdefault(f"sdaxr.{_name}", _value)
# The reference lists what a module's __all__ lists, in this order, wherever it is defined.
autosummary_ignore_module_all = False
# Classes that are known by a name are in the reference because they are registered. Their pages begin with the
# docstring of their file: equations and sources.
autosummary_context = {
    "registered": {
        "sdaxr.systems": [
            f"{type(system).__module__}.{type(system).__name__}"
            for system in map(systems.open_system, systems.systems())
        ],
    }
}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = False
napoleon_attr_annotations = False
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = f"sdaxr {release}"
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": [], "installation": [], "contributing": [], "changelog": []}


_MARKS = re.compile(r"(``.*?``|`.*?`)|([*|])(?=\w+[,)|])")


def escape_shapes(_app: Sphinx, _what: str, _name: str, _value: object, _options: object, lines: list[str]) -> None:
    """Docstrings write shapes as (time, *space) and amounts as |x|, which reStructuredText reads as mark-up."""
    lines[:] = [_MARKS.sub(lambda match: match[1] or f"\\{match[2]}", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Connect the hook on docstrings."""
    app.connect("autodoc-process-docstring", escape_shapes)
