"""What a mask hides contributes exactly nothing, in every kind of layer."""

import copy
import warnings

import pytest
import torch

import dl4py
from dl4py import config
from dl4py.config import (
    LSTM,
    Convolution2D,
    Dense,
    GlobalPooling,
    InputType,
    Output,
    RnnLoss,
    RnnOutput,
    Subsampling,
)
from dl4py.registry import LAYERS, MODULES
from tests.network.masked import IMAGE, NETS, batch, network, pixels, rows, series
from tests.networks import builder

FILTH = [float("nan"), float("inf"), -float("inf"), 1e30]


def everything(net, x, y, **masks):
    """All numbers that a network gives for a batch, a step included."""
    net = copy.deepcopy(net)
    found = [net.output(x, **masks), *net.feed_forward(x, **masks)]
    torch.manual_seed(1)
    gradient, score = net.gradient_and_score(x, y, **masks)
    found += [gradient, torch.tensor([score, net.score(x, y, **masks)])]
    torch.manual_seed(2)
    for _ in range(2):
        found.append(torch.tensor(net.fit(x, y, **masks)))
    found += [net.params(), net.updater_state()]
    return found


def same(a, b):
    return all(
        torch.equal(u, v) and u.isfinite().all() for u, v in zip(a, b, strict=True)
    )


def test_every_kind_of_layer_is_here():
    kinds = {
        LAYERS.entry_of(type(part)).key for net in NETS.values() for part in net[0]
    }
    ours = {k for k in MODULES if MODULES[k].__module__.startswith("dl4py.layers")}
    known = {name for name in ours if name in LAYERS}
    assert known and kinds >= known


@pytest.mark.parametrize("exact", [False, True], ids=["default", "exact"])
@pytest.mark.parametrize("name", NETS)
def test_hidden_features_contribute_nothing(name, exact):
    net, (x, y, mask, hidden) = network(name, exact), batch(name)
    expected = everything(net, x, y, features_mask=mask)
    for filth in FILTH[: 3 if exact else 4]:  # DL4J lets finite ones through
        dirty = x.masked_fill(hidden, filth)
        assert same(everything(net, dirty, y, features_mask=mask), expected), filth
        given = torch.full_like(x, filth)[hidden]  # and the caller's stays as it was
        assert torch.equal(dirty[hidden].nan_to_num(3), given.nan_to_num(3))


@pytest.mark.parametrize("dtype", ["float", "bfloat16"])
@pytest.mark.parametrize("name", ["batch_norm", "cnn_AVG_NCHW", "lstm"])
def test_in_other_precisions(name, dtype):
    net, torchs = network(name, dtype=dtype), dl4py.network.build.DTYPES[dtype.upper()]
    x, y, mask, hidden = batch(name, torchs)
    expected = everything(net, x, y, features_mask=mask)
    dirty = x.masked_fill(hidden, float("nan"))
    assert same(everything(net, dirty, y, features_mask=mask), expected)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_masks_of_any_type(kind):
    net, (x, y, mask, hidden) = network("lstm"), batch("lstm")
    dirty = x.masked_fill(hidden, float("nan"))
    expected = everything(net, x, y, features_mask=mask)
    assert same(everything(net, dirty, y, features_mask=mask.to(kind)), expected)


@pytest.mark.parametrize("exact", [False, True], ids=["default", "exact"])
@pytest.mark.parametrize("name", ["dense", "batch_norm", "lstm", "cnn_MAX_NCHW"])
def test_examples_without_a_label(name, exact):
    """By the labels mask alone: such an example has no part in score or gradient."""
    net, (x, y, *_) = network(name, exact), batch(name)
    without = torch.tensor([1.0, 1, 0, 1, 0], dtype=x.dtype)
    out = (without == 0).reshape(-1, *(1,) * (x.dim() - 1)).expand(x.shape)
    masks = {"labels_mask": without}
    if name == "lstm":
        masks = {"labels_mask": without[:, None].expand(5, 4).contiguous()}
    hidden = without if x.dim() != 3 else without[:, None].expand(5, 4)
    expected = everything(net, x.masked_fill(out, 0), y, features_mask=hidden, **masks)
    for filth in FILTH[:3]:
        dirty = x.masked_fill(out, filth)
        assert same(everything(net, dirty, y, **masks), expected)
    output = net.output(x.masked_fill(out, float("nan")), **masks)
    assert output[2].abs().sum() == 0


