"""What is called exact computes in full precision, whatever the process allows."""

import copy
import subprocess
import sys
import textwrap
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dl4py.config import (
    LSTM,
    BatchNormalization,
    Convolution2D,
    Dense,
    GlobalPooling,
    InputType,
    Output,
    RnnOutput,
    Subsampling,
)
from dl4py.ops import precision
from tests.networks import builder

B = torch.backends
FLAGS = {
    "all": B,
    "cudnn": B.cudnn,
    "cudnn.conv": B.cudnn.conv,
    "cudnn.rnn": B.cudnn.rnn,
    "cuda.matmul": B.cuda.matmul,
    "mkldnn": B.mkldnn,
    "mkldnn.matmul": B.mkldnn.matmul,
    "mkldnn.conv": B.mkldnn.conv,
    "mkldnn.rnn": B.mkldnn.rnn,
}
PRODUCTS = ("mm", "conv", "lstm", "rnn", "linear", "einsum", "dot")


def flags():
    try:
        word = torch.get_float32_matmul_precision()
    except RuntimeError:  # both of torch's interfaces were used
        word = None
    return {**{name: f.fp32_precision for name, f in FLAGS.items()}, "word": word}


def word(value):
    return lambda: torch.set_float32_matmul_precision(value)


def flag(where, value):
    return lambda: setattr(FLAGS[where], "fp32_precision", value)


def tf32(allowed):
    return lambda: setattr(torch.backends.cudnn, "allow_tf32", allowed)


SETTINGS = {
    "default": [],
    "high": [word("high")],
    "medium": [word("medium")],
    "all_tf32": [flag("all", "tf32")],
    "all_bf16": [flag("all", "bf16")],
    "cudnn": [flag("cudnn", "tf32")],
    "new": [flag("cuda.matmul", "tf32"), flag("cudnn.rnn", "ieee")],
    "leaves": [flag("mkldnn.matmul", "bf16"), flag("mkldnn.conv", "bf16")],
    "older": [tf32(False), tf32(True)],
    "mixed": [word("high"), flag("cuda.matmul", "ieee"), flag("all", "bf16")],
}


@pytest.fixture(params=SETTINGS)
def setting(request):
    """A way to allow less precision; afterwards torch is as it started."""
    start = {name: f.fp32_precision for name, f in FLAGS.items()}
    for act in SETTINGS[request.param]:
        act()
    yield request.param
    FLAGS["all"].fp32_precision = FLAGS["cudnn"].fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for name in ("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn", "cuda.matmul"):
        FLAGS[name].fp32_precision = start[name]


class Watch(TorchDispatchMode):
    """The flags at every product, forward and backward."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        if any(word in f.name() for word in PRODUCTS):
            self.seen.append((f.name(), flags()))
        return f(*args, **(kwargs or {}))


def network(kind, exact=True, dtype="float"):
    layers, given = {
        "dense": (
            [
                Dense(n_out=64, activation="tanh"),
                Dense(n_out=64, has_layer_norm=True),
                Output(n_out=3),
            ],
            InputType.feed_forward(64),
        ),
        "cnn": (
            [
                Convolution2D(n_out=32, kernel_size=3, activation="tanh"),
                Subsampling(kernel_size=2),
                BatchNormalization(),
                Output(n_out=3),
            ],
            InputType.convolutional(10, 10, 16),
        ),
        "lstm": (
            [LSTM(n_out=64, activation="tanh"), RnnOutput(n_out=3)],
            InputType.recurrent(64),
        ),
        "steps": (
            [
                LSTM(n_out=64, activation="softsign"),
                GlobalPooling(pooling_type="AVG"),
                Output(n_out=3),
            ],
            InputType.recurrent(64),
        ),
    }[kind]
    chain = builder(dtype).updater("sgd", lr=0.1).list()
    for layer in layers:
        chain.layer(layer)
    return chain.input_type(given).build().module(exact)


def batch(kind, dtype=torch.float32):
    g = torch.Generator().manual_seed(2)
    shape = {"dense": (64, 64), "cnn": (16, 16, 10, 10)}.get(kind, (16, 64, 6))
    x = torch.randn(shape, generator=g).to(dtype)
    y = torch.eye(3, dtype=dtype)[torch.randint(3, (len(x),), generator=g)]
    return x, y[:, :, None].expand(-1, -1, 6) if kind == "lstm" else y


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KINDS = ["dense", "cnn", "lstm", "steps"]


def full(seen, device):
    names = [n for n in FLAGS if "." in n and (device == "meta" or "mkldnn" in n)]
    return all(state[n] in ("ieee", "none") for _, state in seen for n in names)


def calls(net, x, y):
    """Ways to the numbers of a network, a user's own loop among them."""
    yield lambda: net.loss(x, y).backward()
    yield lambda: net(x)
    if x.device.type != "meta":  # there are no numbers
        yield lambda: net.fit(x, y)
        yield lambda: net.gradient_and_score(x, y)


