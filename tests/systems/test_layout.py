"""Labels of the states of a system."""

from __future__ import annotations

import numpy as np
import pytest

from sdaxr.systems.layout import channels_of, system_layout
from sdaxr.systems.quasigeostrophic import QuasiGeostrophic
from sdaxr.systems.registry import open_system

SYSTEMS = {
    "lorenz63": open_system("lorenz63", spin_up=5),
    "lorenz96": open_system("lorenz96", spin_up=5),
    "quasigeostrophic": QuasiGeostrophic(resolution=16, coarsen=2, spin_up=0.01),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_states_go_through_the_layout_unchanged(name: str) -> None:
    system = SYSTEMS[name]
    layout = system_layout(system)
    states = system.trajectory(3, seed=0)
    template = system.template()
    assert layout.variables == tuple(template.data_vars) and layout.time.step == system.step
    labelled = layout.template(layout.times(1.0, 3))
    data = labelled.assign({n: (labelled[n].dims, states[n], labelled[n].attrs) for n in states})
    array = layout.to_array(data)
    assert array.shape == (3, layout.channels, *layout.shape)
    for key, values in layout.to_physical(array, data.time).items():
        np.testing.assert_allclose(values, states[key], rtol=1e-6)
        assert layout.attrs[key]["units"] == template[key].attrs["units"]


def test_layers_are_channels() -> None:
    layout = system_layout(SYSTEMS["quasigeostrophic"])
    assert (layout.layer, layout.layered, layout.channels, layout.space) == ("layer", ("q",), 2, ("y", "x"))
    assert layout.shape == (8, 8) and system_layout(SYSTEMS["lorenz63"]).space == ()


def test_a_state_vector_holds_fields_one_after_the_other() -> None:
    counts = {name: channels_of(system) for name, system in SYSTEMS.items()}
    assert counts == {"lorenz63": 3, "lorenz96": 1, "quasigeostrophic": 2}
