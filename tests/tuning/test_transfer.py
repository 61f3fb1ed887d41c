"""Networks made of trained ones, as DL4J's TransferLearning makes them."""

import json

import pytest
import torch

import dl4py
from dl4py.config import (
    LSTM,
    ActivationLayer,
    BatchNormalization,
    Convolution2D,
    Dense,
    InputType,
    MergeVertex,
    NeuralNetConfiguration,
    Output,
    RnnOutput,
    Subsampling,
)
from dl4py.layers.wrappers import Frozen
from tests import catalogue


def seeded():
    return NeuralNetConfiguration.builder().seed(99)


HOW = {
    "transfer_feature_extractor": lambda t: t.fine_tune(
        seeded().updater("adam", lr=0.01)
    ).freeze_until(0),
    "transfer_nout_replace": lambda t: t.fine_tune(
        seeded().updater("sgd", lr=0.05)
    ).n_out_replace(1, 6, "xavier"),
    "transfer_replace_output": lambda t: (
        t.fine_tune(seeded().updater("sgd", lr=0.05).l2(0.01).activation("sigmoid"))
        .set_feature_extractor("layer1")
        .remove()
        .add(Dense(n_in=4, n_out=6, activation="relu"))
        .add(Output(n_in=6, n_out=3))
    ),
    "transfer_graph": lambda t: (
        t.fine_tune(seeded().updater("adam", lr=0.01))
        .freeze_until("a")
        .remove("out")
        .add("c", Dense(n_out=5, activation="tanh"), "b")
        .add("o2", Output(n_in=5, n_out=3), "c")
        .set_outputs("o2")
    ),
}


@pytest.mark.skipif(not catalogue.WHOLE.is_dir(), reason="the catalogue's base.zip")
@pytest.mark.parametrize("name", HOW)
def test_equals_dl4j(name):
    """Configuration, parameters, also those that are drawn anew, and every step."""
    case = catalogue.load(name)
    base = dl4py.restore(catalogue.WHOLE / name / "base.zip")
    before = base.params()
    native = dl4py.NativeRandom(12345)
    base.conf.module(dl4j_exact=True, noise=native)  # DL4J goes on from there
    if name == "transfer_graph":
        native = dl4py.NativeRandom(99)
    net = HOW[name](dl4py.transfer(base)).build(native)
    assert json.loads(net.conf.to_json()) == json.loads(case.json)
    theirs = torch.from_numpy(case.arrays["params"]).to(net.params().dtype)
    assert torch.equal(net.params(), theirs)
    assert torch.equal(base.params(), before) and not net.updater_state().any()
    x, y = (torch.from_numpy(case.arrays[k]).to(theirs) for k in ("in_0", "labels_0"))
    scores = [net.fit(x, y) for _ in range(3)]
    exact = {"rtol": 1e-9, "atol": 1e-12} if x.dtype == torch.float64 else {}
    found = torch.from_numpy(case.arrays["params_after_3"]).to(theirs)
    torch.testing.assert_close(net.params(), found, **exact)
    assert scores == pytest.approx(case.arrays["scores"], rel=1e-6)


def chain(*layers, given=None, **settings):
    made = NeuralNetConfiguration.builder().seed(5).data_type("double")
    made.updater("adam", lr=0.05).activation("tanh")
    for name, value in settings.items():
        getattr(made, name)(value)
    if given is not None:
        made.input_type(given)
    for layer in layers:
        made.layer(layer)
    return made.build().module()


def mlp():
    return chain(Dense(n_in=4, n_out=6), Dense(n_out=5), Output(n_out=3))


def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 4, generator=g, dtype=torch.float64)
    return x, torch.eye(3, dtype=torch.float64)[torch.arange(12) % 3]


def test_what_is_frozen_stays():
    net = dl4py.transfer(mlp()).freeze_until("layer1").build()
    before = net.params()
    net.fit(*data())
    moved = net.params() != before
    assert not moved[:65].any() and moved[65:].all()
    again = dl4py.transfer(net).freeze_until(1).build()
    assert [type(n.layer) is Frozen for n in again.nodes] == [True, True, False]
    assert not isinstance(again.nodes[0].conf.underlying, type(again.nodes[0].conf))