def test_labels_behind_a_mask_may_be_anything():
    for name in ("dense", "lstm"):
        net, (x, y, mask, _) = network(name), batch(name)
        out = (mask == 0).reshape(5, *(1, -1)[: y.dim() - 1]).expand(y.shape)
        both = {"features_mask": mask, "labels_mask": mask.double()}
        dirty = y.masked_fill(out, float("nan"))
        assert same(everything(net, x, dirty, **both), everything(net, x, y, **both))


def test_steps_without_a_label_need_a_features_mask():
    net, (x, y, mask, hidden) = network("lstm"), batch("lstm")
    dirty, before = x.masked_fill(hidden, float("nan")), net.params()
    for call in (net.fit, net.score, net.gradient_and_score):
        with pytest.raises(ValueError, match="mask them with features_mask too"):
            call(dirty, y, labels_mask=mask)
    assert torch.equal(net.params(), before) and net.clock.iteration == 0
    both = {"features_mask": mask, "labels_mask": mask}
    assert same(everything(net, dirty, y, **both), everything(net, x, y, **both))
    # finite ones are read: the label is missing there, not the features
    a, b = (net.score(x + t, y, labels_mask=mask) for t in (0, hidden.double()))
    assert a != b


def test_a_fault_of_the_features_stays_visible():
    net, (x, y, *_) = network("dense"), batch("dense")
    x[0, 0] = float("nan")
    assert net.score(x, y) != net.score(x, y)  # NaN, where nothing hides it


