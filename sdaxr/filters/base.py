"""Methods that need a physical model: base classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.posterior.methods import Method


@dataclass(frozen=True)
class Drawn:
    """Draws of the posterior.

    Attributes
    ----------
    paths
        Trajectories, shape (members, time, n).
    about
        Diagnostics of the method, for the attributes of the result.
    """

    paths: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelMethod(Method, ABC):
    """A method that needs a physical model; its fields are its options.

    A new method is a subclass in a file of its own and a line in `sdaxr.methods`.
    """

    needs: ClassVar[str] = "system"
    # Whether the method is for systems with Gaussian noise only (`sdaxr.systems.MarkovChain`).
    markov: ClassVar[bool] = True
    # Whether the method is for Gaussian observation errors only.
    gaussian: ClassVar[bool] = False

    @property
    def distribution(self) -> str:
        """What the members are draws of at each time: ``"filtering"``, given the observations until then, or
        ``"smoothing"``, given later observations, too.
        """
        return "smoothing"

    def resolve(self) -> Self:
        """The method with the files open that its options name."""
        return self

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error if the method cannot use these observations or options; nothing is drawn.

        Raises
        ------
        DataError, OptionError
            If the observations or the options are not those that the method needs.
        """
        del members
        if self.gaussian:
            model.check_gaussian(self.name)

    @abstractmethod
    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """Draw trajectories of the posterior, all members together: each member depends on the number of members."""
