"""Priors, and how they are saved.

A prior is one ``.safetensors`` file: weights and arrays of the layout as tensors, everything else as JSON metadata
(`sdaxr.prior.header`), with a checksum of the tensors. `sdaxr.prior.opening` opens it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors.torch import save as to_bytes

from sdaxr.archives.paths import Location, located
from sdaxr.archives.stores import written_whole
from sdaxr.prior.augmentation import Augmentation
from sdaxr.prior.blanket import TrajectoryDenoiser, beyond_window
from sdaxr.prior.constants import unlearnt
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.hardware import choose_precision
from sdaxr.prior.header import checksum
from sdaxr.prior.held_out import HeldOut
from sdaxr.prior.modes import Modes
from sdaxr.prior.packing import packed
from sdaxr.prior.patches import Patches
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.prior.symmetries import Symmetry, bind_symmetries
from sdaxr.prior.tiles import OVERLAP, PatchDenoiser, mosaic, tiled_axes
from sdaxr.schema import OptionError, nearest
from sdaxr.states.fields import StateLayout

_log = logging.getLogger(__name__)

FORMAT = "sdaxr prior 2"
CHECKSUM = "tensors_sha256"


@dataclass(frozen=True)
class Prior:
    """A score-based prior of the trajectories of one system.

    Attributes
    ----------
    layout
        Variables, grid, normalisation and time axis of the states.
    network
        The denoising network. It is on the CPU when the prior is opened or trained; `denoiser` and `held_out` move it
        to their device.
    reference
        A few held-out windows, normalised, of shape (sample, time, channel, *space), and their context, of shape
        (1 or sample, time, context channel, *space). The uncertainty given z is measured on them.
    metadata
        JSON-ready provenance: name, window, network, parameterisation, statistics and optimisation with all options,
        fingerprint of the data, summary of the training; and under ``"sampling"`` the settings of the sampler that
        were found best for this prior.
    """

    layout: StateLayout
    network: DenoisingNetwork
    reference: tuple[np.ndarray, np.ndarray]
    metadata: dict[str, Any]

    @property
    def window(self) -> int:
        """Number of states in a window of the training."""
        return int(self.metadata["window"])

    @property
    def augmentation(self) -> Augmentation:
        """Observed quantities that the prior has beside the states."""
        return Augmentation.from_file(self.metadata.get("augment", {}))

    @property
    def states(self) -> list[str]:
        """Variables of the states, without the observed quantities."""
        return list(self.augmentation.without(dict.fromkeys(self.layout.variables)))

    @cached_property
    def patches(self) -> Patches | None:
        """The patches on which the prior was trained, in its domain; None where it was trained on whole states."""
        return Patches.of(self.layout, self.metadata.get("statistics", {}).get("patches", {}))

    @property
    def symmetries(self) -> list[Symmetry]:
        """Transformations that leave the density of its states as it is: recorded ones, or those of the training."""
        return bind_symmetries(self.layout, self._recorded)

    @property
    def _recorded(self) -> list[Mapping[str, Any]]:
        return list(self.metadata.get("symmetries", self.metadata.get("statistics", {}).get("symmetries", ())))

    @property
    def overlap(self) -> float:
        """Part of a tile of the domain that it shares with the next one, for a prior of patches."""
        return float(self.metadata.get("overlap", OVERLAP))

    @property
    def name(self) -> str:
        """Name of the prior in the provenance of posteriors and forecasts."""
        return str(self.metadata.get("name", "unnamed"))

    @property
    def sha256(self) -> str:
        """Hash of the weights; it distinguishes priors of the same name."""
        digest = hashlib.sha256()
        for tensor in self.network.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def provenance(self) -> dict[str, Any]:
        """Attributes of a result that tell the prior from others: its name and hash, and its symmetries, if any."""
        known = {"prior_symmetries": json.dumps(self._recorded)} if self._recorded else {}
        return {"prior": self.name, "prior_sha256": self.sha256, **known}

    @cached_property
    def examples(self) -> np.ndarray:
        """Held-out windows of the whole domain, (sample, time, channel, *space); of patches, mosaics of these."""
        states = self.reference[0]
        return states if self.patches is None else mosaic(self.patches, torch.as_tensor(states)).numpy()

    def modes(self, device: torch.device) -> Modes | Eofs | None:
        """Modes of the states of the whole domain, on a device; None where there are none, or only those of patches."""
        found: Modes | Eofs | None = self.network.to(device).modes
        return found if self.patches is None else None

    def held_out(self, device: torch.device) -> HeldOut:
        """The reference windows after denoising, on the whole domain; once a device, also if a file is opened again."""
        known: dict[str, HeldOut] = self.__dict__.setdefault("_held_out", {})
        if str(device) not in known:
            found = self.held_out_windows(device)
            known[str(device)] = found if self.patches is None else found.map(partial(mosaic, self.patches))
        return known[str(device)]

    def held_out_windows(self, device: torch.device) -> HeldOut:
        """The reference windows after denoising: those of `held_out`, or of patches."""
        states, context = (torch.as_tensor(a, device=device) for a in self.reference)
        network, mask = self.network.to(device).eval(), self.layout.mask
        present = 1.0 if mask is None else torch.as_tensor(mask, device=device).float()

        def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
            xhat: torch.Tensor = network(z, torch.full((len(z),), r, device=device), context)
            return xhat

        # There is no noise on land, as in the training.
        return HeldOut.of(denoise, states, network.levels, present)

    def __getstate__(self) -> dict[str, Any]:
        # Without cached results, which are computed again where they are needed.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def denoiser(
        self,
        times: xr.DataArray,
        device: str | torch.device = "cpu",
        *,
        stride: int = 1,
        precision: str = "auto",
    ) -> TrajectoryDenoiser | PatchDenoiser:
        """The denoiser of trajectories on ``times``.

        Parameters
        ----------
        times
            Times of the states; the context follows from them.
        device
            Device of the network and of the states.
        stride
            States from one window to the next; see `TrajectoryDenoiser`.
        precision
            ``"float32"``, ``"bfloat16"`` or ``"auto"``; see `sdaxr.prior.hardware.choose_precision`.

        Returns
        -------
        TrajectoryDenoiser, or PatchDenoiser of a prior of patches
            Maps z (batch, time, channel, *space) and a noise level r to E[x | z].
        """
        mask = self.layout.mask
        present = None if mask is None else torch.as_tensor(mask, device=device).float()
        network, fields = self.network.to(device).eval(), bool(self.layout.space)
        half = choose_precision(precision, torch.device(device), fields=fields) == "bfloat16"
        # Whose sampler was chosen by its results has been tried on trajectories.
        tried = "name" in self.metadata.get("sampling", {}).get("sampler", {})
        if len(times) > self.window and not tried and (unseen := beyond_window(network, self.window)):
            _log.warning(
                "%s, and these have %d states; use cycle, or train the prior %r with a longer window",
                unseen, len(times), self.name,
            )  # fmt: skip
        if self.metadata.get("shared_noise") and network.window is None:
            shortest = self.metadata["optimisation"].get("shortest") or self.window
            if why := unlearnt(shortest, self.window, len(times)):
                _log.warning("%s", why)
        if self.patches is not None:
            context = torch.as_tensor(self.patches.fields(times), device=device)
            return PatchDenoiser(network, self.patches, context, overlap=self.overlap, stride=stride, half=half)
        context = torch.as_tensor(self.layout.context_array(times), device=device)
        return TrajectoryDenoiser(network, context, present, stride=stride, half=half)

    def on(self, domain: xr.Dataset, *, overlap: float = OVERLAP) -> Prior:
        """The prior on another domain of the same spacing, of any size from that of a patch on.

        Parameters
        ----------
        domain
            Fields or a template on the domain: coordinates of its horizontal dimensions, and the static fields that the
            network sees.
        overlap
            Part of a tile that it shares with the next one, from 0 to below 1. A larger part makes estimates more exact
            where states are correlated over much of a patch; a half takes twice the time of a quarter (2-D).

        Raises
        ------
        OptionError
            If the prior was trained on whole states, or ``overlap`` is impossible.
        DataError, GridError, UnitsError
            If the domain has other dimensions, units or spacing, is smaller than a patch, or lacks a static field.
        """
        if self.patches is None:
            raise OptionError(
                f"the prior {self.name!r} was trained on whole states, expected one of patches; train with "
                f"statistics={{'patches': {{{', '.join(f'{d!r}: 64' for d in self.layout.space)}}}}}"
            )
        layout = self.patches.on(domain, self.metadata.get("context", {}))
        found = replace(self, layout=layout, metadata=self.metadata | {"overlap": overlap})
        tiled_axes(self.patches, overlap)
        return found

    def noise_levels(self, length: int) -> dict[str, Any]:
        """Noise levels of sampling for trajectories of ``length`` states, arguments of `Sampler.build`.

        They are those of the training. The Gaussian process of a prior with EOFs is known at every level; sampling
        begins at four standard deviations of its leading mode, where these are more than usual.
        """
        low, high = self.network.levels
        modes = self.network.modes
        if not isinstance(modes, Eofs):
            return {"levels": (low, high)}
        hidden = 4 * float(modes.spectrum(length).max()) ** 0.5
        return {"levels": (low, max(high, hidden)), "hidden": hidden}

    def with_sampling(
        self, *, method: Mapping[str, Any] | None = None, sampler: Mapping[str, Any] | None = None
    ) -> Prior:
        """A copy that records how to sample with it: the defaults of `sdaxr.assimilate`.

        Parameters
        ----------
        method, sampler
            A name and options, such as ``{"name": "sde-dpm++", "steps": 16}``; what is not given stays as it is.
        """
        given = {"method": method, "sampler": sampler}
        sampling = self.metadata.get("sampling", {}) | {k: dict(v) for k, v in given.items() if v is not None}
        return replace(self, metadata=self.metadata | {"sampling": sampling})

    def with_symmetries(self, *symmetries: Mapping[str, Any]) -> Prior:
        """A copy that records symmetries of the law of its states, in the place of those of its training.

        Posterior samples are moved among their images under the symmetries (`sdaxr.posterior.orbits`).

        Parameters
        ----------
        symmetries
            Each a mapping such as ``{"negate": ["a", "b"]}``, see `sdaxr.prior.symmetries.bind_symmetries`.

        Raises
        ------
        OptionError
            If the states cannot have such a symmetry.
        """
        bind_symmetries(self.layout, symmetries)
        return replace(self, metadata=self.metadata | {"symmetries": [dict(each) for each in symmetries]})

    def with_parameters(self, *names: str) -> Prior:
        """A copy whose variables ``names`` are parameters, constants of a trajectory (`sdaxr.states.parameters`).

        For a prior that was trained on fields which are the same at all times and points of a trajectory. Its noise is
        that of each value, with which posteriors know less of the parameter (`sdaxr.prior.constants`).

        Raises
        ------
        OptionError
            If a variable is unknown or has layers, or no other variable is left.
        """
        layout = self.layout
        for name in names:
            if name not in layout.variables or name in layout.layered:
                raise OptionError(f"parameter {nearest(name, set(layout.variables) - set(layout.layered))}")
        if set(self.states) <= set(names):
            raise OptionError(f"found the parameters {list(names)} alone, expected another variable beside them")
        return replace(self, layout=replace(layout, parameters=tuple(v for v in layout.variables if v in names)))

    def save(
        self,
        path: str | Location,
        *,
        dtype: torch.dtype = torch.float32,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Location:
        """Write one ``.safetensors`` file at a path or a URL; ``dtype=torch.float16`` halves its size.

        ``storage_options`` are those of the file system of a URL (fsspec).

        Raises
        ------
        ArchiveError
            If the file cannot be written.
        """
        path = located(path, storage_options)
        tensors, layout = packed(
            self.layout, self.network, self.reference, dtype, augmented=bool(self.augmentation.operators)
        )
        metadata = {"sdaxr": FORMAT, "about": json.dumps(self.metadata | {"layout": layout})}
        metadata[CHECKSUM] = checksum(tensors)
        with written_whole(path, overwrite=True) as unfinished:
            # Not by save_file, whose files nobody else may read.
            unfinished.write_bytes(to_bytes(tensors, metadata))
        return path

    def __repr__(self) -> str:
        about = self.metadata
        grid = " x ".join(map(str, self.layout.shape)) or "vector"
        count = sum(p.numel() for p in self.network.parameters())
        return (
            f"<sdaxr.Prior {self.name!r}: {', '.join(self.layout.variables)} on {grid}, step {self.layout.time}, "
            f"window {self.window}, {about['network']['name']} with {count:,} parameters>"
        )
