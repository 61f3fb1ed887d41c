"""The builder and its JSON: values, inheritance, inference, errors."""

import dataclasses
import json
import math

import pytest
import torch

import dl4py
from dl4py.config import (
    L1,
    L2,
    LSTM,
    ActivationLayer,
    BatchNormalization,
    CnnToFeedForward,
    ConfigurationError,
    Convolution2D,
    Dense,
    DL4JFormatError,
    DropConnect,
    Dropout,
    DropoutLayer,
    FeedForwardToCnn,
    GlobalPooling,
    InputType,
    LossLayer,
    MaxNorm,
    MultiLayerConfiguration,
    NeuralNetConfiguration,
    Output,
    RnnOutput,
    RnnToFeedForward,
    Subsampling,
    UnitNorm,
    WeightDecay,
)
from dl4py.registry import LAYERS, MODULES, SCHEDULES
from dl4py.weight_init import Constant


def builder():
    return NeuralNetConfiguration.builder().seed(1)


def lenet():
    return (
        builder()
        .updater("adam", lr=0.01)
        .input_type(InputType.convolutional_flat(28, 28, 1))
        .layer(Convolution2D(kernel_size=5, n_out=20, activation="identity"))
        .layer(Subsampling(pooling_type="max", kernel_size=2, stride=2))
        .layer(BatchNormalization())
        .layer(Dense(n_out=50, activation="relu", l2=1e-3))
        .layer(Output(n_out=10))
        .build()
    )


class TestIntroductionPage:
    """The snippets of DL4J's introduction page, in Python."""

    def test_output_layer_with_activation(self):
        conf = (
            builder()
            .list()
            .layer(0, Dense.builder().nIn(4).nOut(3).build())
            .layer(1, Dense.builder().nIn(3).nOut(3).build())
            .layer(
                2,
                Output.builder("NEGATIVELOGLIKELIHOOD")
                .activation("SOFTMAX")
                .nIn(3)
                .nOut(2)
                .build(),
            )
            .build()
        )
        last = conf.layers[2]
        assert (last.loss.name, last.activation.name) == (
            "negativeloglikelihood",
            "softmax",
        )
        assert conf.module().output(torch.zeros(5, 4)).shape == (5, 2)

    def test_output_layer(self):
        conf = (
            builder()
            .list()
            .layer(0, Dense.builder().nIn(4).nOut(3).build())
            .layer(1, Output.builder("NEGATIVELOGLIKELIHOOD").nOut(2).build())
            .build()
        )
        assert conf.layers[1].loss.name == "negativeloglikelihood"


class TestInference:
    def test_sizes_and_preprocessors_follow_from_the_input(self):
        conf = lenet()
        sizes = [(layer.n_in, layer.n_out) for layer in conf.layers[::2]]
        assert sizes == [(1, 20), (20, 20), (50, 10)]
        assert conf.layers[3].n_in == 12 * 12 * 20
        assert conf.preprocessors == {
            0: FeedForwardToCnn(height=28, width=28, channels=1),
            3: CnnToFeedForward(height=12, width=12, channels=20),
        }

    def test_series(self):
        conf = (
            builder()
            .input_type(InputType.recurrent(6))
            .layer(LSTM(n_out=5, activation="tanh"))
            .layer(Dense(n_out=4))
            .layer(RnnOutput(n_out=3))
            .build()
        )
        assert [type(p).__name__ for p in conf.preprocessors.values()] == [
            "RnnToFeedForward",
            "FeedForwardToRnn",
        ]
        assert conf.module().output(torch.zeros(2, 6, 7)).shape == (2, 3, 7)

    @pytest.mark.parametrize(
        "mode, size", [("Truncate", 4), ("Same", 5), ("Strict", None)]
    )
    def test_convolution_modes(self, mode, size):
        chain = builder().convolution_mode(mode)
        chain.input_type(InputType.convolutional(9, 9, 2))
        chain.layer(Convolution2D(n_out=3, kernel_size=2, stride=2))
        chain.layer(GlobalPooling())
        if size is None:
            with pytest.raises(ConfigurationError, match="Strict needs"):
                chain.build()
            return
        net = chain.build().module()
        assert net.feed_forward(torch.zeros(1, 2, 9, 9))[0].shape == (1, 3, size, size)

    def test_channels_last(self):
        conf = (
            builder()
            .input_type(InputType.convolutional(6, 5, 2, "NHWC"))
            .layer(Convolution2D(n_out=3, kernel_size=2))
            .layer(Subsampling(kernel_size=2))
            .layer(GlobalPooling(pooling_type="avg"))
            .build()
        )
        shapes = [y.shape for y in conf.module().feed_forward(torch.zeros(2, 6, 5, 2))]
        assert shapes == [(2, 5, 4, 3), (2, 2, 2, 3), (2, 3)]


