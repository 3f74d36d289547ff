"""Opening the file of a prior (`sdaxr.prior.files`). No code runs when it is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError, safe_open

from sdaxr.archives.paths import Location, with_storage
from sdaxr.archives.remote import local_copy
from sdaxr.prior.catalogue import prior_path
from sdaxr.prior.files import CHECKSUM, FORMAT, Prior
from sdaxr.prior.header import checksum
from sdaxr.prior.held_out import known_of
from sdaxr.prior.packing import unpacked
from sdaxr.schema import PriorError, SdaxrError
from sdaxr.states.isolation import isolated

# What Python and torch raise on metadata that are not those of a prior.
_ALTERED = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, RecursionError, SdaxrError)
_LONGEST = 200


@isolated()
def open_prior(prior: str | Location | Prior, *, storage_options: Mapping[str, Any] | None = None) -> Prior:
    """Open a prior.

    Parameters
    ----------
    prior
        Name of a shipped prior (see `priors`), or path or URL of a ``.safetensors`` file; a `Prior` is returned as it
        is.
    storage_options
        Options of the file system of a URL (fsspec), such as ``{"anon": True}``.

    Raises
    ------
    PriorError
        If there is no such prior; if the file is truncated, was not written by sdaxr, or has been altered: its header
        and its tensors do not describe a prior, or the tensors do not have the checksum that the file declares.
    """
    if isinstance(prior, Prior):
        return prior
    path = prior_path(with_storage(prior, storage_options))
    try:
        with local_copy(path) as copy, safe_open(copy, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            # Copies: the file is mapped to memory, and may be written over while the prior is in use.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (a safetensors handle)
    except (OSError, SafetensorError) as error:
        raise PriorError(
            f"'{path}' cannot be read as a prior ({error}): it is truncated or no .safetensors file; "
            "copy it again, or train anew with sdaxr.train"
        ) from error
    _check_format(path, metadata.get("sdaxr"))
    # A file without a checksum is taken as it is.
    if metadata.get(CHECKSUM) not in (None, digest := checksum(tensors)):
        raise PriorError(
            f"'{path}' has weights that are not those which were saved, by their checksum: it is damaged or has been "
            "altered; copy the file again, or train anew with sdaxr.train"
        )
    try:
        about = json.loads(metadata["about"])
        found = Prior(*unpacked(tensors, about), about)
        _ = found.augmentation, found.symmetries  # read, so that what cannot be read is known here
        found.__dict__["_held_out"] = known_of(digest, metadata["about"])
        return found
    except _ALTERED as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
        raise PriorError(
            f"'{path}' has a header that does not describe a prior ({reason}): it has been altered; copy the file "
            "again, or train anew with sdaxr.train"
        ) from error


def _check_format(path: Location, found: str | None) -> None:
    if found == FORMAT:
        return
    if found is not None and found.startswith("sdaxr prior"):
        raise PriorError(f"'{path}' has the format {found!r}, expected {FORMAT!r}; train the prior with this version")
    raise PriorError(f"'{path}' is a .safetensors file of another program, expected one written by sdaxr.train")
