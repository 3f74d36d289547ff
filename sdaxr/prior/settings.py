"""What a training run does: the statistics of the data, the optimisation, and all choices together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from msgspec import Meta

from sdaxr.prior.eofs import LEAST
from sdaxr.prior.hardware import PRECISIONS, choose_precision
from sdaxr.prior.networks.base import NETWORKS, Inputs, Network, choose_network
from sdaxr.prior.preconditioning import PARAMETERISATIONS, WITH_MODES
from sdaxr.prior.sizes import Sizes, batch_of
from sdaxr.prior.weighting import WEIGHTINGS
from sdaxr.schema import OptionError, check_least, nearest
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import MISSING, NORMALISATIONS
from sdaxr.states.registry import Options
from sdaxr.states.time import CYCLES
from sdaxr.states.validation import Count, Natural, NotNegative, Positive, Share, Width, checked

# These are chosen for what a run costs: a run goes on with others, and a prior's file leaves them out.
_OPERATIONAL = ("compile", "memory", "validate_every", "checkpoint_minutes")
# Between the 16 000 steps of the shipped prior of Kolmogorov flow and the 38 000 steps of that of Lorenz 1963.
_STEPS = 20_000


@dataclass(frozen=True)
class Statistics(Options):
    r"""What is known of the statistics of the states before the training.

    Parameters
    ----------
    normalise
        Over what the mean and the standard deviation of a state are taken: ``"channel"``, over all times and grid
        points of a variable and layer; ``"point"``, over the times at each grid point; or ``"climatology"``, at each
        grid point by time of day and time of year, with shrinkage (`sdaxr.states.seasonal`). ``"auto"`` is
        ``"climatology"`` for fields on a grid whose times are a calendar, and resolve and cover a day or a year,
        except where homogeneous dimensions or symmetries are stated; else ``"channel"``.
    cycles
        Cycles in time that the network sees, among ``"hour_of_day"`` and ``"day_of_year"``. None for those that the
        data resolve and cover, where time is a calendar.
    homogeneous
        Periodic dimensions along which the statistics do not change. Windows are shifted along them at random, which
        is as good as more data.
    symmetries
        Transformations that leave the statistics as they are, each a mapping such as
        ``{"flip": ["x"], "shift": {"y": 8}, "negate": ["u"]}``: dimensions that are flipped, periodic dimensions and
        the number of grid points by which they are shifted, variables that change sign. Windows are transformed at
        random; see `sdaxr.prior.symmetries`.
    missing
        What is done with values that are NaN at some times only (clouds, swaths): ``"error"``, or ``"masked"``. Then
        the network is shown zeros there, and where there are values; the loss is that of the values alone. Whether a
        value is missing must not depend on the value (Daras et al. 2023, arXiv:2305.19256).
    taper
        Distance over which covariances are tapered for EOFs, the standard deviation of a Gaussian: in km where points
        have latitude and longitude, along the chord (`sdaxr.states.geometry.positions`); else in the units of the
        coordinates. None: the most likely of a few.
    patches
        Points of a patch along each dimension that is cut, such as ``{"y": 64, "x": 64}``: the network is trained on
        patches at random places, and evaluated on overlapping tiles, so that memory does not grow with the domain
        (`sdaxr.prior.patches`). The statistics are the same everywhere along these dimensions, except for what static
        fields in the context tell. ``prior.on(domain)`` is the prior of another domain of the same spacing.
    """

    normalise: str = "auto"
    cycles: tuple[str, ...] | None = None
    homogeneous: tuple[str, ...] = ()
    symmetries: tuple[Mapping[str, Any], ...] = ()
    missing: str = "error"
    taper: Positive | None = None
    patches: Mapping[str, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for dim, points in self.patches.items():
            check_least(f"patches: {dim}", points, 2)
        if self.normalise not in (*NORMALISATIONS, "auto"):
            raise OptionError(f"normalise={nearest(self.normalise, (*NORMALISATIONS, 'auto'))}")
        if self.missing not in MISSING:
            raise OptionError(f"missing={nearest(self.missing, MISSING)}")
        for cycle in self.cycles or ():
            if cycle not in CYCLES:
                raise OptionError(f"cycles={nearest(cycle, CYCLES)}")


@dataclass(frozen=True)
class Optimisation(Options):
    r"""How the weights are found: AdamW on a denoising loss over noise levels.

    A step draws a batch of windows x, noise levels r and noise :math:`\epsilon \sim N(0, I)`, and lowers the mean over
    the batch of

    .. math:: w(r) \, \| D(x + r \epsilon, r) - x \|^2 \, / \, c_{out}(r)^2

    with the denoiser D, the unit :math:`c_{out}` of its output (`sdaxr.prior.preconditioning`) and the weight w. On a
    global grid points count by the area of their cells (`sdaxr.states.geometry.areas`).

    Parameters
    ----------
    batch
        Windows in one step. None for as many as fit the network and the device (`sdaxr.prior.sizes`): a power of two
        from 2 to 32, with which a step takes about a second on two slow cores, or a tenth on a large GPU.
    shortest
        Length, in states, down to which windows are cut into halves, quarters, ... in some of the batches. A network
        whose reach in time is long then learns both short trajectories and the inside of long ones. None for no cuts.
    learning_rate
        Largest learning rate. It rises linearly over the first 100 steps, and falls to zero along a cosine.
    weight_decay
        Weight decay of AdamW.
    ema
        Decay of the exponential moving average of the weights. The prior has the averaged weights.
    levels
        Smallest and largest noise level r = sigma / mu, in standard deviations of the normalised states. Levels are
        drawn log-uniformly.
    weighting
        ``"uniform"``: w = 1. ``"relative"``: w is the inverse of the present error at the noise level, so that relative
        errors count alike; see `sdaxr.prior.weighting`.
    precision
        ``"float32"``, or ``"bfloat16"`` for autocast (the weights stay float32). ``"auto"`` is bfloat16 for fields on a
        GPU or on a processor that has instructions for it.
    compile
        Compile the loss with ``torch.compile``; pays on long runs.
    memory
        Bytes of data that are held in memory at once; larger archives are streamed. None for 4 GB, for more where all
        data then fit and half of the free memory holds them, and for less where 4 GB are not free
        (`sdaxr.prior.budget`). It decides which windows are drawn together: where the data do not fit into an eighth of
        it, another number is like another seed, and so are other chunks where the data are streamed.
    validate_every
        Steps between two validations; each is followed by a checkpoint.
    checkpoint_minutes
        Most minutes between two checkpoints.

    References
    ----------
    Loshchilov & Hutter (2019), AdamW, arXiv:1711.05101; Karras et al. (2022), denoising loss and averaged weights,
    arXiv:2206.00364; Karras et al. (2024), relative errors, arXiv:2312.02696.
    """

    batch: Width | None = None
    shortest: Count | None = None
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-3
    ema: Share = 0.999
    levels: tuple[Positive, Positive] = (5e-3, 100.0)
    weighting: str = "uniform"
    precision: str = "auto"
    compile: bool = False
    memory: Positive | None = None
    validate_every: Annotated[int, Meta(ge=1)] = 500
    checkpoint_minutes: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("levels", self.levels[0] < self.levels[1], "two positive numbers, the smaller one first")
        if self.weighting not in WEIGHTINGS:
            raise OptionError(f"weighting={nearest(self.weighting, WEIGHTINGS)}")
        if self.precision not in (*PRECISIONS, "auto"):
            raise OptionError(f"precision={nearest(self.precision, (*PRECISIONS, 'auto'))}")


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a training run learns, each default replaced by what it stands for.

    Two runs that differ in ``steps`` and ``minutes`` only are one run, which a checkpoint continues.
    """

    window: int
    network: Network
    parameterisation: str
    statistics: Statistics
    optimisation: Optimisation
    steps: int | None
    minutes: float | None
    seed: int

    @classmethod
    def choose(
        cls,
        *,
        sizes: Sizes,
        device: torch.device,
        window: int | None,
        network: str | Mapping[str, Any] | Network,
        parameterisation: str,
        statistics: Statistics | Mapping[str, Any] | None,
        optimisation: Optimisation | Mapping[str, Any] | None,
        steps: int | None,
        minutes: float | None,
        seed: int,
    ) -> Settings:
        """The settings for data of these sizes; see `sdaxr.train` for the parameters.

        Of the default network, options that are not given are those that fit the data; so is the window.

        Raises
        ------
        OptionError
            If a setting is unknown or impossible.
        """
        gridded, optimisation = bool(sizes.shape), Optimisation.of(optimisation)
        window, steps = checked("window", window, Count | None), checked("steps", steps, Natural | None)
        minutes, seed = checked("minutes", minutes, Positive | None), checked("seed", seed, Natural)
        network = {} if network == "auto" else network
        if isinstance(network, Mapping) and network.get("name", "auto") == "auto":
            network = sizes.network(device) | dict(network)
        chosen = choose_network(network, gridded=gridded)
        NETWORKS.name_of(chosen)  # A network without a name could not be opened from the prior's file.
        if parameterisation == "auto" and not gridded:
            parameterisation = "edm"
        if parameterisation not in (*PARAMETERISATIONS, "auto"):
            raise OptionError(f"parameterisation={nearest(parameterisation, (*PARAMETERISATIONS, 'auto'))}")
        windowed = chosen.windowed or parameterisation == "space-time"
        window = sizes.window(chosen, fixed=windowed) if window is None else window
        optimisation = replace(
            optimisation,
            shortest=window if optimisation.shortest is None else optimisation.shortest,
            precision=choose_precision(optimisation.precision, device, fields=gridded),
        )
        steps = _STEPS if steps is None and minutes is None else steps
        found = cls(
            window, chosen, parameterisation, Statistics.of(statistics), optimisation, steps, minutes, seed
        )  # fmt: skip
        found._check(windowed)
        return found

    def inputs(self, layout: StateLayout) -> Inputs:
        """What the network sees at most: it may see the filtered states, too."""
        context = layout.context_channels + layout.channels
        return Inputs(layout.channels, context, self.window, layout.periodic)

    def for_layout(
        self, layout: StateLayout, states: int, device: torch.device, recorded: int | None = None
    ) -> Settings:
        """The settings for the states of a layout, or of a patch of it, each ``"auto"`` replaced by what it stands for.

        Fields of periodic domains have Fourier modes, other fields have EOFs. With a few ``states`` these have cosines:
        covariances cannot be measured. The batch is the ``recorded`` one of a run that goes on, else one that fits the
        network and the device.

        Raises
        ------
        OptionError
            If nothing is trained of a prior without modes.
        """
        whole = all(layout.periodic) and layout.mask is None and not layout.gappy
        alike = bool(self.statistics.homogeneous or self.statistics.patches) or self.network.windowed or states < LEAST
        modal = "spectral" if whole or alike else "eof"
        # Modes have independent noise, a parameter has not.
        usual = "edm" if layout.parameters else modal
        chosen = usual if self.parameterisation == "auto" else self.parameterisation
        if self.steps == 0 and chosen not in WITH_MODES:
            raise OptionError(
                f"steps=0 with parameterisation={chosen!r}, expected {', '.join(map(repr, WITH_MODES))}, which are "
                "priors without training"
            )
        found = "channel" if layout.climatology is None else "climatology"
        normalise = found if self.statistics.normalise == "auto" else self.statistics.normalise
        statistics = replace(self.statistics, cycles=layout.cycles, normalise=normalise)
        optimisation = self.optimisation
        if optimisation.batch is None:
            batch = batch_of(self.network, self.inputs(layout), layout.shape, device, optimisation.precision)
            optimisation = replace(optimisation, batch=batch if recorded is None else recorded)
        return replace(self, parameterisation=chosen, statistics=statistics, optimisation=optimisation)

    @property
    def batch(self) -> int:
        """Windows in one step."""
        if self.optimisation.batch is None:
            raise OptionError("found no batch in the settings, expected those for a layout")
        return self.optimisation.batch

    def to_dict(self) -> dict[str, Any]:
        """The settings as a prior's file holds them."""
        optimisation = self.optimisation.to_dict()
        return {
            "window": self.window,
            "network": NETWORKS.describe(self.network),
            "parameterisation": self.parameterisation,
            "statistics": self.statistics.to_dict(),
            "optimisation": {key: value for key, value in optimisation.items() if key not in _OPERATIONAL},
            "steps": self.steps,
            "minutes": self.minutes,
            "seed": self.seed,
        }

    def _check(self, windowed: bool) -> None:
        shortest, window = self.optimisation.shortest, self.window
        if window < 1 or (windowed and window % 2 == 0):
            expected = "an odd number 2k + 1" if windowed else "a positive number"
            raise OptionError(
                f"window={window}, expected {expected} for {type(self.network).__name__} and "
                f"parameterisation={self.parameterisation!r}"
            )
        if shortest is None or not 1 <= shortest <= window or (windowed and shortest < window):
            expected = "the window itself for a prior of windows of one length" if windowed else "1 to the window"
            raise OptionError(f"shortest={shortest}, expected {expected} ({window})")