@pytest.mark.parametrize("kind", KINDS)
def test_flags_at_every_product_and_afterwards(kind, setting):
    """On a CPU for its own settings, on another device (here: meta) for all."""
    for device in ("cpu", "meta"):
        net, (x, y), before = network(kind).to(device), batch(kind), flags()
        for call in calls(net, x.to(device), y.to(device)):
            with Watch() as watch:
                call()
            assert len(watch.seen) > 1 and full(watch.seen, device), watch.seen
            assert flags() == before


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_do_not_depend_on_the_setting(kind, setting):
    """On CUDA, and on a CPU with bfloat16 units, they change without protection."""
    x, y = batch(kind)
    allowed = numbers(network(kind).to(DEVICE), x.to(DEVICE), y.to(DEVICE))
    x, y = batch(kind, torch.float64)
    right = numbers(network(kind, dtype="double"), x, y)
    for a, b in zip(allowed, right, strict=True):
        scale = b.abs().max()
        assert float((a.cpu().double() - b).abs().max() / scale) < 1e-5


def numbers(net, x, y):
    reference = network_params(net)
    net.set_params(reference.to(net.params()))
    gradient, score = net.gradient_and_score(x, y)
    output = net.output(x)
    net.fit(x, y)
    return output, gradient, torch.tensor([score]), net.params()


def network_params(net):
    g = torch.Generator().manual_seed(9)
    values = torch.randn(net.num_params(), generator=g) / 8
    start = 0
    for view in net.views():
        size = view.tensor.numel()
        if view.kind == "statistic":
            values[start : start + size] = 0
        start += size
    return values


def test_a_default_network_keeps_to_the_setting(setting):
    net, before = network("dense", exact=False), flags()
    with Watch() as watch:
        net.fit(*batch("dense"))
    assert all(state == before for _, state in watch.seen)


def test_what_only_follows_an_outer_setting_still_does():
    """Settings that nobody made are not made by a call either; in a fresh process."""
    program = """
        from tests.network.test_precision import FLAGS, batch, network
        network("cnn").fit(*batch("cnn"))
        FLAGS["all"].fp32_precision = "tf32"
        network("lstm").fit(*batch("lstm"))
        FLAGS["all"].fp32_precision = "ieee"
        print([name for name, f in FLAGS.items() if f.fp32_precision != "ieee"])
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_on_the_way_restores_the_flags(kind, monkeypatch):
    net, (x, y) = network(kind), batch(kind)

    class Failing(TorchDispatchMode):
        def __init__(self, at):
            super().__init__()
            self.left = at

        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            if any(word in f.name() for word in PRODUCTS):
                self.left -= 1
                if self.left == 0:
                    raise RuntimeError("out of memory")
            return f(*args, **(kwargs or {}))

    torch.set_float32_matmul_precision("high")
    try:
        before = flags()
        for at in (1, 2, 4, 5):
            with pytest.raises(RuntimeError, match="out of memory"), Failing(at):
                net.fit(x, y)
                net.fit(x, y)
            assert flags() == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("kind", ["dense", "cnn", "steps"])
def test_second_derivatives_and_kept_graphs(kind):
    found = []
    for dtype, value in (("double", "highest"), ("float", "medium")):
        torch.set_float32_matmul_precision(value)
        try:
            net = network(kind, dtype=dtype)
            net.set_params(network_params(net).to(net.params().dtype))
            x, y = batch(kind, net.params().dtype)
            x.requires_grad_()
            loss = net.loss(x, y)
            params = [x, *net.parameters()]
            first = torch.autograd.grad(loss, params, retain_graph=True)
            again = torch.autograd.grad(loss, params, create_graph=True)
            total = sum((g * g).sum() for g in again)
            found.append([*first, *again, *torch.autograd.grad(total, params)])
        finally:
            torch.set_float32_matmul_precision("highest")
    for a, b in zip(*found, strict=True):
        assert float(((a - b).abs().max() / a.abs().max()).detach()) < 1e-5


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # of torch's forward mode
def test_frozen_parameters_and_transforms():
    torch.set_float32_matmul_precision("high")
    try:
        net, (x, y) = network("dense"), batch("dense")
        net.layers["layer0"].weight.requires_grad_(False)
        before = net.layers["layer0"].weight.clone()
        net.fit(x, y)
        assert torch.equal(net.layers["layer0"].weight, before)
        params = {k: p.detach() for k, p in net.named_parameters()}

        def output(params, x):
            return torch.func.functional_call(net, params, (x,))

        _, tangent = torch.func.jvp(lambda x: output(params, x), (x,), (x,))
        assert tangent.shape == (64, 3)
        per_row = torch.func.vmap(lambda r: output(params, r[None])[0])(x)
        torch.testing.assert_close(per_row, net(x), rtol=1e-4, atol=1e-5)
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_threads_share_one_protection():
    """Nobody's end takes the protection from another, and the last one restores."""
    torch.set_float32_matmul_precision("high")
    try:
        before = flags()
        entered, leave = threading.Event(), threading.Event()

        def first():
            with precision.full_precision():
                entered.set()
                leave.wait()

        thread = threading.Thread(target=first)
        thread.start()
        entered.wait()
        with precision.full_precision():
            leave.set()
            thread.join()
            assert not precision.reduced()
        assert flags() == before
    finally:
        leave.set()
        torch.set_float32_matmul_precision("highest")


def test_autocast_is_asked_for():
    net, (x, y) = network("dense"), batch("dense")
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            lower = net.loss(x, y)
        assert copy.deepcopy(net).loss(x, y).item() != lower.item()
    finally:
        torch.set_float32_matmul_precision("highest")
