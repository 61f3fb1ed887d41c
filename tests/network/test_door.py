"""Bad input: one clear error at the door of every network, before anything changes."""

import numpy as np
import pytest
import torch

from dl4py.config import (
    LSTM,
    BatchNormalization,
    Convolution2D,
    Dense,
    Embedding,
    GlobalPooling,
    InputType,
    LossLayer,
    MergeVertex,
    Output,
    RnnOutput,
    Subsampling,
)
from tests.network.refusing import network, refuses, zeros
from tests.networks import builder, examples, mlp

NETS = {  # a network, an input that fits, labels
    "dense": (
        lambda: network(Dense(n_in=4, n_out=5), BatchNormalization(), Output(n_out=3)),
        (6, 4),
        (6, 3),
    ),
    "loss_layer": (
        lambda: network(Dense(n_in=4, n_out=3), LossLayer(loss="mse")),
        (6, 4),
        (6, 3),
    ),
    "batch_norm": (
        lambda: network(
            BatchNormalization(), Output(n_out=3), given=InputType.feed_forward(4)
        ),
        (6, 4),
        (6, 3),
    ),
    "lstm": (
        lambda: network(LSTM(n_in=3, n_out=4), RnnOutput(n_out=2)),
        (6, 3, 5),
        (6, 2, 5),
    ),
    "lstm_nwc": (
        lambda: network(
            LSTM(n_out=4),
            RnnOutput(n_out=2),
            given=InputType.recurrent(3, format="NWC"),
        ),
        (6, 5, 3),
        (6, 5, 2),
    ),
    "pooled": (
        lambda: network(GlobalPooling(), Output(n_out=2), given=InputType.recurrent(3)),
        (6, 3, 5),
        (6, 2),
    ),
    "cnn": (
        lambda: network(
            Convolution2D(n_out=3, kernel_size=3),
            Subsampling(kernel_size=2),
            Dense(n_out=4),
            Output(n_out=2),
            given=InputType.convolutional(8, 8, 2),
        ),
        (6, 2, 8, 8),
        (6, 2),
    ),
    "cnn_nhwc": (
        lambda: network(
            Convolution2D(n_out=3, kernel_size=3),
            GlobalPooling(),
            Output(n_out=2),
            given=InputType.convolutional(8, 8, 2, "NHWC"),
        ),
        (6, 8, 8, 2),
        (6, 2),
    ),
    "cnn_flat": (
        lambda: network(
            Convolution2D(n_out=3, kernel_size=3),
            Output(n_out=2),
            given=InputType.convolutional_flat(8, 8, 2),
        ),
        (6, 128),
        (6, 2),
    ),
}


@pytest.fixture(params=NETS)
def case(request):
    make, shape, labels = NETS[request.param]
    return make(), zeros(*shape), zeros(*labels)


def calls(net, x, *rest):
    """Every public way in, as functions without arguments."""
    n = len(x) if getattr(x, "ndim", 1) and hasattr(x, "__len__") else 1
    y = rest[0] if rest else zeros(n, 3)
    masks = rest[1:]
    found = [
        lambda: net.fit(x, y, *masks),
        lambda: net.fit([(x, y, *masks)]),
        lambda: net.score(x, y, *masks),
        lambda: net.gradient_and_score(x, y, *masks),
        lambda: net.loss(x, y, *masks),
        lambda: net.objective(x, y, *masks),
    ]
    if not rest:
        found += [lambda: net(x), lambda: net.output(x), lambda: net.feed_forward(x)]
    return found


def test_what_fits_goes_through(case):
    net, x, y = case
    assert net.output(x).shape == y.shape
    net.fit(x, y)


