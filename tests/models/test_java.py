"""Round trip through Java: DL4J opens what dl4py wrote, predicts and trains on."""

import numpy as np
import pytest
import torch

import dl4py
from dl4py.config import (
    LSTM,
    BatchNormalization,
    Convolution2D,
    Dense,
    Frozen,
    FrozenWithBackprop,
    GravesBidirectionalLSTM,
    GravesLSTM,
    InputType,
    LossLayer,
    MaskZero,
    Output,
    RecurrentAttention,
    RnnLoss,
    RnnOutput,
    SelfAttention,
    SimpleRnn,
    Subsampling,
)
from tests import catalogue
from tests.models.test_catalogue import DTYPES, MISSING, configuration, reason

PREDICTED = {"DOUBLE": 1e-12, "FLOAT": 1e-6, "HALF": 2e-3}  # of the largest entry
STEPPED = {"DOUBLE": 1e-10, "FLOAT": 1e-6, "HALF": 4e-3}


def mlp(chain):
    chain.l2(1e-3).layer(Dense(n_in=4, n_out=6, activation="tanh"))
    return chain.layer(BatchNormalization()).layer(Output(n_out=3)), (4,)


def cnn(chain):
    chain.input_type(InputType.convolutional(8, 8, 2)).activation("rationaltanh")
    chain.layer(Convolution2D(n_out=3, kernel_size=3, convolution_mode="Same"))
    chain.layer(Subsampling(kernel_size=2)).layer(Dense(n_out=5))
    return chain.layer(Output(n_out=3)), (2, 8, 8)


def rnn(chain):
    chain.layer(LSTM(n_in=4, n_out=5, activation="tanh"))
    return chain.layer(RnnOutput(n_out=3)), (4, 6)


# DL4J cannot train its own file either, which the test checks
JAVA_REFUSES = {
    **dict.fromkeys(
        ("loss_fmeasure", "loss_mixture_density", "loss_multilabel"),
        "DL4J's loss computes in the JVM's default type, not the network's",
    ),
    "updater_AdaBelief_init": "DL4J cannot instantiate AdaBelief",
}


def error_of(ours, theirs):
    """The largest error as a share of the largest entry."""
    theirs = np.asarray(theirs, float).reshape(ours.shape)
    off = np.abs(ours.double().numpy() - theirs)
    return off.max(initial=0.0) / np.abs(theirs).max(initial=1e-30)


def assert_close(ours, theirs, tolerance, what):
    error = error_of(ours, theirs)
    assert error <= tolerance, f"{what}: off by {error:.1e} of the largest entry"


def go_on_in_java(oracle, net, x, y, folder, *, dtype, steps=3):
    """Save ``net``; DL4J must predict and train on as ``net`` itself does."""
    model, labels = folder / "m.zip", folder / "y.npy"
    dl4py.save(net, model)
    several = x if isinstance(x, tuple) else (x,)
    files = [folder / f"x{i}.npy" for i in range(len(several))]
    for file, t in zip(files, several, strict=True):
        np.save(file, t.double().numpy())
    oracle("output", model, folder / "out", *files)
    ours = net.output(x)
    for i, y_i in enumerate(ours if isinstance(ours, tuple) else (ours,)):
        theirs = np.load(folder / "out" / f"out_{i}.npy")
        assert_close(y_i, theirs, PREDICTED[dtype], f"output {i}")
    if not steps or len(files) > 1 or isinstance(y, tuple):
        return  # the oracle trains on one input and one output
    (inputs,) = files
    np.save(labels, y.double().numpy())

    def trained(path):
        oracle("fit", path, folder / "fit", inputs, labels, steps)
        return dl4py.restore(folder / "fit" / "trained.zip")

    theirs = trained(model)
    for _ in range(steps):
        net.fit(x, y)
    tolerance = STEPPED[dtype]
    if error_of(net.params(), theirs.params()) > tolerance:
        # Adam-like division amplifies rounding: how far does DL4J itself move when
        # every parameter is one unit in the last place larger?
        moved = dl4py.restore(model)
        up = torch.tensor(torch.inf, dtype=moved.params().dtype)
        moved.set_params(torch.nextafter(moved.params(), up))
        dl4py.save(moved, folder / "moved.zip")
        change = error_of(trained(folder / "moved.zip").params(), theirs.params())
        tolerance = max(tolerance, 100 * change)
    assert_close(net.params(), theirs.params(), tolerance, "parameters")
    assert_close(net.updater_state(), theirs.updater_state(), tolerance, "state")
    clocks = [(n.clock.iteration, n.clock.epoch) for n in (net, theirs)]
    assert clocks[0] == clocks[1]


