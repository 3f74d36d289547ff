"""Operators as text."""

from __future__ import annotations

import pytest

from sdaxr import operators as op
from sdaxr.schema import OperatorError


def test_text_is_parsed():
    assert op.parse("coarsen(8)") == op.coarsen(8)
    assert (
        op.parse("op.vorticity() >> coarsen(factor=4) >> saturate") == op.vorticity() >> op.coarsen(4) >> op.saturate()
    )
    assert op.parse("region(lon=(-10, 5)) >> scale(-1.5)") == op.region(lon=(-10, 5)) >> op.scale(-1.5)
    assert op.parse("select('u', 'v')") == op.select("u", "v")
    assert op.parse('{"op": "saturate"}') == op.saturate()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("coarsen(", "cannot be read"),
        ("coarse(8)", "Did you mean 'coarsen'"),
        ("coarsen(factr=8)", "Did you mean 'factor'"),
        ("coarsen()", "missing a required argument"),
        ("coarsen(open('x'))", "expected a number, a text, a list or a dict"),
        ("coarsen(2) + coarsen(2)", "expected for example"),
        ("__import__('os').system('true')", "expected for example"),
        ("function(abs)", "from Python"),
    ],
)
def test_bad_text_is_explained(text, message):
    with pytest.raises(OperatorError, match=message):
        op.parse(text)