@pytest.mark.parametrize(
    "name", ["dense", "batch_norm", "lstm", "pool_AVG", "pool_MAX", "dense_in_time"]
)
def test_padding_changes_nothing(name):
    """Hidden examples, or hidden steps at the end, are as if they were not there."""
    layers = NETS[name][0]
    net = network(name, noise=False)
    x, y, *_ = batch(name)
    g, _ = net.gradient_and_score(x, y)
    plain = copy.deepcopy(net)
    plain.fit(x, y)
    dirty = torch.full_like(x, float("nan"))
    wide, labels = torch.cat([x, dirty]), torch.cat([y, y])
    shape = (10, 4) if x.dim() == 3 else (10,)
    mask = (torch.arange(10) < 5).reshape(10, *(1,) * (len(shape) - 1)).expand(shape)
    per_step = isinstance(layers[-1], (RnnLoss, RnnOutput))
    if per_step or x.dim() == 2:
        masks = {"features_mask": mask, "labels_mask": mask.double()}
    else:
        masks = {"features_mask": mask, "labels_mask": mask[:, 0].double()}
    padded, _ = net.gradient_and_score(wide, labels, **masks)
    torch.testing.assert_close(padded, g, rtol=1e-12, atol=1e-13)
    out = net.output(wide, features_mask=mask)
    torch.testing.assert_close(out[:5], net.output(x), rtol=1e-12, atol=1e-13)
    kept = {k: b for k, b in plain.named_buffers()}
    net.fit(wide, labels, **masks)
    for key, statistic in net.named_buffers():
        torch.testing.assert_close(statistic, kept[key], rtol=1e-12, atol=1e-13)
    if x.dim() == 3:
        longer = torch.cat([x, torch.full_like(x, float("nan"))], 2)
        steps = (torch.arange(8) < 4).expand(5, 8)
        out = plain.output(longer, features_mask=steps)
        out = out[..., :4] if per_step else out
        torch.testing.assert_close(out, plain.output(x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["MAX", "AVG", "SUM", "PNORM"])
def test_hidden_pixels_are_as_padding(kind):
    net = network(f"cnn_{kind}_NCHW")
    x, y, *_ = batch(f"cnn_{kind}_NCHW")
    x = torch.randn(5, 2, 4, 6, dtype=torch.float64) - 1
    wide = torch.cat([x, torch.full((5, 2, 4, 6), float("nan"))], 2)
    mask = torch.zeros(5, 1, 8, 1)
    mask[:, :, :4] = 1
    wide, mask = wide.double(), mask.expand(-1, -1, -1, 6)
    g, score = net.gradient_and_score(x, y)
    h, masked = net.gradient_and_score(wide, y, features_mask=mask)
    assert masked == pytest.approx(score, rel=1e-12)
    torch.testing.assert_close(h, g, rtol=1e-11, atol=1e-12)


def test_a_batch_of_nothing_but_hidden_rows_leaves_statistics_alone():
    net, (x, y, *_) = network("batch_norm"), batch("batch_norm")
    net.fit(x, y)
    before = {k: b.clone() for k, b in net.named_buffers()}
    none, expected = torch.zeros(5), net.penalty().item()
    score = net.fit(x * float("nan"), y, features_mask=none, labels_mask=none.double())
    assert score == pytest.approx(expected, rel=1e-14)
    assert all(torch.equal(b, before[k]) for k, b in net.named_buffers())
    assert net.params().isfinite().all()


def test_exact_mode_is_dl4js():
    """There an LSTM reads masked steps, and batch normalisation counts masked rows."""
    for name in ("lstm", "batch_norm", "cnn_AVG_NCHW"):
        x, y, mask, hidden = batch(name)
        net, exact = network(name), network(name, exact=True)
        finite = x + hidden.double()
        masks = {"features_mask": mask}
        torch.manual_seed(0)
        a = [n.score(t, y, **masks) for n in (net, exact) for t in (x, finite)]
        b = exact.gradient_and_score(finite, y, **masks)[0]
        assert a[0] == a[1]
        assert name == "batch_norm" or a[2] != a[3]  # it tests with running statistics
        torch.manual_seed(0)
        assert not torch.equal(b, exact.gradient_and_score(x, y, **masks)[0])
        lines = " ".join(net.differs())
        assert "masked" in lines or "features mask" in lines


def test_pixel_masks_end_where_images_become_rows():
    chain = builder().layer(Convolution2D(n_out=2, kernel_size=3))
    net = chain.layer(Output(n_out=2)).input_type(IMAGE).build().module()
    x, y = torch.randn(5, 2, 6, 6).double(), torch.eye(2).double()[[0, 1, 0, 1, 1]]
    with pytest.raises(ValueError, match=r"pixels .* ends where images become rows"):
        net.fit(x, y, features_mask=pixels())


@pytest.mark.parametrize("pixels", [1, 4])
def test_masks_of_whole_images_go_on(pixels):
    """As ``[n, 1, 1, 1]``, DL4J's form, given so or left over by pooling."""
    chain = builder().layer(Convolution2D(n_out=3, kernel_size=2))
    chain.layer(Subsampling(kernel_size=5 - pixels, stride=5 - pixels))
    chain.layer(Dense(n_out=4)).layer(Output(n_out=2))
    net = chain.input_type(InputType.convolutional(5, 5, 2)).build().module()
    x = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    y = torch.eye(2).double()[[0, 1, 0]]
    rows = torch.tensor([1.0, 0.0, 1.0])
    mask = rows.reshape(3, 1, 1, 1)
    expected = net.score(x, y, features_mask=rows)
    assert net.score(x, y, features_mask=mask) == expected != net.score(x, y)
    if pixels == 1:
        everywhere = mask.expand(3, 1, 5, 5)
        assert net.score(x, y, features_mask=everywhere) == expected


@pytest.mark.parametrize("solver", ["lbfgs", "hessian_free"])
def test_solvers_see_nothing_either(solver):
    chain = builder().optimization_algo(solver).layer(Dense(n_in=3, n_out=4))
    net = chain.layer(Output(n_out=2)).build().module()
    x, y, mask, hidden = batch("dense")
    other = copy.deepcopy(net)
    masks = {"features_mask": mask, "labels_mask": mask.double()}
    for _ in range(2):
        net.fit(x, y, **masks)
        other.fit(x.masked_fill(hidden, float("nan")), y, **masks)
    assert torch.equal(net.params(), other.params()) and net.params().isfinite().all()


def test_a_trainer_and_a_loader_give_the_same():
    import lightning

    x, y, mask, hidden = batch("lstm")
    dirty = (x.masked_fill(hidden, float("nan")), y, mask, mask.double())
    net = network("lstm", noise=False)
    other = copy.deepcopy(net)
    loader = torch.utils.data.DataLoader([dirty, dirty], batch_size=None)
    net.fit(loader, epochs=2)
    model = other.lightning("lightning")
    trainer = lightning.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader, loader)
        loss = trainer.callback_metrics["val_loss"]
        predicted, _ = trainer.predict(model, loader)
    assert torch.equal(net.params(), other.params())
    assert float(loss) == pytest.approx(net.score(*dirty))
    assert torch.equal(predicted, net.output(x, mask, mask))


