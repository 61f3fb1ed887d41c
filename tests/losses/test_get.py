"""Losses by name, of torch and of functions, and what they refuse."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dl4py import losses
from dl4py.registry import LOSSES


@pytest.mark.parametrize("name", list(LOSSES))
def test_classes_are_importable(name: str) -> None:
    cls = LOSSES[name]
    if not cls.__module__.startswith("dl4py."):
        pytest.skip("registered by another test")
    assert getattr(losses, cls.__name__) is cls and cls.__name__ in losses.__all__


class TestGet:
    def test_torch_losses_and_functions(self) -> None:
        z, y = torch.randn(3, 2), torch.rand(3, 2)
        mean = losses.get(nn.MSELoss())
        assert torch.equal(mean(z, y), F.mse_loss(z, y))
        assert torch.equal(mean.score(z, y, average=False), 3 * F.mse_loss(z, y))
        for loss in (
            losses.get(nn.L1Loss, "tanh", reduction="none"),
            losses.get(F.l1_loss, "tanh", reduction="none"),
            losses.get(lambda a, y: (a - y).abs().sum(1), "tanh"),
        ):
            ours = losses.get("l1", "tanh")
            m = torch.tensor([1.0, 0.0, 0.5])
            torch.testing.assert_close(
                loss.per_example(z, y, m), ours.per_example(z, y, m)
            )
            torch.testing.assert_close(loss(z, y, m), ours(z, y, m))
        weighted = losses.get(nn.L1Loss(reduction="none"), weights=[1, 2])
        expected = losses.get("l1", weights=[1, 2])
        torch.testing.assert_close(weighted(z, y), expected(z, y))
        assert repr(losses.get(F.l1_loss)).startswith("Custom(\n  l1_loss")
        indices = torch.tensor([0, 1, 1])
        assert losses.get(nn.CrossEntropyLoss())(z, indices) == F.cross_entropy(
            z, indices
        )

    def test_what_is_masked_may_be_anything(self) -> None:
        z, y = torch.randn(3, 2), torch.rand(3, 2)
        m = torch.tensor([1.0, 0.0, 0.5])
        loss = losses.get(nn.MSELoss(reduction="none"))
        bad, leaf = z.clone(), z.clone().requires_grad_()
        bad[1] = math.inf
        bad.requires_grad_()
        pair = loss(bad, y, m), loss(leaf, y, m)
        assert torch.equal(*pair)
        assert torch.equal(loss.per_example(bad, y, m), loss.per_example(leaf, y, m))
        slopes = [
            torch.autograd.grad(*at)[0] for at in zip(pair, (bad, leaf), strict=True)
        ]
        assert torch.equal(*slopes)

    def test_half_batches_do_not_overflow(self) -> None:
        z, y = torch.full((9000, 8), 4.0).half(), torch.zeros(9000, 8).half()
        loss = losses.get(nn.MSELoss(reduction="none"))
        assert loss(z, y) == 128 and loss(z, y).dtype == torch.float16
        assert loss.score(z, y, average=False) == 9000 * 128

    def test_one_number_takes_no_mask(self) -> None:
        z, y = torch.randn(3, 2), torch.rand(3, 2)
        loss = losses.get(nn.MSELoss())
        with pytest.raises(ValueError, match="MSELoss returns one number.*reduction="):
            loss(z, y, torch.ones(3))
        with pytest.raises(NotImplementedError, match="MSELoss returns one number"):
            loss.per_example(z, y)
        odd = losses.get(lambda a, y: a[:2])
        with pytest.raises(
            ValueError, match=r"\[3, 2\], \[n\] or one number, got \[2, 2"
        ):
            odd(z, y)

    def test_objects(self) -> None:
        loss = losses.get("mse")
        assert losses.get(loss) is loss
        bent = losses.get(loss, "tanh")
        assert "Tanh" in repr(bent) and "Tanh" not in repr(loss)
        with pytest.raises(ValueError, match="already applies Tanh"):
            losses.get(bent, "sigmoid")
        with pytest.raises(ValueError, match="is an object already"):
            losses.get(loss, weights=[1.0])
        named = LOSSES.named("XENT", clip_eps=0.1, weights=(1.0, 2.0))
        found = losses.get(named, "sigmoid")
        assert (found.clip_eps, found.weights) == (0.1, (1.0, 2.0))

    @pytest.mark.parametrize(
        "wrong, args, error, message",
        [
            ("mcxnt", {}, ValueError, "did you mean 'mcxent'"),
            ("mse", {"eps": 1}, ValueError, "unknown argument 'eps'"),
            ("xent", {"clip_eps": 0.5}, ValueError, "XENT(clip_eps=...) must be < 0.5"),
            ("xent", {"clip_eps": -1}, ValueError, "must be in [0, 0.5], got -1"),
            (
                "mcxent",
                {"softmax_clip_eps": math.nan},
                ValueError,
                "in [0, 0.5], got nan",
            ),
            ("fmeasure", {"beta": 0}, ValueError, "FMeasure(beta=...) must be > 0"),
            ("mse", {"weights": [1, math.nan]}, ValueError, "must be finite numbers"),
            ("mse", {"weights": []}, ValueError, "must be finite numbers"),
            (
                "mixture_density",
                {"gaussians": 0, "labels": 1},
                ValueError,
                ">= 1, got 0",
            ),
            (3, {}, TypeError, "loss must be a name, a loss, a torch loss module"),
            (int, {}, TypeError, "loss must be a name, a loss, a torch loss module"),
        ],
    )
    def test_one_clear_error(
        self, wrong: Any, args: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=re.escape(message)):
            losses.get(wrong, **args)


Z = torch.zeros(3, 4)
BAD_CALLS: list[tuple[str, tuple[Any, ...], str]] = [
    ("mcxent", (Z, torch.tensor([0, 1, 2])), "class indices need SPARSE_MCXENT, or"),
    ("mcxent", (Z, torch.tensor([[0], [1], [2]])), "one_hot(labels, 4)"),
    (
        "mse",
        (Z, torch.zeros(3, 5)),
        "must be [n, K] = [3, 4] as the output, got [3, 5]",
    ),
    (
        "mse",
        (Z, torch.zeros(4, 4)),
        "must be [n, K] = [3, 4] as the output, got [4, 4]",
    ),
    ("mse", (Z[:, :1], torch.zeros(3)), "use labels.reshape(output.shape)"),
    ("mse", (Z[0], Z[0]), "output must be [n, K], got [4]: move"),
    ("mse", (Z.long(), Z), "output must be floating, got torch.int64"),
    ("mse", (Z, Z.to("meta")), "labels are on meta, the output is on cpu"),
    ("mse", (Z, Z, torch.ones(3).to("meta")), "mask is on meta, the output is on cpu"),
    ("mse", (Z, Z, torch.ones(4)), "mask must be [n] = [3], [n, 1] or [n, K] = [3, 4]"),
    ("mse", (Z, Z, torch.ones(1, 4)), "got [1, 4]"),
    ("mse", (Z, Z, torch.ones(3, 4, 1)), "got [3, 4, 1]"),
    ("fmeasure", (Z, Z), "output must have 1 or 2 columns, got [3, 4]"),
    ("fmeasure", (Z[:, :2], Z[:, :2], Z[:, :2]), "[n] = [3], [n, 1], got [3, 2]"),
    ("sparse_mcxent", (Z, Z), "one-hot labels need MCXENT"),
]


@pytest.mark.parametrize("key, inputs, message", BAD_CALLS)
def test_one_clear_error_per_call(
    key: str, inputs: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        losses.get(key)(*inputs)


def test_weights_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match=r"one entry per output \(K = 4\), got 2"):
        losses.get("mse", weights=[1, 2])(Z, Z)


def test_mixture_density_shapes() -> None:
    loss = losses.get("mixture_density", gaussians=2, labels=1)
    with pytest.raises(ValueError, match=r"gaussians = 6 columns, got \[3, 4\]"):
        loss(Z, Z[:, :1])
    with pytest.raises(ValueError, match=r"labels\] = \[3, 1\], got \[3, 4\]"):
        loss(torch.zeros(3, 6), Z)
