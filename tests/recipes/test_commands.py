"""The command lines of the recipes' pages exist: each script has a help text, and the options that its page gives."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("recipes/*/*.py")) if "__main__" in path.read_text()
]


def written(folder: Path) -> list[list[str]]:
    """The commands in the blocks of shell on a page, without comments, as words."""
    blocks = re.findall(r"```sh\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    named = dict(re.findall(r"(\w+)=([^\s;]+\.py)", "\n".join(lines)))
    words = [[named.get(w[1:], w) if w[0] == "$" else w for w in line.split("#")[0].split()] for line in lines]
    return [line[1:] for line in words if line[:1] == ["python"]]


@pytest.fixture
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> click.Command:
    script = ROOT / request.param
    before = set(sys.modules)
    # Scripts find their neighbours, whose names recur in other folders.
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    found = runpy.run_path(str(script), run_name="recipe")["main"]
    yield found
    for name in set(sys.modules) - before:
        if str(ROOT / "recipes") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize(("command", "script"), [(s, s) for s in SCRIPTS], indirect=["command"], ids=SCRIPTS)
def test_a_script_has_a_help_text_and_the_options_of_its_page(command: click.Command, script: str):
    outcome = CliRunner().invoke(command, ["--help"])
    assert outcome.exit_code == 0 and "Usage" in outcome.output
    for words in (w for w in written((ROOT / script).parent) if w[0] == script):
        part = command
        if isinstance(command, click.Group):
            assert words[1] in command.commands, words
            part = command.commands[words[1]]
        known = {option for p in part.params for option in (*p.opts, *p.secondary_opts)}
        assert {w for w in words if w.startswith("--")} <= known, words


def test_the_pages_have_commands():
    scripts = [words[0] for page in ROOT.glob("recipes/*/README.md") for words in written(page.parent)]
    assert len(scripts) > 25 and set(scripts) <= set(SCRIPTS)