def test_wrong_sizes_name_the_layer_and_what_it_expects(case, untouched):
    net, x, y = case
    untouched(net)
    first = net.nodes[0].name
    for axis in range(1, x.dim()):
        wide = torch.cat([x, x], axis)
        sizes = net.nodes[0].step.preprocessor or net.nodes[0].conf
        free = all(
            isinstance(shape[axis], str)
            for shape in sizes.shapes
            if len(shape) == x.dim()
        )
        if not free:
            got = ", ".join(map(str, wide.shape))
            message = rf"layer '{first}' \(\w+\) expects \[n, .*\], got \[{got}\]"
            refuses(ValueError, message, *calls(net, wide))
    for bad in (x[..., None, None, None], x[0], x.reshape(-1)):
        refuses(ValueError, r"layer '\w+' .* expects .*, got \[", *calls(net, bad))
    refuses(ValueError, "a single number", *calls(net, x.sum()))


def test_the_way_out():
    net = network(LSTM(n_in=3, n_out=4), RnnOutput(n_out=2))
    x = zeros(6, 5, 3)
    refuses(ValueError, r"x\.movedim\(1, -1\)", lambda: net.output(x))
    assert net.output(x.movedim(1, -1)).shape == (6, 2, 5)
    net = network(
        LSTM(n_out=4), RnnOutput(n_out=2), given=InputType.recurrent(3, format="NWC")
    )
    x = zeros(6, 3, 5)
    refuses(ValueError, r"x\.movedim\(1, -1\)", lambda: net.output(x))
    assert net.output(x.movedim(1, -1)).shape == (6, 5, 2)
    net, x = NETS["cnn"][0](), zeros(6, 8, 8, 2)
    refuses(ValueError, r"x\.movedim\(-1, 1\)", lambda: net.output(x))
    assert net.output(x.movedim(-1, 1)).shape == (6, 2)
    net = mlp().module()
    refuses(ValueError, r"x\.unsqueeze\(0\)", lambda: net.output(zeros(4)))
    assert net.output(zeros(4).unsqueeze(0)).shape == (1, 3)


def test_images_of_another_size_than_the_network_was_built_for(untouched):
    net = NETS["cnn"][0]()
    untouched(net)
    message = (
        r"layer 'layer2' \(Dense\) expects \[n, 3, 3, 3\] or .*, got \[6, 3, 4, 4\]"
    )
    refuses(ValueError, message, *calls(net, zeros(6, 2, 10, 10)))


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros((6, 4)), r"numpy.ndarray of shape \[6, 4\]: use torch.from_numpy"),
        (np.float64(3), "numpy.float64"),
        ([[0.0] * 4], r"a list of 1: use torch.tensor\("),
        ((zeros(6, 4), zeros(6, 3)), r"a tuple of 2; .*batch\[0\]"),
        ({"x": zeros(6, 4)}, r"a dict with keys \['x'\]"),
        ("features", "builtins.str"),
        (3.0, "builtins.float"),
        (None, "None"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_no_tensor(bad, message, untouched):
    net = mlp().module()
    untouched(net)
    x, y = examples()
    wrong = (TypeError, ValueError)
    said = rf"x: expected (a torch.Tensor|one tensor), got .*{message}"
    refuses(wrong, said, *calls(net, bad)[1:])
    if bad is None:
        return
    refuses(wrong, f"labels: .*{message}", *calls(net, x, bad)[:-1])
    refuses(wrong, f"features_mask: .*{message}", *calls(net, x, y, bad))
    refuses(wrong, f"labels_mask: .*{message}", *calls(net, x, y, None, bad))
    refuses(wrong, "labels_mask", lambda: net.output(x, labels_mask=bad))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool]
)
def test_another_dtype(dtype, untouched):
    net = mlp().module()
    untouched(net)
    message = rf"computes in torch.float64, got {dtype}; convert with x.to\("
    refuses(ValueError, message, *calls(net, zeros(6, 4, dtype=dtype)))
    refuses(
        ValueError,
        "got torch.complex128",
        lambda: net.output(zeros(6, 4, dtype=torch.complex128)),
    )


