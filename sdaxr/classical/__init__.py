"""Methods that need the physical model, as a chain with Gaussian noise: the truth to compare with, and the classics.

==========  ==================================================================================
``bpf``     bootstrap particle filter; its members are the ancestries of the last particles
``ffbs``    forward filter, backward simulation: independent draws of the posterior
``kalman``  Kalman filter and backward draws: exact where everything is linear
``4dvar``   weak-constraint 4D-Var: each member at a mode of the posterior
==========  ==================================================================================

`smooth` gives the same posterior Dataset as `sdaxr.assimilate`, which calls it where there is a ``system``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .smoothing import smooth

METHODS = ("bpf", "ffbs", "kalman", "4dvar")

__all__ = ["METHODS", "smooth"]


def __getattr__(name: str) -> Any:
    if name == "smooth":
        from .smoothing import smooth

        return smooth
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
