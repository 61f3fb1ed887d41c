"""Layers and vertices that are somebody's Java code are refused by name."""

import json

import pytest

from dl4py import config
from dl4py.config import DL4JFormatError, InputType, NeuralNetConfiguration

COMMON = {
    "@class": "org.acme.Highway",
    "layerName": "layer0",
    "layerParams": {"biasParams": {}, "weightParams": {"W": [3, 3]}},
    "paramWeightInit": None,
    "weightInit": "XAVIER",
}
LAMBDA = "org.deeplearning4j.nn.conf.layers.samediff.SameDiffLambdaLayer"


def chain(layer):
    words = NeuralNetConfiguration.builder().input_type(InputType.feed_forward(3))
    text = words.layer(config.Dense(n_out=3)).build().to_json()
    content = json.loads(text)
    content["confs"][0]["layer"] = layer
    return json.dumps(content)


def graph(vertex):
    words = NeuralNetConfiguration.builder().graph_builder().add_inputs("a")
    words.add_vertex("v", config.ScaleVertex(scale_factor=2.0), "a")
    words.add_layer("out", config.Output(n_in=3, n_out=2), "v").set_outputs("out")
    content = json.loads(words.build().to_json())
    content["vertices"]["v"] = vertex
    return json.dumps(content)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            chain(COMMON),
            r"\$.confs\[0\].layer: 'org.acme.Highway' is a SameDiff layer: what it "
            r"computes is Java code.*@LAYERS.add\('name', java='Highway'\)",
        ),
        (chain({"@class": LAMBDA}), "SameDiffLambdaLayer' is a SameDiff layer"),
        (
            chain({**COMMON, "@class": "org.acme.MySameDiffOutputLayer"}),
            "MySameDiffOutputLayer' is a SameDiff layer",
        ),
        (
            chain({"@class": "x.FrozenLayer", "layer": COMMON, "layerName": "a"}),
            r"\$.confs\[0\].layer.layer: 'org.acme.Highway' is a SameDiff layer",
        ),
        (
            graph({"@class": "org.acme.Twice", "vertexParams": {"inputs": []}}),
            r"\$.vertices.v: 'org.acme.Twice' is a SameDiff vertex.*VERTICES.add",
        ),
        (
            graph({"@class": "org.acme.SameDiffLambdaVertex"}),
            r"SameDiffLambdaVertex' is a SameDiff vertex",
        ),
        (chain({"@class": "org.acme.Foo"}), "unknown layer 'org.acme.Foo'"),
        (
            chain({**COMMON, "@class": "org.deeplearning4j.nn.conf.layers.New"}),
            "unknown layer 'org.deeplearning4j.nn.conf.layers.New'",
        ),
    ],
)
def test_refused_by_name(text, message):
    with pytest.raises(DL4JFormatError, match=message):
        NeuralNetConfiguration.from_json(text)