def test_indices_may_be_integers_for_an_embedding_only():
    net = network(Embedding(n_in=7, n_out=4), Output(n_out=2))
    for kind in (torch.int64, torch.int32, torch.uint8, torch.float64):
        assert net.output(zeros(6, 1, dtype=kind)).shape == (6, 2)
        assert net.output(zeros(6, dtype=kind)).shape == (6, 2)
    refuses(
        ValueError,
        r"\(Embedding\) expects \[n, 1\] or \[n\], got \[6, 7\]",
        lambda: net.output(zeros(6, 7)),
    )
    refuses(ValueError, "got torch.float32", lambda: net.output(zeros(6, dtype=None)))


def test_labels(case, untouched):
    net, x, y = case
    untouched(net)
    last = net.nodes[-1].name
    refuses(
        ValueError,
        "labels: expected one entry per example, 6 as in x, got shape "
        r"\[5",
        *calls(net, x, y[:5]),
    )
    refuses(ValueError, "labels: .* per example", *calls(net, x, y.sum()))
    wide = torch.cat([y, y], 2 if y.shape[1:] == (5, 2) else 1)
    bad = [wide, y[..., None]]
    if y.dim() == 3:
        bad += [y.transpose(1, 2), y[:, :, :1] if y.shape[2] == 5 else y[:, :1]]
    for labels in bad:
        refuses(
            ValueError,
            rf"layer '{last}' \(\w+\): .*labels.* \[",
            *calls(net, x, labels),
        )


def test_a_mask_that_only_a_metric_refuses():
    net = network(RnnOutput(n_in=2, n_out=3))
    x, y = zeros(4, 2, 5), zeros(4, 3, 5)
    refuses(
        ValueError,
        r"^labels_mask must have the shape \[4, 5\]",
        lambda: net.evaluate((x, y, None, torch.ones(4))),
    )


def test_masks(case, untouched):
    net, x, y = case
    untouched(net)
    n = len(x)
    fits = {2: [(n,), (n, 1)], 3: [(n, 5)], 4: [(n,), (n, 1), (n, 1, 8, 8)]}[x.dim()]
    for shape in fits:
        net.output(x, torch.ones(shape)) if "1, 8" not in str(shape) else None
    for shape in ((n, 7), (n, 2), (n, 1, 7, 7), (n, 3, 4, 5, 6)):
        mask = torch.ones(shape)
        refuses(
            ValueError,
            rf"features_mask: expected \[{n}.*, got \[{n}, ",
            *calls(net, x, y, mask),
            lambda m=mask: net.output(x, m),
        )
    refuses(
        ValueError,
        "features_mask: expected one entry per example, 6",
        *calls(net, x, y, torch.ones(5)),
    )
    refuses(
        ValueError,
        "labels_mask: expected one entry per example, 6",
        *calls(net, x, y, None, torch.ones(5, 5)),
    )
    for shape in ((n, 7), (n, 7, 2)):
        refuses(
            ValueError,
            r"layer '\w+' \(\w+\): .*labels_mask.*\[",
            *calls(net, x, y, None, torch.ones(shape)),
            lambda s=shape: net.output(x, labels_mask=torch.ones(s)),
            lambda s=shape: net.evaluate((x, y, None, torch.ones(s))),
        )


def test_a_transposed_mask_of_a_series():
    net = network(LSTM(n_in=3, n_out=4), RnnOutput(n_out=2))
    x, y = zeros(6, 3, 5), zeros(6, 2, 5)
    refuses(ValueError, "per example", *calls(net, x, y, None, torch.ones(5, 6)))
    refuses(ValueError, "per example", *calls(net, x, y, torch.ones(5, 6)))


@pytest.mark.parametrize("exact", [False, True])
def test_an_empty_batch(exact, untouched):
    for name, (make, shape, labels) in NETS.items():
        if exact and name != "dense":
            continue
        net = make() if not exact else mlp().module(exact)
        untouched(net)
        x, y = zeros(0, *shape[1:]), zeros(0, *labels[1:])
        refuses(ValueError, "x: the batch is empty, shape ", *calls(net, x, y))
        assert net.output(x).shape == y.shape  # no score, and nothing to predict
    net = network(LSTM(n_in=3, n_out=4), RnnOutput(n_out=2))
    refuses(
        ValueError, "the batch is empty", *calls(net, zeros(6, 3, 0), zeros(6, 2, 0))
    )


