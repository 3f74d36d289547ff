"""The command line, without logic of its own: flags have the names and the defaults of the functions' parameters.

Results go to standard output, messages and progress bars to standard error. Bad input ends with exit code 2 and one
line.
"""

from __future__ import annotations

import click

from sdaxr.commands import cli_ensembles, cli_files, cli_inputs, cli_results
from sdaxr.commands.group import Commands
from sdaxr.schema import VERSION


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="sdaxr")
def main() -> None:
    """Score-based data assimilation: from a simulation or a reanalysis to a verified posterior ensemble.

    Files are Zarr or NetCDF. `sdaxr demo` runs all steps of an example. `sdaxr info FILE` describes a file.
    `sdaxr COMMAND --help` explains a command. Flags that are not marked as required have defaults.
    """


# In the order of the work.
for command in (
    cli_inputs.generate,
    cli_inputs.train,
    cli_inputs.observe,
    cli_inputs.report,
    cli_ensembles.assimilate,
    cli_ensembles.cycle,
    cli_ensembles.forecast,
    cli_ensembles.denoise,
    cli_results.verify,
    cli_results.calibrate,
    cli_results.plot,
    cli_results.animate,
    cli_files.info,
    cli_files.status,
    cli_files.finish,
    cli_files.priors,
    cli_files.run,
    cli_files.demo,
):
    main.add_command(command)
