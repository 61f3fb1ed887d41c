"""JSON of old releases becomes that of the current one, which passes unchanged."""

import copy
import json

import pytest

import dl4py
from dl4py.config import (
    LSTM,
    BatchNormalization,
    Bidirectional,
    Convolution2D,
    Dense,
    Embedding,
    NeuralNetConfiguration,
    Output,
    Subsampling,
)
from dl4py.config.eras import RELEASES, current
from tests import catalogue


def content(*layers, **settings):
    chain = NeuralNetConfiguration.builder().seed(1)
    for name, value in settings.items():
        chain = getattr(chain, name)(value)
    for layer in layers:
        chain.layer(layer)
    return chain.build().to_dict()


def without(given, *keys):
    given = copy.deepcopy(given)
    for conf in given["confs"]:
        for key in keys:
            conf["layer"].pop(key, None)
    return given


@pytest.mark.parametrize("name", catalogue.copied())
def test_the_current_one_passes_unchanged(name):
    given = json.loads(catalogue.load(name).json)
    assert current(given) == given


def test_what_is_given_stays_as_it_is():
    given = without(content(Embedding(n_in=3, n_out=2)), "hasBias")
    before = copy.deepcopy(given)
    assert current(given) != before == given


def test_every_release_says_what_it_is():
    assert all(change.__doc__ for change in RELEASES)


class TestReleases:
    def test_windows_without_a_mode(self):
        layers = (Convolution2D(n_in=1, n_out=1), Subsampling())
        given = content(*layers, convolution_mode="Same")
        conf = NeuralNetConfiguration.from_dict(without(given, "convolutionMode"))
        assert [layer.convolution_mode for layer in conf.layers] == ["Truncate"] * 2

    def test_means_that_count_padding(self):
        given = content(Subsampling(pooling_type="AVG"))
        old = without(given, "avgPoolIncludePadInDivisor")
        assert (
            not NeuralNetConfiguration.from_dict(given)
            .layers[0]
            .avg_pool_include_pad_in_divisor
        )
        assert (
            NeuralNetConfiguration.from_dict(old)
            .layers[0]
            .avg_pool_include_pad_in_divisor
        )

    def test_embeddings_with_a_bias(self):
        given = content(Embedding(n_in=3, n_out=2))
        assert not NeuralNetConfiguration.from_dict(given).layers[0].has_bias
        old = without(given, "hasBias")
        assert NeuralNetConfiguration.from_dict(old).layers[0].has_bias

    @pytest.mark.parametrize("name, log", [("var", False), ("log10stdev", True)])
    def test_variances_by_the_names_of_parameters(self, name, log):
        layer = BatchNormalization(n_in=2, n_out=2, use_log_std=not log)
        given = without(content(Dense(n_in=2, n_out=2), layer), "useLogStd")
        given["confs"][1]["variables"] = ["gamma", "beta", "mean", name]
        conf = NeuralNetConfiguration.from_dict(given)
        assert conf.layers[1].use_log_std == log
        assert conf.layers[1].variables[-1] == name
        inside = given["confs"][1]["layer"]
        around = {"@class": "org.deeplearning4j.nn.conf.layers.misc.FrozenLayer"}
        given["confs"][1]["layer"] = {**around, "layer": inside}
        found = current(given)["confs"][1]["layer"]["layer"]
        assert found["useLogStd"] == log

    def test_sizes_of_both_directions(self):
        inside = LSTM(n_in=2, n_out=3, activation="tanh")
        given = content(Bidirectional(mode="CONCAT", fwd=inside))
        layer = given["confs"][0]["layer"]
        assert (layer["nin"], layer["nout"]) == (2, 6)
        layer["nout"] = 3
        conf = NeuralNetConfiguration.from_dict(given)
        assert conf.to_dict()["confs"][0]["layer"]["nout"] == 6
        layer["nout"] = 4
        with pytest.raises(
            dl4py.DL4JFormatError, match="layer: nout: must be 6, which"
        ):
            NeuralNetConfiguration.from_dict(given)

    def test_the_schedule_of_a_momentum(self):
        schedule = dl4py.schedules.get("exponential", initial_value=0.9, gamma=0.5)
        settings = dl4py.registry.UPDATERS.named("nesterovs", momentum=schedule)
        given = content(Output(n_in=2, n_out=2), updater=settings)
        updater = given["confs"][0]["layer"]["iupdater"]
        updater["momentumSchedule"] = updater.pop("momentumISchedule")
        conf = NeuralNetConfiguration.from_dict(given)
        assert conf.layers[0].updater.kwargs["momentum"] == schedule

    def test_one_factor_for_both_axes(self):
        layer = {"@class": "org.deeplearning4j.nn.conf.layers.Upsampling2D", "size": 3}
        assert current({"layer": layer})["layer"]["size"] == [3, 3]
        assert current({"layer": {**layer, "size": [2, 3]}})["layer"]["size"] == [2, 3]

    def test_no_number_in_place_of_a_list_elsewhere(self):
        given = content(Subsampling())
        given["confs"][0]["layer"]["stride"] = 2
        with pytest.raises(dl4py.DL4JFormatError, match="stride: .* a list of 2"):
            NeuralNetConfiguration.from_dict(given)
