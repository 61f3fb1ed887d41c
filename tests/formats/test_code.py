"""Configurations as code: it runs, and builds an equal one."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import dl4py
from dl4py.config import Dense, DL4JFormatError, NeuralNetConfiguration, Output
from dl4py.config.codec import unknown
from dl4py.formats.code import source, unsaid
from tests import catalogue
from tests.layers import test_every_layer as layers
from tests.networks import mlp


def run(text: str) -> Any:
    found: dict[str, Any] = {}
    exec(text, found)
    return found["conf"]


def test_the_whole_catalogue() -> None:
    """Every network that DL4J wrote and can be read."""
    count = 0
    for name in catalogue.names():
        try:
            conf = NeuralNetConfiguration.from_json(catalogue.load(name).json)
        except DL4JFormatError:
            continue  # named by the catalogue's own tests
        text = source(conf)
        made = run(text)
        # NaN is no other NaN: it stands where a schedule does
        assert made == conf or repr(made) == repr(conf), name
        count += 1
        if not unsaid(conf) and not any(map(unknown, conf.layers)):
            assert made.to_dict() == conf.to_dict(), name
    assert count > 600


@pytest.mark.parametrize("kind", layers.KINDS)
def test_every_layer(kind: str) -> None:
    conf = layers.network(kind).conf
    assert run(source(conf)) == conf


def test_what_most_layers_share_is_said_once() -> None:
    chain = NeuralNetConfiguration.builder().seed(1).activation("tanh").l2(0.1)
    chain.updater(
        "adam", lr=dl4py.schedules.get("exponential", initial_value=0.1, gamma=0.5)
    )
    chain = (
        chain.layer(Dense(n_in=2, n_out=2))
        .layer(Dense(n_out=2, activation="relu"))
        .layer(Output(n_out=2, l1=0.2))
    )
    text = source(chain.build())
    for words in ('.activation("tanh")', ".updater(", '.activation("relu")'):
        assert text.count(words) == 1
    assert text.count("l2") == 3 and "L1(l1=0.2)" in text
    assert "lr=Exponential(initial_value=0.1, gamma=0.5)" in text


def test_names_are_quoted() -> None:
    """What a file calls its layers is text, whatever stands in it."""
    for name in ('")', "'", "\"'\\", "a\n.layer(", "{0}", "\u2028é"):
        chain = NeuralNetConfiguration.builder().seed(1)
        conf = chain.layer(Output(n_in=2, n_out=2, name=name)).build()
        assert run(source(conf)) == conf
        graph = NeuralNetConfiguration.builder().seed(1).graph_builder()
        graph = graph.add_inputs("x" + name).add_layer(
            name, Output(n_in=2, n_out=2), "x" + name
        )
        conf = graph.set_outputs(name).build()
        assert run(source(conf)) == conf


class TestRefused:
    def test_functions(self) -> None:
        chain = NeuralNetConfiguration.builder().seed(1)
        chain = chain.layer(Dense(n_in=2, n_out=2, activation=torch.sin))
        conf = chain.layer(Output(n_out=2)).build()
        with pytest.raises(
            ValueError, match=r"layer 0 \(Dense\): activation: sin is of"
        ):
            source(conf)
        conf = mlp(updater=functools.partial(torch.optim.SGD, lr=0.1))
        with pytest.raises(ValueError, match=r"updater: functools.partial"):
            source(conf)

    def test_what_the_builder_has_no_word_for(self) -> None:
        conf = mlp()
        layer = dl4py.config.codec.replace(conf.layers[0], name=None)
        conf = dl4py.config.codec.replace(conf, layers=(layer, *conf.layers[1:]))
        with pytest.raises(ValueError, match=r"0 \(Dense\): name: 'layer0', expected"):
            source(conf)
