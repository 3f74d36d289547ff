r"""Observation operators on fields that have data at sea only.

An interpolation or an average of a coastal cell depends on land. Let m be 1 at sea and 0 on land. For a linear operator
that keeps the sign, such as these,

.. math:: H_s(x) = \frac{H(m x)}{H(m)} H(1)

is the interpolation, or the average, over the sea part of the cell (normalised convolution, Knutsson & Westin 1993,
doi:10.1109/CVPR.1993.341081).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdaxr.operators.base import Bound, Fields, Operator
from sdaxr.operators.template import Template

# Shares of the weights nearer to 0 or 1 are rounding errors of single precision.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class SeaPart:
    """A bound operator over the sea part of what each of its values depends on.

    Attributes
    ----------
    bound
        H.
    sea
        Where each variable has data, of a shape that broadcasts with the variable.
    share
        H(m) / H(1), the share of the weights at sea, 0 to 1, by variable of the output.
    """

    bound: Bound
    sea: Mapping[str, Tensor]
    share: Mapping[str, Tensor]

    @classmethod
    def of(cls, operator: Operator, bound: Bound, sea: Mapping[str, Tensor]) -> SeaPart | None:
        """The sea part of ``operator``, bound as ``bound``; None where it is no interpolation or average."""
        if not operator.linear:
            return None
        with torch.no_grad():
            whole = bound({name: torch.ones_like(m, dtype=torch.float32) for name, m in sea.items()})
            part = bound({name: m.float() for name, m in sea.items()})
        share = {name: part[name] / whole[name] for name in whole}
        if not all(bool(((s >= -_ROUNDING) & (s <= 1 + _ROUNDING)).all()) for s in share.values()):
            return None
        share = {n: torch.where(s < _ROUNDING, 0.0, torch.where(s > 1 - _ROUNDING, 1.0, s)) for n, s in share.items()}
        return cls(bound, sea, share)

    def __call__(self, fields: Mapping[str, Tensor]) -> Fields:
        """H of the sea part; zero where there is none (`on_land`)."""
        found = self.bound({name: torch.where(self.sea[name], value, 0.0) for name, value in fields.items()})
        return {name: value / torch.where(self.share[name] > 0, self.share[name], 1.0) for name, value in found.items()}

    def on_land(self) -> dict[str, Tensor]:
        """Where the values of the output depend on land only, by variable."""
        return {name: share == 0 for name, share in self.share.items()}


@dataclass(frozen=True, repr=False, eq=False)
class AtSea(Operator):
    """An operator over the sea part of coastal cells, NaN on land; operators without a sea part stay as they are.

    Attributes
    ----------
    operator
        H.
    sea
        Where each variable has data, dims as in the template that the operator is bound to.
    """

    operator: Operator
    sea: Mapping[str, np.ndarray]

    name = "at_sea"
    saveable = False

    @property
    def linear(self) -> bool:  # type: ignore[override]
        """Whether H is linear."""
        return self.operator.linear

    def bind(self, template: Template) -> Bound:
        bound = self.operator.bind(template)
        part = SeaPart.of(self.operator, bound, {n: torch.as_tensor(m) for n, m in self.sea.items()})
        if part is None:
            return bound
        land = part.on_land()

        def function(fields: Fields) -> Fields:
            return {name: value.masked_fill(land[name], torch.nan) for name, value in part(fields).items()}

        return Bound(bound.template, function)