def test_fine_tuning_reaches_into_wrappers_and_keeps_the_rest():
    net = dl4py.transfer(mlp()).freeze_until(0).build()
    words = NeuralNetConfiguration.builder().updater("sgd", lr=0.5).dropout(0.9)
    new = dl4py.transfer(net).fine_tune(words, l2=0.1, mini_batch=False).build()
    for layer in (new.conf.layers[0].underlying, *new.conf.layers[1:]):
        assert layer.updater.kwargs["lr"] == 0.5 and layer.dropout.p == 0.9
        assert [r.l2.value for r in layer.regularization] == [0.1]
    assert new.conf.layers[1].activation.name == "tanh"
    assert not new.conf.mini_batch and net.conf.mini_batch
    assert torch.equal(new.params(), net.params())


def test_sizes_go_through_what_has_none():
    first = chain(
        Convolution2D(n_out=3, kernel_size=3), BatchNormalization(),
        ActivationLayer(activation="relu"), Subsampling(kernel_size=2),
        Dense(n_out=4), Output(n_out=3), given=InputType.convolutional(8, 8, 2),
    )  # fmt: skip
    new = dl4py.transfer(first).n_out_replace(0, 5, "relu", "xavier").build()
    assert (new.conf.layers[1].n_in, new.conf.layers[4].n_in) == (5, 5 * 9)
    x = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    assert new.output(x).shape == (2, 3)
    assert torch.equal(new.params()[-15:], first.params()[-15:])
    other = dl4py.transfer(mlp()).n_in_replace(0, 7, "zero").build()
    assert not other.output(torch.rand(2, 7, dtype=torch.float64)).isnan().any()
    assert not other.params()[:42].any()


def test_series_and_layers_without_sizes():
    first = chain(LSTM(n_in=4, n_out=5), RnnOutput(n_out=3))
    new = dl4py.transfer(first).remove().add(LSTM(n_out=2)).add(RnnOutput(n_out=7))
    net = new.build()
    assert net.output(torch.zeros(2, 4, 6, dtype=torch.float64)).shape == (2, 7, 6)
    size = sum(v.size for v in first.views() if v.node == "layer0")
    assert torch.equal(net.params()[:size], first.params()[:size])


def graph():
    made = NeuralNetConfiguration.builder().seed(5).data_type("double").updater("sgd")
    made = made.activation("tanh").graph_builder().add_inputs("x", "y")
    made.set_input_types(InputType.feed_forward(4), InputType.feed_forward(4))
    made.add_layer("a", Dense(n_out=5), "x").add_layer("b", Dense(n_out=6), "y")
    made.add_vertex("m", MergeVertex(), "a", "b").add_layer("c", Dense(n_out=4), "m")
    made.add_layer("o", Output(n_out=3), "c").add_layer("p", Output(n_out=2), "b")
    return made.set_outputs("o", "p").build().module()


def test_graphs():
    first = graph()
    new = dl4py.transfer(first).n_out_replace("a", 7).freeze_until("b")
    new.remove("p").add("q", Output(n_out=4), "b", "c").set_outputs("o", "q")
    net = new.build()
    assert net.conf.vertices["c"].n_in == 13 and net.conf.vertices["q"].n_in == 10
    x, _ = data()
    o, q = net.output((x, x + 1))
    assert (o.shape, q.shape) == ((12, 3), (12, 4))
    kept = dl4py.transfer(first).remove("c", keep_connections=True)
    kept = kept.add("c", Dense(n_out=4, activation="relu"), "m").build()
    assert kept.plan.outputs == ("o", "p") and kept.output((x, x))[0].shape == (12, 3)