@pytest.mark.parametrize("make", [mlp, cnn, rnn])
def test_networks_built_here(oracle, make, tmp_path):
    chain = dl4py.NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain, shape = make(chain.updater("adam", lr=0.01))
    net = chain.build().module(dl4j_exact=True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, *shape, generator=g, dtype=torch.float64)
    steps = shape[1:] if make is rnn else ()
    y = torch.eye(3, dtype=torch.float64)[torch.randint(3, (5, *steps), generator=g)]
    y = y.movedim(-1, 1).contiguous()
    for _ in range(3):
        net.fit(x, y)
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")


def assert_gradient(oracle, net, x, y, folder):
    """DL4J's gradient and score of a batch are those of ``net``."""
    model, inputs, labels = (folder / n for n in ("g.zip", "gx.npy", "gy.npy"))
    dl4py.save(net, model)
    np.save(inputs, x.numpy())
    np.save(labels, y.numpy())
    oracle("gradient", model, folder / "gradient", inputs, labels)
    gradient, score = net.gradient_and_score(x, y)
    theirs = np.load(folder / "gradient" / "gradient.npy")
    assert_close(gradient, theirs, PREDICTED["DOUBLE"], "gradient")
    told = float((folder / "gradient" / "score.txt").read_text())
    assert score == pytest.approx(told, rel=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        MaskZero(underlying=LSTM(n_out=5)),
        Frozen(underlying=GravesLSTM(n_out=5)),
        Frozen(underlying=SimpleRnn(n_out=5)),
        FrozenWithBackprop(underlying=LSTM(n_out=5)),
    ],
    ids=[
        "mask_zero",
        "frozen_graves_lstm",
        "frozen_simple_rnn",
        "frozen_with_backprop",
    ],
)
def test_truncated_back_propagation(oracle, layer, tmp_path):
    """Of what is around a layer DL4J's windows heed no mask, and lose some states."""
    chain = dl4py.NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain.updater("sgd", lr=0.1).activation("tanh")
    chain.backprop_type("TruncatedBPTT").tbptt_length(3)
    chain.input_type(InputType.recurrent(4)).layer(layer).layer(GravesLSTM(n_out=3))
    net = chain.layer(RnnOutput(n_out=3)).build().module(dl4j_exact=True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, 7, generator=g, dtype=torch.float64)
    x[:, :, 1] = 0
    y = torch.eye(3, dtype=torch.float64)[torch.randint(3, (5, 7), generator=g)]
    y = y.movedim(-1, 1).contiguous()
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE", steps=2)


@pytest.mark.parametrize("mini_batch", [False, True])
@pytest.mark.parametrize(
    "activation, loss",
    [
        ("tanh", "mse"),
        ("relu", "mae"),
        ("identity", "hinge"),
        ("sigmoid", "xent"),
        ("softmax", "mse"),
        ("softmax", "mcxent"),
    ],
)
def test_loss_layers(oracle, activation, loss, mini_batch, tmp_path):
    chain = dl4py.NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain.updater("sgd", lr=0.1).mini_batch(mini_batch)
    chain.layer(Dense(n_in=4, n_out=3, activation="tanh"))
    chain.layer(LossLayer(activation=activation, loss=loss))
    net = chain.build().module(dl4j_exact=True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, generator=g, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1]]
    assert_gradient(oracle, net, x, y, tmp_path)
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")


