"""Commands on files of any kind, recipes, and the example."""

from __future__ import annotations

from typing import Any

import click

from sdaxr.commands import texts
from sdaxr.commands.options import flags, members, on_files, seed


@click.command()
@click.argument("path", metavar="FILE")
@on_files()
def info(quiet: bool, path: str, storage_options: dict[str, Any]) -> None:
    """Describe a file: kind, provenance, completeness.

    FILE is an archive, a NetCDF file, a prior (a file or the name of a shipped one) or a recipe.
    """
    from sdaxr.archives.description import format_facts
    from sdaxr.commands import info as module

    click.echo(format_facts(module.info(path, storage_options=storage_options or None)))


@click.command()
@click.argument("store")
@on_files()
def status(quiet: bool, store: str, storage_options: dict[str, Any]) -> None:
    """Show how far an archive is: what is done, since when, what is missing, and who does it.

    STORE is an archive that is being filled by one or several processes, or a prior that is being trained.
    """
    from sdaxr.commands import status as module

    click.echo(module.status(store, storage_options=storage_options or None))


@click.command()
@click.argument("store")
@on_files()
def finish(quiet: bool, store: str, storage_options: dict[str, Any]) -> None:
    """Finish an archive whose members are all there; what is missing is named.

    STORE is an archive of which the last process was killed before it finished it. Members whose test for several modes
    has not been made, or has failed, are kept as they are.
    """
    from sdaxr.commands import status as module

    click.echo(module.finish(store, storage_options=storage_options or None))


@click.command()
@flags()
def priors(quiet: bool) -> None:
    """List the shipped priors."""
    import sdaxr

    for name in sdaxr.priors():
        click.echo(f"{name}: {repr(sdaxr.open_prior(name)).strip('<>')}")


@click.command()
@click.argument("recipe")
@flags(click.option("--overwrite", is_flag=True, help="Run steps again that have changed, and replace their files."))
def run(quiet: bool, recipe: str, overwrite: bool) -> None:
    """Run the steps of a recipe that are not done.

    RECIPE is a YAML file that maps commands to their parameters. The same command resumes a run that was interrupted.
    """
    from sdaxr.commands import recipe as module

    for title, result in module.run(recipe, overwrite=overwrite, progress=not quiet).items():
        if title.endswith(" verify"):
            click.echo(texts.table(result))
        if title.endswith(" report"):
            click.echo(texts.statuses(result))
        if title.endswith(" calibrate"):
            click.echo(texts.calibration(result))


@click.command()
@click.argument("directory", default="sdaxr-demo")
@flags(
    members,
    click.option("--states", "length", type=int, help="Number of states. Default: 32 on a CPU, 65 on a GPU."),
    seed,
)
def demo(quiet: bool, directory: str, **values: Any) -> None:
    """Run an example with the shipped prior of a flow.

    A turbulent flow is simulated, observed, assimilated, compared with the truth and with two baselines, and drawn. The
    files are written to DIRECTORY (default: sdaxr-demo).
    """
    from sdaxr.commands import demo as module

    module.run(directory, quiet=quiet, **{key: value for key, value in values.items() if value is not None})
