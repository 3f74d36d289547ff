"""Dynamical systems: simulators behind one small interface.

A system is a frozen dataclass whose fields are its options; see `System`. Numbers leave it as numpy arrays,
whatever computes inside. To add one, write a subclass in a file of your own and name it::

    from sdaxr import systems

    systems.register("mine", "my_package.my_module:Mine")
    sdaxr.generate("mine", "mine.zarr", trajectories=64, steps=100, seed=0)

A `MarkovChain` is a system with Gaussian noise, whose posterior the methods of `sdaxr.filters` draw. A `System`
object can also be passed wherever a name is expected, without registering anything.
"""

from sdaxr.systems.base import System
from sdaxr.systems.markov import MarkovChain
from sdaxr.systems.registry import open_system, register, systems

__all__ = ["MarkovChain", "System", "open_system", "register", "systems"]