def test_recurrent_layers_and_attention(oracle, tmp_path):
    """DL4J's score leaves the penalties of attention out; its steps do not."""
    chain = dl4py.NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain.updater("adam", lr=0.01).l2(0.1).activation("tanh")
    chain.layer(GravesLSTM(n_in=4, n_out=4, gate_activation="hardsigmoid"))
    chain.layer(SelfAttention(n_in=4, n_out=6, n_heads=2))
    chain.layer(RecurrentAttention(n_in=6, n_out=4, n_heads=2))
    chain.layer(GravesBidirectionalLSTM(n_in=4, n_out=3))
    conf = chain.layer(RnnLoss(activation="softmax", format="NCW")).build()
    net = conf.module(dl4j_exact=True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, 6, generator=g, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[torch.randint(3, (5, 6), generator=g)]
    y = y.movedim(-1, 1).contiguous()
    assert_gradient(oracle, net, x, y, tmp_path)
    left_out = net.penalty(whole=True) - net.penalty()
    default = conf.module()
    default.set_params(net.params())
    expected = net.score(x, y) + left_out.item()
    assert left_out > 0 and default.score(x, y) == pytest.approx(expected)
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")


def test_what_is_frozen(oracle, tmp_path):
    """DL4J's updater acts on penalties of what is frozen, and it has a state."""
    chain = dl4py.NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain.updater("adam", lr=0.01).l2(0.1)
    chain.layer(FrozenWithBackprop(underlying=Dense(n_in=4, n_out=3)))
    conf = chain.layer(Output(n_out=3)).build()
    net = conf.module(dl4j_exact=True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, generator=g, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 1]]
    assert_gradient(oracle, net, x, y, tmp_path)
    before = net.params()
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")
    assert (net.params() != before)[:12].all()
    assert any("acts on its penalties" in line for line in net.differs())
    default = conf.module()
    before = default.params()
    default.fit(x, y)
    assert torch.equal(default.params()[:15], before[:15])
    assert len(default.updater_state()) == len(net.updater_state())


@pytest.mark.parametrize("p", [1, 2, 3])
def test_p_norms_of_nothing(oracle, p, tmp_path):
    chain = dl4py.NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain.updater("sgd", lr=0.1).input_type(InputType.convolutional(4, 4, 1))
    chain.layer(Convolution2D(n_out=2, kernel_size=1, activation="relu"))
    chain.layer(Subsampling(pooling_type="PNORM", kernel_size=2, pnorm=p))
    net = chain.layer(Output(n_out=3)).build().module(dl4j_exact=True)
    x = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(2, 1, 4, 4)
    y = torch.eye(3, dtype=torch.float64)[[0, 1]]
    assert (net.feed_forward(x)[1] == 0).any()
    assert_gradient(oracle, net, x, y, tmp_path)
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")


def all_of(case, key, dtype, count):
    """The arrays at all inputs or outputs: a tuple, a single one plain."""
    arrays = (case.arrays[f"{key}_{i}"] for i in range(count))
    found = tuple(torch.from_numpy(a).to(dtype) for a in arrays)
    return found if count > 1 else found[0]


@pytest.mark.parametrize("name", catalogue.names())
def test_the_catalogue(oracle, name, tmp_path):
    case = catalogue.load(name)
    conf = configuration(case)
    if conf is MISSING:
        pytest.skip(reason(name, "all"))
    noises = (getattr(layer, "weight_noise", None) for layer in conf.layers)
    if any(noise is not None and noise.on_biases for noise in noises):
        pytest.skip("DL4J disturbs biases in testing too, by its own random numbers")
    own = case.file("trained.zip") or case.file("model.zip")
    net = dl4py.restore(own)
    dtype = case.meta["dtype"]
    x, y = (
        all_of(case, key, DTYPES[dtype], len(names))
        for key, names in (("in", net.plan.inputs), ("labels", net.plan.outputs))
    )
    if name.startswith("ocnn"):  # DL4J forgets r where it opens a file
        (r,) = (view for view in net.views() if view.name == "r")
        r.reset()
    # Java's generator starts from the present time
    untrained = reason(name, "steps") or case.meta["seed"] is not None
    steps = 3 if case.meta["trains"] and not untrained else 0
    if name not in JAVA_REFUSES:
        go_on_in_java(oracle, net, x, y, tmp_path, dtype=dtype, steps=steps)
        return
    with pytest.raises(RuntimeError, match="fit: error: java"):
        go_on_in_java(oracle, net, x, y, tmp_path, dtype=dtype)
    (tmp_path / "own.zip").write_bytes(own.getvalue())
    words = [tmp_path / n for n in ("own.zip", "own", "x.npy", "y.npy")]
    with pytest.raises(RuntimeError, match="fit: error: java"):
        oracle("fit", *words, 1)
