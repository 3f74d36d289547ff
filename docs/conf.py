"""Documentation: ``python -m sphinx -W -b html docs <folder>``, without a network."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

import sdaxr
from sdaxr import systems

HERE = Path(__file__).parent
ROOT = HERE.parent
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
exclude_patterns = ["_templates"]

# A single backtick in a docstring is the name of something; it links where the name is in the reference.
default_role = "py:obj"
# NumPy's section References lists sources; the text need not cite them by number.
suppress_warnings = ["ref.footnote"]

# The notebooks are executed files, and a test runs them.
nb_execution_mode = "off"
myst_heading_anchors = 3

# Sphinx reads below its own folder only. What earlier builds left there goes first: a page of a name that is gone
# would warn that nothing leads to it.
for _made in (HERE / "notebooks", HERE / "reference" / "generated"):
    shutil.rmtree(_made, ignore_errors=True)
shutil.copytree(ROOT / "notebooks", HERE / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
# Sphinx imports what it documents, and sdaxr.baselines is a short name of a module that lies elsewhere.
_modules = {f"sdaxr.{name}": getattr(sdaxr, name) for name in sdaxr.__all__ if inspect.ismodule(getattr(sdaxr, name))}
for _name, _module in _modules.items():
    sys.modules.setdefault(_name, _module)
# The reference lists what a module's __all__ lists, in this order, wherever it is defined.
autosummary_ignore_module_all = False
autosummary_context = {
    # Classes that are known by a name are in the reference because they are registered. Their pages begin with the
    # docstring of their file: equations and sources.
    "registered": {
        "sdaxr.systems": [
            f"{type(system).__module__}.{type(system).__name__}"
            for system in map(systems.open_system, systems.systems())
        ],
    },
    # Sphinx tells functions, classes and exceptions apart by itself; what else a module offers is a constant.
    "constants": {
        name: [
            key
            for key in getattr(module, "__all__", ())
            if not (inspect.isroutine(getattr(module, key)) or inspect.isclass(getattr(module, key)))
        ]
        for name, module in _modules.items()
    },
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