class TestInheritance:
    def test_a_layer_of_its_own_wins(self):
        conf = (
            builder()
            .activation("tanh")
            .weight_init("relu")
            .updater("nesterovs", momentum=0.5)
            .drop_out(0.8)
            .l1(0.1)
            .layer(Dense(n_in=3, n_out=3))
            .layer(
                Dense(n_out=2, activation="relu", dropout=0.5, l1=0.2, updater="sgd")
            )
            .layer(Output(n_out=2))
            .build()
        )
        a, b, c = conf.layers
        assert [x.activation.name for x in conf.layers] == ["tanh", "relu", "softmax"]
        assert a.updater.kwargs == {"lr": 0.1, "momentum": 0.5}
        assert (b.updater.name, c.updater.name) == ("sgd", "nesterovs")
        assert (a.dropout, b.dropout) == (Dropout(0.8), Dropout(0.5))
        assert (a.regularization, b.regularization) == ((L1(0.1),), (L1(0.2),))

    def test_penalties_as_dl4j_combines_them(self):
        conf = (
            builder()
            .l1(0.3)
            .l2(0.1)
            .layer(Dense(n_in=3, n_out=3, l1=0.2))
            .layer(Dense(n_out=3, weight_decay=0.5))
            .build()
        )
        first, second = conf.layers
        assert first.regularization == (L1(0.2), L2(0.1))
        assert second.regularization == (WeightDecay(0.5), L1(0.3), L2(0.1))
        alone = Dense.builder().l2(0.1).weight_decay(0.2, apply_lr=False).build()
        assert alone.regularization == (WeightDecay(0.2, apply_lr=False),)

    def test_dl4j_defaults(self):
        conf = (
            builder()
            .input_type(InputType.recurrent(3))
            .layer(LSTM(n_out=2))
            .layer(GlobalPooling())
            .layer(Output(n_out=2))
            .build()
        )
        lstm, pool, out = conf.layers
        assert lstm.activation.name == "sigmoid"  # DL4J's global default
        assert lstm.updater.kwargs == {"lr": 1e-3}
        assert (pool.pooling_type, pool.pnorm) == ("MAX", 2)
        assert (out.loss.name, out.activation.name) == ("mcxent", "softmax")
        assert (conf.data_type, conf.mini_batch) == ("FLOAT", True)

    def test_constraints_name_their_parameters(self):
        conf = (
            builder()
            .constrain_weights(MaxNorm(max_norm=2.0))
            .constrain_bias(UnitNorm(dimensions=(0,)))
            .layer(Dense(n_in=3, n_out=3))
            .layer(LossLayer())
            .build()
        )
        found = [(type(c).__name__, c.params) for c in conf.layers[0].constraints]
        assert found == [("MaxNorm", ("W",)), ("UnitNorm", ("b",))]
        assert conf.layers[1].constraints is None


