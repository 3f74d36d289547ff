"""Where priors lie: shipped ones have names, others paths or URLs."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from sdaxr.archives.paths import Location, located
from sdaxr.archives.remote import Remote
from sdaxr.schema import PriorError, nearest


def prior_path(prior: str | Location) -> Location:
    """The file of a shipped prior of that name, else the path itself.

    Raises
    ------
    PriorError
        If there is neither.
    """
    path = _shipped().get(str(prior)) or located(prior)
    if isinstance(path, Remote) and not path.exists():
        raise PriorError(f"{path.about_nothing()}; expected the .safetensors file of a prior")
    if isinstance(path, Path) and path.exists() and not path.is_file():
        raise PriorError(f"'{path}' cannot be read as a prior: it is a folder or a device, expected a file")
    if not path.exists():
        raise PriorError(f"found neither a file nor a shipped prior named {nearest(str(prior), _shipped())}")
    return path


def priors() -> list[str]:
    """Names of the shipped priors."""
    return sorted(_shipped())


def _shipped() -> dict[str, Path]:
    folder = Path(str(resources.files("sdaxr.prior"))) / "shipped"
    return {path.stem: path for path in folder.glob("*.safetensors")}