def test_what_dl4j_does_besides():
    """As its TransferLearning wrote it for the same networks."""
    made = NeuralNetConfiguration.builder().seed(5).backprop_type("TruncatedBPTT")
    made.tbptt_length(7).layer(LSTM(n_in=4, n_out=5)).layer(
        ActivationLayer(activation="relu")
    )
    conf = made.layer(RnnOutput(n_in=5, n_out=3)).build()
    words = NeuralNetConfiguration.builder().l1(0.1).weight_decay(0.2).dropout(0.8)
    for exact in (False, True):
        net = conf.module(dl4j_exact=exact)
        new = dl4py.transfer(net).fine_tune(words).freeze_until(0).configuration()
        kinds = [type(r).__name__ for r in new.layers[0].underlying.regularization]
        assert kinds == ["L1", "WeightDecay", *["WeightDecay"] * exact]
        assert new.layers[1].dropout is None and new.layers[2].dropout.p == 0.8
        assert new.truncated != exact and new.tbptt_fwd_length == (20 if exact else 7)


class TestHelper:
    @pytest.mark.parametrize("until", [0, "layer1"])
    def test_training_on_features_is_training(self, until):
        base = mlp()
        whole = dl4py.transfer(base).freeze_until(until).build()
        helper = dl4py.TransferHelper(base, until)
        x, y = data()
        mask = torch.ones(12, dtype=torch.float64)
        mask[3] = 0
        batches = [(x, y), (x + 1, y, None, mask)]
        features = helper.featurize(batches)
        scores = [whole.fit(batches), helper.fit_featurized(features)]
        assert scores[0] == scores[1]
        assert torch.equal(whole.params(), helper.network.params())
        assert torch.equal(whole.updater_state(), helper.unfrozen.updater_state())
        found = helper.output_from_featurized(features[0][0])
        assert torch.equal(found, whole.output(x))
        assert not torch.equal(base.params(), whole.params())

    def test_graphs_have_several_features(self):
        base, (x, y) = graph(), data()
        helper = dl4py.TransferHelper(base, "a")
        assert set(helper.features) == {"a", "y"}
        features, labels = helper.featurize(((x, x + 1), (y, y[:, :2])))
        whole = dl4py.transfer(base).freeze_until("a").build()
        whole.fit((x, x + 1), labels)
        helper.fit_featurized(features, labels)
        torch.testing.assert_close(helper.network.params(), whole.params())

    def test_masks_go_along(self):
        base = chain(LSTM(n_in=4, n_out=5), RnnOutput(n_out=3))
        helper = dl4py.TransferHelper(base, 0)
        x = torch.randn(2, 4, 6, dtype=torch.float64)
        mask = torch.ones(2, 6, dtype=torch.float64)
        mask[1, 3:] = 0
        y = torch.zeros(2, 3, 6, dtype=torch.float64)
        features, _, own, _ = helper.featurize((x, y, mask, None))
        found = helper.output_from_featurized(features, own)
        torch.testing.assert_close(found, helper.network.output(x, mask))

    def test_something_must_be_frozen(self):
        with pytest.raises(ValueError, match="no layer is frozen; name those"):
            dl4py.TransferHelper(mlp())


def test_bad_input_is_refused():
    net, tree = mlp(), graph()
    for call, message in {
        lambda: dl4py.transfer(net).freeze_until("layer2").build(): "'layer2' is an out"
        "put.*freeze until a layer before",
        lambda: dl4py.transfer(net).freeze_until(3): "expected one of layer0, layer1",
        lambda: dl4py.transfer(net).freeze_until(1).remove(2).build(): "got 'layer1'",
        lambda: dl4py.transfer(net).remove(4): "a number of layers from 1 to 3, got 4",
        lambda: dl4py.transfer(net).remove(3).build(): "no layer is left",
        lambda: dl4py.transfer(net).n_out_replace(0, 0): "n_out: must be",
        lambda: dl4py.transfer(tree).add("a", Dense(n_out=2), "x"): "'a' is taken",
        lambda: dl4py.transfer(tree).remove("c").build(): "'o'",
        lambda: dl4py.transfer(tree).n_out_replace("m", 3): "has no n_out of its own",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="expected a dl4py.Network, got Linear"):
        dl4py.transfer(torch.nn.Linear(2, 2))
