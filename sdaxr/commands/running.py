"""How a command runs its step."""

from __future__ import annotations

from typing import Any

from sdaxr.schema import OptionError


def run_step(name: str, quiet: bool, values: dict[str, Any], of_system: dict[str, Any] | None = None) -> Any:
    """Run a step with the flags that were given; the other parameters have the defaults of the function.

    ``of_system`` holds the options of the system, whose names are none of the step's parameters.
    """
    # With the libraries of the computation, which the help does not need.
    from sdaxr.commands import steps

    for key in of_system or {}:
        if key in steps.parameters(name):
            raise OptionError(
                f"found --option {key}=, expected an option of the system; '{key}' is a parameter of {name}, which has "
                "a flag or an argument of its own"
            )
    # The value of a flag that may be repeated, and was not given, is empty.
    given = {key: value for key, value in values.items() if value is not None and value not in ((), {})}
    given |= of_system or {}
    if "progress" in steps.parameters(name):
        given["progress"] = not quiet
    return steps.run(name, given)
