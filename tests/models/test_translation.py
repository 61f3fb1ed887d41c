"""Chains of torch's modules in DL4J's words: the same numbers, also in Java."""

import numpy as np
import pytest
import torch
from torch import nn

import dl4py
from dl4py import InputType
from dl4py.translation import from_torch

FF, FLAT = InputType.feed_forward(4), InputType.convolutional_flat(8, 8, 1)
IMAGE, SERIES = InputType.convolutional(8, 8, 2), InputType.recurrent(3, 9)


def warm(module, *shape):
    """With running statistics of its own."""
    for _ in range(3):
        module.train()(torch.randn(16, *shape) * 2 + 1)
    return module


CASES = {
    "mlp": (
        lambda: nn.Sequential(
            nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 6, bias=False),
            nn.LeakyReLU(0.2), nn.Linear(6, 3), nn.Softmax(dim=1),
        ),
        FF,
        (4,),
    ),
    "cnn": (
        lambda: warm(
            nn.Sequential(
                nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)),
                nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
                nn.Conv2d(4, 5, (3, 2), stride=(2, 1), dilation=(1, 2)), nn.ELU(0.5),
                nn.AvgPool2d(2, 1, padding=1), nn.Flatten(), nn.LazyLinear(7),
                nn.SiLU(), nn.BatchNorm1d(7, affine=False, momentum=0.3),
                nn.Linear(7, 1), nn.Sigmoid(),
            ),
            2, 8, 8,
        ),
        IMAGE,
        (2, 8, 8),
    ),
    "same": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 5, padding="same"), nn.Mish(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Identity(), nn.Linear(3, 2),
        ),
        IMAGE,
        (2, 8, 8),
    ),
    "series": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 6, 3, padding=1), nn.Hardtanh(), nn.Conv1d(6, 4, 3, stride=2),
            nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(4, 2), nn.Softplus(),
        ),
        SERIES,
        (3, 9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_computes_the_same(name, dtype, tmp_path):
    make, given, shape = CASES[name]
    module = make().to(dtype).eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    net = from_torch(module, given, updater="adam")
    x = torch.randn(7, *shape, dtype=dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
    assert torch.allclose(net.output(x), module(x).detach(), **tolerance)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    with pytest.warns() if net.differs() else torch.no_grad():
        dl4py.save(net, tmp_path / "model.zip")
    again = dl4py.restore(tmp_path / "model.zip")
    assert torch.allclose(again.output(x), net.output(x), **tolerance)


@pytest.mark.filterwarnings("ignore:DL4J will differ")
@pytest.mark.parametrize("name", CASES)
def test_java_predicts_the_same(name, oracle, tmp_path):
    make, given, shape = CASES[name]
    module = make().double().eval()
    dl4py.save(from_torch(module, given), tmp_path / "model.zip")
    x = torch.randn(5, *shape).double()
    np.save(tmp_path / "x.npy", x.numpy())
    oracle("output", tmp_path / "model.zip", tmp_path, tmp_path / "x.npy")
    theirs = torch.from_numpy(np.load(tmp_path / "out_0.npy"))
    assert torch.allclose(theirs, module(x).detach(), rtol=1e-10, atol=1e-12)


def test_logits_get_an_activation_and_a_loss():
    module = nn.Sequential(nn.Linear(4, 3))
    for activation, loss in ((None, "mse"), ("softmax", "mcxent"), ("sigmoid", "xent")):
        net = from_torch(module, FF, activation=activation)
        assert net.conf.layers[-1].loss.name == loss
    net = from_torch(module, FF, "negativeloglikelihood", "softmax", "adam")
    x, y = torch.randn(9, 4), torch.eye(3)[torch.arange(9) % 3]
    score = nn.functional.cross_entropy(module(x), y)
    assert net.score(x, y) == pytest.approx(score.item(), rel=1e-5)
    net.fit(x, y)


@pytest.mark.parametrize(
    "modules, given, text",
    [
        ([nn.LayerNorm(4), nn.Linear(4, 2)], FF, r"module\[0\]: LayerNorm has no word"),
        ([nn.GELU(), nn.Linear(4, 2)], FF, r"module\[0\]: GELU has no word in DL4J"),
        ([nn.Linear(4, 2), nn.Softplus(2)], FF, "beta=1 only, got 2"),
        ([nn.Conv2d(2, 4, 3, groups=2), nn.Linear(4, 2)], IMAGE, "groups=1 only"),
        ([nn.MaxPool2d(2, ceil_mode=True), nn.Linear(4, 2)], IMAGE, "ceil_mode=False"),
        ([nn.Dropout(1.0), nn.Linear(4, 2)], FF, "p must be below 1"),
        ([nn.Conv2d(2, 4, 3)], IMAGE, "a Linear.* at the end, got Convolution2D"),
        ([], FF, "at the end, got no module"),
        ([nn.Conv2d(2, 3, 3), nn.Linear(6, 2)], IMAGE, "n_in: the layer before gives"),
    ],
)  # fmt: skip
def test_what_has_no_word_is_refused_by_name(modules, given, text):
    with pytest.raises(ValueError, match=text):
        from_torch(nn.Sequential(*modules), given)


def test_what_computes_otherwise_is_refused():
    """A Linear on the last axis of images: DL4J flattens before it."""
    module = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="layer before gives 64|different shapes"):
        from_torch(module, IMAGE)
    with pytest.raises(ValueError, match="ends with one of its own"):
        from_torch(nn.Sequential(nn.Linear(4, 2), nn.Tanh()), FF, activation="softmax")


def test_one_activation_may_stand_at_two_places():
    act = nn.Tanh()
    module = nn.Sequential(nn.Linear(4, 5), act, nn.Linear(5, 6), act, nn.Linear(6, 2))
    net = from_torch(module, FF)
    assert [c.activation.name for c in net.conf.layers] == ["tanh", "tanh", "identity"]


def test_what_was_compiled_is_what_it_wraps():
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    x = torch.randn(2, 4)
    torch.testing.assert_close(
        from_torch(torch.compile(module, backend="eager"), FF).output(x), module(x)
    )


def not_finite():
    module = nn.Linear(4, 3)
    nn.init.constant_(module.weight, torch.nan)
    return module


@pytest.mark.parametrize(
    "make, given, text",
    [
        (lambda: twice(nn.Linear(4, 4)), FF, "stands at two places; DL4J shares none"),
        (lambda: nn.Linear(4, 3, device="meta"), FF, "on the meta device hold no num"),
        (not_finite, FF, "is not finite, .* NaN among its parameters"),
        (
            lambda: nn.Sequential(nn.Conv2d(2, 1, 1), nn.Linear(64, 3)),
            IMAGE,
            r"does not take \[2, 2, 8, 8\] itself: mat1 .* Flatten may be missing",
        ),
    ],
)
def test_what_cannot_be_compared_is_told(make, given, text):
    with pytest.raises(ValueError, match=text):
        from_torch(make(), given)


def twice(layer):
    return nn.Sequential(layer, nn.ReLU(), layer)
