"""The mutations of the recipe: their rule, and that a breaking one of a prior is refused."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sdaxr
from sdaxr.schema import SdaxrError
from tests.recipe_modules import recipe_modules

NAMES = ("fuzz_mutations", "fuzz_process", "fuzz_kinds", "fuzz_data", "fuzz_values", "fuzz")
PRIOR = resources.files("sdaxr.prior") / "shipped" / "lorenz63.safetensors"


@pytest.fixture(scope="module")
def recipe() -> Iterator[SimpleNamespace]:
    with recipe_modules("endurance", NAMES) as modules:
        yield modules


@pytest.mark.parametrize(
    ("kind", "path", "old", "breaking"),
    [
        ("nan", ("about", "window"), 9, True), ("nan", ("about", "training", "loss"), 0.1, False),
        ("negative", ("steps", 1, "step"), 0.1, True), ("negative", ("steps", 1, "offset"), 1, False),
        ("fraction", ("every",), 4, True), ("fraction", ("error",), 1.0, False), ("missing", ("error",), 1.0, False),
        ("null", ("sampler",), {}, False), ("null", ("about", "sampling", "sampler"), {}, True),
        ("unknown word", ("op",), "sin", True), ("unknown word", ("layout", "attrs", "a", "units"), "1", False),
        ("text of it", ("error",), 1.0, False), ("enormous", ("members",), 1, True), ("enormous", ("seed",), 1, False),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_follows_from_names_and_kinds(
    recipe: SimpleNamespace, kind: str, path: tuple[Any, ...], old: Any, breaking: bool
) -> None:
    assert recipe.fuzz_mutations.breaks(kind, path, old) is breaking


def test_mutations_are_the_same_for_a_seed_and_change_the_tree(recipe: SimpleNamespace) -> None:
    tree = {"error": 1.0, "every": 4, "operator": {"op": "select", "names": ["a"]}}
    first, again, other = (
        [m.what for m in islice(recipe.fuzz_mutations.tree_mutations(tree, np.random.default_rng(seed)), 60)]
        for seed in (0, 0, 1)
    )
    assert first == again != other
    left = [m.left for m in islice(recipe.fuzz_mutations.tree_mutations(tree, np.random.default_rng(0)), 60)]
    assert all(repr(each) != repr(tree) for each in left)
    assert tree == {"error": 1.0, "every": 4, "operator": {"op": "select", "names": ["a"]}}


@pytest.mark.parametrize(
    ("breaking", "outcome", "declared", "word"),
    [
        (True, {"kind": "refused"}, True, "refused"), (True, {"kind": "accepted"}, True, "wrong"),
        (False, {"kind": "accepted", "digest": "b"}, True, "accepted"),
        (True, {"kind": "accepted", "digest": "a"}, False, "accepted"),
        (True, {"kind": "accepted", "digest": "b"}, False, "wrong"),
        (False, {"kind": "accepted", "finite": False}, False, "wrong"),
        (False, {"kind": "refused", "executed": ["os.system"]}, False, "executed"),
    ],
)  # fmt: skip
def test_outcomes_are_judged(
    recipe: SimpleNamespace, breaking: bool, outcome: dict[str, Any], declared: bool, word: str
) -> None:
    mutation = recipe.fuzz_mutations.Mutation("a change", None, breaking)
    found = recipe.fuzz_process.Outcome(**outcome)
    assert recipe.fuzz.judged(mutation, found, "a", SimpleNamespace(declared=declared))[0] == word


def test_breaking_mutations_of_a_prior_are_refused_and_the_file_itself_is_not(
    recipe: SimpleNamespace, tmp_path: Path
) -> None:
    raw, path = PRIOR.read_bytes(), tmp_path / "p.safetensors"
    path.write_bytes(recipe.fuzz_mutations.join_safetensors(*recipe.fuzz_mutations.split_safetensors(raw)))
    assert sdaxr.open_prior(path).sha256 == sdaxr.open_prior("lorenz63").sha256
    random = np.random.default_rng(3)
    sources = (recipe.fuzz_kinds._header_mutations(raw, random), recipe.fuzz_mutations.tensor_mutations(raw, random))
    tried = [m for source in sources for m in islice(source, 25) if m.breaking]
    assert len(tried) > 30
    for mutation in tried:
        with pytest.raises(SdaxrError):
            recipe.fuzz_kinds.use_prior(mutation.left, tmp_path)
            pytest.fail(mutation.what)