def graph(exact):
    """Two series and what vertices make of them, two outputs."""
    chain = builder().updater("adam", lr=0.05).graph_builder().add_inputs("a", "b")
    chain.add_layer("lstm", LSTM(n_out=4, activation="tanh"), "a")
    chain.add_layer("other", LSTM(n_out=4), "b")
    chain.add_vertex("sum", config.ElementWiseVertex("Add"), "lstm", "other")
    chain.add_vertex("both", config.MergeVertex(), "lstm", "a")
    chain.add_vertex("back", config.ReverseTimeSeriesVertex("a"), "both")
    chain.add_vertex("last", config.LastTimeStepVertex("b"), "other")
    chain.add_vertex("unit", config.L2NormalizeVertex(), "last")
    chain.add_vertex("again", config.DuplicateToTimeSeriesVertex("a"), "unit")
    chain.add_vertex("scaled", config.ScaleVertex(2.0), "again")
    chain.add_layer("steps", RnnOutput(n_out=2), "sum", "back", "scaled")
    chain.add_vertex("moved", config.ShiftVertex(1.0), "back")
    chain.add_layer("pool", GlobalPooling(pooling_type="AVG"), "moved")
    chain.add_layer("rows", Output(n_out=2), "pool", "last")
    chain.set_outputs("steps", "rows")
    types = (InputType.recurrent(3), InputType.recurrent(2))
    return chain.set_input_types(*types).build().module(exact)


@pytest.mark.parametrize("exact", [False, True], ids=["default", "exact"])
def test_a_graph_of_several_inputs_and_outputs(exact):
    net, one, two = graph(exact), series(), series().flip(0)
    g = torch.Generator().manual_seed(3)
    inputs = [torch.randn(5, k, 4, generator=g).double() for k in (3, 2)]
    hidden = [
        (m == 0)[:, None].expand_as(x) for m, x in zip((one, two), inputs, strict=True)
    ]
    eye = torch.eye(2, dtype=torch.float64)
    labels = eye[torch.randint(2, (5, 4))].transpose(1, 2), eye[[0, 1, 1, 0, 1]]
    masks = {
        "features_mask": {"b": two, "a": one},
        "labels_mask": (one.double(), torch.tensor([1.0, 1, 0, 1, 1]).double()),
    }

    def numbers(value):
        x = tuple(x.masked_fill(h, value) for x, h in zip(inputs, hidden, strict=True))
        other = copy.deepcopy(net)
        found = [*other.output(x, **masks), *other.feed_forward(x, **masks).values()]
        gradient, score = other.gradient_and_score(x, labels, **masks)
        found += [gradient, torch.tensor([score, other.fit(x, labels, **masks)])]
        return [*found, other.params()]

    expected = numbers(0.0)
    for filth in FILTH[: 3 if exact else 4]:
        assert same(numbers(filth), expected)


@pytest.mark.parametrize("exact", [False, True], ids=["default", "exact"])
def test_stacked_examples(exact):
    chain = builder().updater("adam", lr=0.05).graph_builder().add_inputs("a", "b")
    chain.add_vertex("stack", config.StackVertex(), "a", "b")
    chain.add_layer("dense", Dense(n_out=4, activation="tanh"), "stack")
    chain.add_vertex("first", config.UnstackVertex(0, 2), "dense")
    chain.add_vertex("second", config.UnstackVertex(1, 2), "dense")
    chain.add_vertex("apart", config.L2Vertex(), "first", "second")
    chain.add_layer("out", Output(n_out=2), "first", "apart").set_outputs("out")
    types = (InputType.feed_forward(3), InputType.feed_forward(3))
    net = chain.set_input_types(*types).build().module(exact)
    x, z = torch.randn(2, 5, 3, dtype=torch.float64)
    y, mask = torch.eye(2, dtype=torch.float64)[[0, 1, 1, 0, 1]], rows()
    found = []
    for filth in (0.0, float("nan")):
        other, dirty = copy.deepcopy(net), z.clone()
        dirty[mask == 0] = filth
        masks = {"features_mask": (None, mask), "labels_mask": mask}
        found.append([torch.tensor(other.fit((x, dirty), y, **masks))])
        found[-1] += [other.output((x, dirty), **masks), other.params()]
    assert same(*found)
