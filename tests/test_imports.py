"""Imports run one way: rooms stand on rooms below them, and no two files import each other in a circle."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

# From the top; what stands on one line knows nothing of its neighbours.
LAYERS = (
    ("cli",),
    ("",),
    ("verbs",),
    ("training", "fiftyone", "insight", "deployment"),
    ("inference",),
    ("opening",),
    ("reports",),
    ("results",),
    ("evaluators",),
    ("models",),
    ("errors",),
    ("datasets", "ops", "runtime", "version"),
)
HEIGHT = {room: height for height, rooms in enumerate(reversed(LAYERS)) for room in rooms}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    # Imports for type checkers and those inside functions count as well.
    return grimp.build_graph("sdk", cache_dir=None)


def room_of(module: str) -> str:
    """First part below the package; the face itself has none."""
    return module.partition(".")[2].partition(".")[0]


def test_every_room_is_seen(graph):
    # The rooms beside sdk/ are part of the package through links, which the graph has to follow.
    assert {room_of(module) for module in graph.modules} >= {"datasets", "models", "ops", "evaluators", "verbs"}
    assert {room_of(module) for module in graph.modules} <= HEIGHT.keys()


def test_rooms_import_downward_alone(graph):
    arrows = [
        (module, imported)
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if (above := room_of(module)) != (below := room_of(imported)) and HEIGHT[above] <= HEIGHT[below]
    ]
    assert arrows == []


def test_no_circle_of_files(graph):
    order = TopologicalSorter({m: graph.find_modules_directly_imported_by(m) for m in graph.modules})
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")
