"""Dynamical systems: simulators behind one small interface.

A system is a frozen dataclass whose fields are its options; see `System`. It computes with JAX or numpy and returns
numpy arrays. To add a system, write a subclass of `System` in a file of your own, and give it a name::

    from sdaxr import systems

    systems.register("mine", "my_package.my_module:Mine")
    sdaxr.generate("mine", "mine.zarr", trajectories=64, steps=100, seed=0)

A `MarkovChain` is a system with Gaussian noise. The methods in `sdaxr.filters` draw its posterior. Wherever a name is
expected, a `System` object can be passed, too; it needs no name.
"""

from sdaxr.systems.base import System
from sdaxr.systems.markov import MarkovChain
from sdaxr.systems.registry import open_system, register, systems

__all__ = ["MarkovChain", "System", "open_system", "register", "systems"]
