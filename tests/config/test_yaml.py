"""Configurations as YAML: the same as their JSON, and nothing but plain values."""

import json

import pytest

from dl4py.config import DL4JFormatError, NeuralNetConfiguration
from tests import catalogue
from tests.models.test_catalogue import MISSING, configuration, reason

NAMES = [n for n in catalogue.names() if n.startswith(("graph_", "schedule_", "lstm"))]


@pytest.mark.parametrize("name", NAMES[::6])
def test_round_trip(name):
    conf = configuration(catalogue.load(name))
    if conf is MISSING:
        pytest.skip(reason(name, "all"))
    again = NeuralNetConfiguration.from_yaml(conf.to_yaml())
    assert again == conf and again.to_json() == conf.to_json()


def test_numbers_as_java_writes_them():
    from dl4py.config.yaml import load

    text = "a: 1.0E-5\nb: 1.0E10\nc: -3\nd: 'NaN'\ne: true\nf: null\ng: 1E5"
    expected = {"a": 1e-5, "b": 1e10, "c": -3, "d": "NaN", "e": True, "f": None}
    assert load(text) == {**expected, "g": 1e5}


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",  # an alias
        "!!python/object/apply:os.system ['true']",
        "a: .nan",
        "- 1",
        "a: [",
        "a: 2001-01-01",
        "x: " + 400 * "[" + 400 * "]",
    ],
)
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(DL4JFormatError, match=r"^\$"):
        NeuralNetConfiguration.from_yaml(text)


def test_an_unknown_key_is_kept():
    conf = NeuralNetConfiguration.from_yaml
    base = json.loads(configuration(catalogue.load("act_CUBE")).to_json())
    from dl4py.config.yaml import dump

    assert json.loads(conf(dump({**base, "later": [1, "é"]})).to_json())["later"]
