"""Builder's words in YAML build what the same words build in Python."""

import pytest

from dl4py import schedules
from dl4py.config import (
    LSTM,
    Bidirectional,
    ConfigurationError,
    Convolution2D,
    Dense,
    InputType,
    MergeVertex,
    NeuralNetConfiguration,
    Output,
    RnnOutput,
)
from dl4py.registry import ACTIVATIONS

read = NeuralNetConfiguration.from_yaml
CHAIN = """
seed: 42
updater: {nesterovs: {lr: {exponential: {initial_value: 0.1, gamma: 0.9}}}}
weightInit: relu
l2: 1.0E-4
input_type: {convolutional: [8, 8, 2]}
layers:
  - convolution2d: {n_out: 3, kernel_size: [3, 3], activation: {leakyrelu: {alpha: 1}}}
  - dense: {n_out: 5, dropout: 0.5, bias_updater: sgd}
  - output: {n_out: 3, loss: mcxent, activation: softmax}
"""


def test_a_chain():
    lr = schedules.get("exponential", initial_value=0.1, gamma=0.9)
    chain = NeuralNetConfiguration.builder().seed(42).updater("nesterovs", lr=lr)
    chain = chain.weight_init("relu").l2(1e-4)
    chain = chain.input_type(InputType.convolutional(8, 8, 2))
    leaky = ACTIVATIONS.named("leakyrelu", alpha=1)
    chain.layer(Convolution2D(n_out=3, kernel_size=(3, 3), activation=leaky))
    chain.layer(Dense(n_out=5, dropout=0.5, bias_updater="sgd"))
    conf = chain.layer(Output(n_out=3, loss="mcxent", activation="softmax")).build()
    found = read(CHAIN)
    assert found == conf and found.to_json() == conf.to_json()
    assert read(conf.to_yaml()) == conf  # DL4J's own YAML comes through the same door


def test_a_layer_around_another():
    text = (
        "seed: 1\nlayers:\n  - bidirectional: {fwd: {lstm: {n_in: 3, n_out: 2}}}\n"
        "  - rnn_output: {n_out: 2}"
    )
    chain = NeuralNetConfiguration.builder().seed(1)
    chain.layer(Bidirectional(fwd=LSTM(n_in=3, n_out=2)))
    assert read(text) == chain.layer(RnnOutput(n_out=2)).build()


def test_a_graph():
    found = read("""
seed: 1
inputs: [x, z]
input_types: [{feed_forward: 4}, {feedForward: 2}]
layers:
  a: {dense: {n_out: 5, activation: tanh}, reads: x}
  both: {merge: {}, reads: [a, z]}
  out: {output: {n_out: 3}, reads: both}
outputs: out
""")
    graph = NeuralNetConfiguration.builder().seed(1).graph_builder()
    graph.add_inputs("x", "z")
    graph.set_input_types(InputType.feed_forward(4), InputType.feed_forward(2))
    graph.add_layer("a", Dense(n_out=5, activation="tanh"), "x")
    graph.add_vertex("both", MergeVertex(), "a", "z")
    graph.add_layer("out", Output(n_out=3), "both").set_outputs("out")
    assert found == graph.build()


@pytest.mark.parametrize(
    "text, says",
    [
        ("layers: [{dens: {n_in: 2}}]", r"layers\[0\]: unknown layer 'dens'.*dense"),
        ("layers: [{dense: {n_inn: 2}}]", r"layers\[0\]: .*n_inn"),
        ("layers: [{dense: {}, output: {}}]", r"layers\[0\]: expected a name, or"),
        ("layers: 3", "layers: expected a list, got 3"),
        ("sed: 1\nlayers: []", "sed: .*did you mean 'seed'"),
        ("updater: {adam: {rate: 1}}\nlayers: []", "updater: .*'rate'"),
        ("input_type: {feed: 2}\nlayers: []", "input_type: unknown 'feed'"),
        ("outputs: [a]\nlayers: []", "outputs: only a graph has them"),
        ("inputs: [a]\nlayers: {a: {dense: {}}}", "outputs: a graph needs them"),
        ("inputs: x\noutputs: a\nlayers: {a: dense}", "layers.a: expected .*reads"),
    ],
)
def test_what_does_not_fit_is_named(text, says):
    with pytest.raises(ConfigurationError, match=says):
        read(text)