class TestErrors:
    @pytest.mark.parametrize(
        "layer, message",
        [
            (Dense(n_out=0), r"layer 1 \(Dense\): n_out: must be a whole number >= 1"),
            (Dense(n_out=2.5), "n_out: must be a whole number >= 1, got 2.5"),
            (Dense(n_in=7, n_out=2), "n_in: the layer before gives 3, got 7"),
            (Dense(n_out=2, activation="tahn"), "activation: unknown activation"),
            (Dense(n_out=2, weight_init="xaver"), "weight_init: unknown weight init"),
            (Dense(n_out=2, updater="adm"), "updater: unknown updater 'adm'"),
            (Dense(n_out=2, dropout=1.5), "dropout: Dropout.*must be in"),
            (Dense(n_out=2, dropout=len), "dropout: must be a dropout, got <built-in"),
            (Dense(n_out=2, weight_noise=len), "weight_noise: must be a weight noise"),
            (Dense(n_out=2, constraints=[len]), "constraints: must be a constraint"),
            (Dense(n_out=2, bias_init=math.nan), "bias_init: must be a finite number"),
            (Dense(n_out=2, has_bias="yes"), "has_bias: must be True or False"),
            (Dense(), "n_out: expected a whole number >= 1, got nothing"),
            (Output(n_out=2, loss="mcxnet"), "loss: unknown loss 'mcxnet': did you"),
            (Output(n_out=1), "activation: softmax of one output"),
            (Dense(n_out=2, gradient_normalization="clip"), "must be one of None, "),
        ],
    )
    def test_name_layer_field_expected_and_given(self, layer, message):
        chain = builder().layer(Dense(n_in=3, n_out=3)).layer(layer)
        with pytest.raises(ConfigurationError, match=message) as caught:
            chain.build()
        assert "layer 1" in str(caught.value)

    def test_a_schedule_stands_for_noise_by_it(self):
        falling = SCHEDULES["step"](initial_value=0.9, decay_rate=0.5, step=1)
        layer = Dense(n_in=2, n_out=3, dropout=falling, weight_noise=falling)
        conf = builder().layer(layer).layer(Output(n_out=2)).build()
        found = conf.layers[0]
        assert str(found.dropout) == str(Dropout(falling))
        assert str(found.weight_noise) == str(DropConnect(falling))
        again = NeuralNetConfiguration.from_json(conf.to_json())
        assert str(again.layers[0]) == str(found)

    def test_negative_rates(self):
        chain = builder().updater("adam", lr=-0.1).layer(Dense(n_in=2, n_out=2))
        with pytest.raises(ConfigurationError, match="lr"):
            chain.build()
        with pytest.raises(ValueError, match="L2.*must be"):
            builder().l2(-1.0).layer(Dense(n_in=2, n_out=2)).build()

    def test_windows_that_do_not_fit(self):
        chain = builder().input_type(InputType.convolutional(4, 4, 1))
        chain.layer(Convolution2D(n_out=2, kernel_size=7))
        with pytest.raises(ConfigurationError, match="layer 0 .*kernel_size.*of 7"):
            chain.build()

    def test_misspelled_settings(self):
        with pytest.raises(AttributeError, match="'weight_int'.*'weight_init'"):
            builder().weight_int("xavier")
        with pytest.raises(AttributeError, match="'n_ouput'.*'n_out'"):
            Dense.builder().n_ouput(3)
        with pytest.raises(TypeError):
            Dense(nout=3)

    def test_layers_must_be_layers_and_numbered(self):
        with pytest.raises(ConfigurationError, match="expected a layer configuration"):
            builder().layer(torch.nn.Linear(2, 2))
        with pytest.raises(ConfigurationError, match="numbered 0 to n-1"):
            builder().layer(1, Dense(n_in=2, n_out=2)).build()
        with pytest.raises(ConfigurationError, match="given twice"):
            builder().layer(0, Dense(n_out=2)).layer(0, Dense(n_out=2))

    def test_convolution_needs_image_sizes(self):
        chain = builder().input_type(InputType.feed_forward(9))
        with pytest.raises(ConfigurationError, match="convolutional_flat"):
            chain.layer(Convolution2D(n_out=2)).build()

    def test_nothing_where_something_is_needed(self):
        for make in (lambda: MaxNorm(max_norm=None), lambda: Constant(value=None)):
            with pytest.raises(ValueError, match=r"=...\) must be .*, got None"):
                make()

    @pytest.mark.parametrize(
        "setting, args, options, message",
        [
            ("updater", (), {"name": "adam"}, r"updater\(value\): .*got name='adam'"),
            ("updater", (), {}, r"updater\(value\): expected one value.*got nothing"),
            ("updater", ("adam", 1), {"lr": 0.1}, "got 'adam', 1, lr=0.1"),
            ("activation", (), {"function": "relu"}, "got function='relu'"),
            ("weight_init", (), {}, "got nothing"),
            ("nOut", (), {}, r"nOut\(value\): .*got nothing"),
            ("backprop", (), {}, r"backprop\(\): current DL4J"),
            ("layer", (), {}, "got 0 values"),
            ("layer", (0, 1, Dense(n_out=3)), {}, "got 3 values"),
        ],
    )
    def test_one_value_a_call(self, setting, args, options, message):
        words = Dense.builder() if setting == "nOut" else builder()
        with pytest.raises((TypeError, ConfigurationError), match=message):
            getattr(words, setting)(*args, **options)

    def test_old_switches(self):
        builder().backprop(True).pretrain(False).iterations(1)
        with pytest.raises(ConfigurationError, match="pretrain"):
            builder().pretrain(True)