@pytest.mark.parametrize("algorithm", ["lbfgs", "conjugate_gradient", "hessian_free"])
@pytest.mark.parametrize("exact", [False, True])
def test_solvers_refuse_too(algorithm, exact, untouched):
    net = mlp(optimization_algo=algorithm).module(exact)
    untouched(net)
    refuses(ValueError, "batch is empty", lambda: net.fit(zeros(0, 4), zeros(0, 3)))
    refuses(ValueError, r"expects \[n, 4\]", lambda: net.fit(zeros(6, 5), zeros(6, 3)))


def test_the_door_is_open_to_compilers():
    net = network(Dense(n_in=4, n_out=5), Output(n_out=3), dtype="float").eval()
    x, mask = torch.randn(6, 4), torch.tensor([1.0, 1, 0, 1, 1, 0])
    for args in ((x,), (x, mask), (x, mask, mask)):
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*args), net.output(*args))
    exported = torch.export.export(net, (x, mask)).module()
    torch.testing.assert_close(exported(x, mask), net.output(x, mask))
    loss = torch.compile(net.loss, backend="eager", fullgraph=True)
    y = torch.eye(3)[[0, 1, 2, 0, 1, 2]]
    torch.testing.assert_close(loss(x, y, mask), net.loss(x, y, mask))


class TestGraph:
    def net(self):
        chain = builder().graph_builder().add_inputs("text", "image")
        chain.add_layer("a", Dense(n_out=4), "text").add_layer(
            "b", Dense(n_out=3), "image"
        )
        chain.add_vertex("both", MergeVertex(), "a", "b")
        chain.add_layer("one", Output(n_out=2), "both")
        chain.add_layer("two", Output(n_out=3), "both").set_outputs("one", "two")
        types = InputType.feed_forward(5), InputType.feed_forward(6)
        return chain.set_input_types(*types).build().module()

    def test_each_input_and_output(self, untouched):
        net = self.net()
        untouched(net)
        x, y = (zeros(8, 5), zeros(8, 6)), (zeros(8, 2), zeros(8, 3))
        for bad, labels, kind, message in (
            ((x[1], x[0]), y, ValueError, r"'a' \(Dense\) expects \[n, 5\], got"),
            ((x[0], x[0]), y, ValueError, r"'b' \(Dense\) expects \[n, 6\], got"),
            (x[0], y, ValueError, r"x: expected 2 tensors \(text, image\)"),
            ((x[0],), y, ValueError, r"x: expected 2 tensors \(text, image\)"),
            ({"text": x[0]}, y, ValueError, "nothing was given for 'image'"),
            ({"text": x[0], "img": x[1]}, y, ValueError, "text, image, got 'img'"),
            ((x[0], x[1].numpy()), y, ValueError, "2 tensors .*got a tuple of 2"),
            ((x[0], x[1].float()), y, ValueError, "got torch.float32"),
            ((x[0][:0], x[1][:0]), (y[0][:0], y[1][:0]), ValueError, "is empty"),
            (x, y[0], ValueError, r"labels: expected 2 tensors \(one, two\)"),
            (x, (y[1], y[1]), ValueError, r"layer 'one' \(Output\): .*labels"),
            (x, (y[0], y[1][:3]), ValueError, r"layer 'two' \(Output\): .*labels"),
        ):
            for call in (net.fit, net.score, net.gradient_and_score, net.loss):
                refuses(kind, message, lambda c=call, b=bad, y=labels: c(b, y))
        self.net().fit({"image": x[1], "text": x[0]}, y)

    def test_a_loader(self):
        net = self.net()
        x, y = (zeros(8, 5), zeros(8, 6)), (zeros(8, 2), zeros(8, 3))
        net.fit([(x, y)] * 2)
        refuses(
            TypeError, r"batch: expected \(x, labels\)", lambda: net.fit([x + y + y])
        )
        refuses(TypeError, r"batch: .* one tensor", lambda: net.fit(x))
