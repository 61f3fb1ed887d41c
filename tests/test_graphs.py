"""Graphs: builder, vertices, masks, several inputs and outputs, files, bad input."""

import json

import pytest

from tests import graphs
from tests.test_catalogue import Run

# what DL4J could not compute, and why
DL4J_FAILS = {"output_read_on": "it cannot train a graph that reads an output"}


@pytest.mark.parametrize("name", list(graphs.CASES))
def test_equals_dl4j(name):
    """Masks through vertices, several inputs and outputs, and training on in Java."""
    case, conf = graphs.load(name), graphs.configuration(name)
    assert json.loads(conf.to_json()) == json.loads(case.json)
    run = Run(case, conf)
    run.outputs()
    run.layers()
    run.gradient()
    if case.meta["trains"]:
        run.steps()
    assert case.meta["trains"] == (name not in DL4J_FAILS)