class TestJson:
    def test_round_trip(self):
        conf = lenet()
        again = NeuralNetConfiguration.from_json(conf.to_json())
        assert again == conf
        assert json.loads(again.to_json()) == json.loads(conf.to_json())

    def test_words_are_dl4j(self):
        content = lenet().to_dict()
        layer = content["confs"][3]["layer"]
        assert layer["@class"] == "org.deeplearning4j.nn.conf.layers.DenseLayer"
        assert (layer["nin"], layer["nout"], layer["hasBias"]) == (2880, 50, True)
        assert layer["iupdater"]["learningRate"] == 0.01
        assert layer["regularization"][0]["l2"]["value"] == 1e-3
        assert list(layer) == sorted(layer)
        assert content["confs"][3]["variables"] == ["W", "b"]

    def test_unknown_keys_are_kept(self):
        content = lenet().to_dict()
        content["fromTheFuture"] = {"a": [1, 2]}
        content["confs"][0]["layer"]["cudnnAlgoMode"] = "PREFER_FASTEST"
        content["confs"][0]["layer"]["iupdater"]["warp"] = 9
        content["confs"][0]["beside"] = "the first layer"
        content["confs"][2]["beside"] = {"the": "third"}
        content["confs"][1]["layer"]["numbers"] = ["NaN", 1, {"a": "-Infinity"}]
        content["confs"][1]["layer"]["known"] = content["confs"][0]["layer"]["iupdater"]
        content["layers"] = content["extra"] = 3
        again = NeuralNetConfiguration.from_json(json.dumps(content))
        assert again.to_dict() == content

    def test_schedules_and_nan(self):
        rate = dl4py.schedules.get("step", initial_value=0.1, decay_rate=0.5, step=2)
        chain = builder().updater("nesterovs", lr=rate).layer(Dense(n_in=2, n_out=2))
        conf = chain.layer(Output(n_out=2)).build()
        updater = conf.to_dict()["confs"][0]["layer"]["iupdater"]
        assert updater["learningRate"] == "NaN"
        assert updater["learningRateSchedule"]["scheduleType"] == "ITERATION"
        assert NeuralNetConfiguration.from_json(conf.to_json()) == conf

    @pytest.mark.parametrize(
        "text, message",
        [
            ("{", "not JSON"),
            ("[]", "expected an object"),
            ("{}", r"\$.confs"),
            ('{"confs": [{}]}', r"\$.confs\[0\].layer"),
            (
                '{"confs": [{"layer": {"@class": "a.b.Foo"}}]}',
                "unknown layer 'a.b.Foo'",
            ),
        ],
    )
    def test_damaged_text(self, text, message):
        with pytest.raises(DL4JFormatError, match=message):
            NeuralNetConfiguration.from_json(text)

    def test_as_many_parts_as_its_length_allows(self):
        """Thousands of layers are read; a text of nothing but brackets is not."""
        content = builder().layer(Dense(n_in=2, n_out=2)).build().to_dict()
        for text, fits in (("", False), ("x" * 60, True)):
            content["confs"][0]["layer"]["own"] = [[text]] * 60_000
            given = json.dumps(content)
            if fits:
                conf = NeuralNetConfiguration.from_json(given)
                assert conf.to_dict() == content
            else:
                with pytest.raises(DL4JFormatError, match="more than 50000 objects"):
                    NeuralNetConfiguration.from_json(given)

    def test_unregistered_functions_cannot_be_written(self):
        conf = builder().layer(Dense(n_in=2, n_out=2, activation=torch.sin)).build()
        with pytest.raises(TypeError, match=r"confs\[0\].layer.activationFn.*register"):
            conf.to_json()


def minimal(key):
    """The smallest network around one kind of layer."""
    layer, given = LAYERS[key].example()
    return builder().activation("tanh").input_type(given).layer(layer).build()


OWN = [key for key in LAYERS if LAYERS[key].__module__.startswith("dl4py.")]


@pytest.mark.parametrize("key", OWN)
class TestEveryLayer:
    def test_has_a_module_and_documentation(self, key):
        assert key in MODULES
        for cls in (LAYERS[key], MODULES[key]):
            assert cls.__doc__ and "DL4J" in cls.__doc__

    def test_json_round_trip(self, key):
        conf = minimal(key)
        assert MultiLayerConfiguration.from_dict(conf.to_dict()) == conf

    def test_variables_are_the_views(self, key):
        conf = minimal(key)
        net = conf.module()
        assert {view.name for view in net.views()} == set(conf.layers[0].parameters)

    def test_output_type_is_the_output_shape(self, key):
        _, given = LAYERS[key].example()
        net = minimal(key).module()
        x = torch.rand(3, *given.shape).round()
        assert list(net.output(x).shape[1:]) == list(
            net.conf.layers[0].output(given).shape
        )

    def test_builder_knows_every_field_in_both_spellings(self, key):
        cls = LAYERS[key]
        for field in dataclasses.fields(cls):
            head, *tail = field.name.split("_")
            camel = head + "".join(t.title() for t in tail)
            for name in (field.name, camel):
                assert callable(getattr(cls.builder(), name))


def test_preprocessor_of_ones_own():
    conf = (
        builder()
        .layer(LSTM(n_in=3, n_out=2))
        .layer(Dense(n_out=2))
        .input_pre_processor(1, RnnToFeedForward())
        .build()
    )
    assert conf.preprocessors[1] == RnnToFeedForward()


def test_layers_by_position_of_dl4j_builders():
    assert Convolution2D.builder(5, 5).build().kernel_size == (5, 5)
    assert Subsampling.builder("MAX", (2, 2)).build().pooling_type == "MAX"
    assert DropoutLayer.builder(0.5).build().dropout == 0.5
    assert ActivationLayer.builder("relu").build().activation == "relu"
    assert LossLayer.builder().build().loss == "mcxent"
    with pytest.raises(TypeError, match="takes 0 values"):
        Dense.builder(3)
