"""What the evaluations share: DL4J's arrays as rows of one example each, and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from dl4py.extras import need
from dl4py.losses.misfit import MaskMisfit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class RowMetric(Metric):
    """A metric whose states are sums over rows.

    A state that starts as the number 0 takes its shape from the first batch.

    Args:
        metric: the one number that ``compute()`` gives, one of ``numbers``; without it
            a dict of those in ``shown``.

    Attributes:
        shown: the numbers in the dict of ``compute()``.
        numbers: all that ``compute()`` can give, by name.
        rising: those of them that are higher where the model is better.
    """

    is_differentiable = False
    full_state_update = False
    shown: ClassVar[tuple[str, ...]] = ()
    numbers: ClassVar[tuple[str, ...]] = ()
    rising: ClassVar[tuple[str, ...]] = ()

    def __init__(self, metric: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        name = metric.lower() if isinstance(metric, str) else metric
        if name is not None and name not in self.numbers:
            raise ValueError(
                f"{type(self).__name__}(metric=...) must be one of "
                f"{', '.join(self.numbers)}, got {metric!r}"
            )
        self.metric = name

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """Of the one number that ``compute()`` gives."""
        return None if self.metric is None else self.metric in self.rising

    @classmethod
    def collection(
        cls,
        *args: Any,
        prefix: str | None = None,
        postfix: str | None = None,
        **kwargs: Any,
    ) -> MetricCollection:
        """One metric a number, which count together: for ``self.log_dict(...)``.

        Lightning logs metrics that give one number. Whoever updates the collection and
        hands it to ``log_dict`` needs no ``compute()`` and no ``reset()``.

        Args:
            args, kwargs: those of the class.
            prefix, postfix: of the names.
        """
        metrics: dict[str, Metric | MetricCollection] = {
            name: cls(*args, **{**kwargs, "metric": name}) for name in cls.shown
        }
        return MetricCollection(metrics, prefix=prefix, postfix=postfix)

    def items(self) -> NoReturn:
        """Refused: it is what Lightning's ``log_dict`` asks a dict for."""
        name = type(self).__name__
        raise TypeError(
            f"log_dict(...): {name} is no dict of metrics; give it "
            f"{name}.collection(...), or evaluation.compute() at the end of an epoch"
        )

    def plot(self, val: Any = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the numbers of ``compute()``, in torchmetrics' picture.

        Args:
            val: what ``compute()`` or a call returned, or a list of such results as
                steps of a curve; default: ``compute()``.
            ax: where to draw; a new figure without it.
        """
        need("matplotlib", f"{type(self).__name__}.plot() draws")
        if val is not None and not isinstance(val, (Tensor, dict, list, tuple)):
            raise TypeError(
                f"{type(self).__name__}.plot(val, ax): val must be what compute() "
                f"returned, or a list of such, got {type(val).__name__}; axes go to ax="
            )
        _, drawn = self._plot(self.compute() if val is None else val, ax)
        axes: Any = drawn  # torchmetrics returns no figure where it was given axes
        return axes.figure, axes

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Update with a batch and return the values of that batch alone."""
        # torchmetrics resets before it looks at the batch: a refused batch would cost
        # the counts so far. States are replaced, never written to, so this is a backup.
        before = dict(self.__dict__)
        try:
            return super().forward(*args, **kwargs)
        except Exception:
            self.__dict__.update(before)
            raise


def check_tensors(predictions: object, labels: object, mask: object) -> None:
    """Tensors on one device, or an error that names the one that is not."""
    given = {"predictions": predictions, "labels": labels}
    if mask is not None:
        given["mask"] = mask
    devices = {}
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} must be a tensor, got {type(value).__name__}: "
                "convert it with torch.as_tensor"
            )
        devices[name] = str(value.device)
    if len(set(devices.values())) > 1:
        raise ValueError(f"tensors must be on one device, got {devices}")


def as_rows(x: Tensor) -> Tensor:
    """``[n, K, time or pixels …]`` → ``[rows, K]``."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def mask_rows(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask for predictions of ``shape`` as booleans ``[rows, 1]`` or ``[rows, K]``.

    What is not 0 counts; DL4J's evaluations do not weight.
    """
    n, _, *rest = shape
    if mask.shape == (n, *rest):
        mask = mask.unsqueeze(1)
    elif tuple(mask.shape) not in ((n, 1, *rest), shape):
        raise MaskMisfit(
            f"mask must have the shape {[n, *rest]}, {[n, 1, *rest]} or {list(shape)} "
            f"for predictions {list(shape)}, got {list(mask.shape)}"
        )
    return as_rows(mask) != 0


def names(of: str, labels: Sequence[str] | None) -> list[str] | None:
    """Names of columns as a list, or an error."""
    if labels is None:
        return None
    if isinstance(labels, str) or not labels:
        raise TypeError(f"{of}(labels=...) must be names, got {labels!r}")
    if not all(isinstance(name, str) for name in labels):
        raise TypeError(f"{of}(labels=...) must be names, got {labels!r}")
    return list(labels)


def binary_rows(
    predictions: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    bounded: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows of independent outputs: scores, labels and which of them count."""
    check_tensors(predictions, labels, mask)
    if predictions.shape != labels.shape or not predictions.ndim:
        raise ValueError(
            "predictions and labels must have one shape [n, outputs, ...], got "
            f"{list(predictions.shape)} and {list(labels.shape)}"
        )
    if predictions.ndim == 1:
        predictions, labels = predictions.unsqueeze(1), labels.unsqueeze(1)
    p, y = as_rows(predictions), as_rows(labels)
    keep = None
    if mask is not None:
        keep = mask_rows(mask, tuple(predictions.shape)).expand_as(p)
    return *checked(p, y, keep, bounded), keep


def _within(p: Tensor, low: float, high: float) -> bool:
    least, most = p.aminmax()  # NaN, where there is one
    return bool(least >= low) and bool(most <= high)


def _all_bits(y: Tensor) -> bool:
    """Whether all are 0 or 1."""
    if y.is_floating_point() or y.is_complex():
        return not bool(((y != 0) & (y != 1)).any())
    if not y.numel():
        return True
    low, high = y.aminmax()  # of whole numbers these two say it
    return bool(low >= 0) and bool(high <= 1)


def checked(
    p: Tensor, y: Tensor, keep: Tensor | None, bounded: bool = True
) -> tuple[Tensor, Tensor]:
    """Scores (in [0, 1] if ``bounded``) and labels 0 or 1 wherever they count."""
    p, y = p.detach(), y.detach()
    if not p.is_floating_point():
        raise ValueError(f"predictions must be probabilities, got {p.dtype}")
    if keep is not None:
        p, y = p.masked_fill(~keep, 0), y.masked_fill(~keep, 0)
    low, high = (0.0, 1.0) if bounded else (-math.inf, math.inf)
    if p.numel() and not _within(p, low, high):
        wrong = p[~((p >= low) & (p <= high))][0].item()
        raise ValueError(
            f"predictions must be probabilities in [0, 1] where the mask is not 0, got "
            f"{wrong}"
        )
    if y.dtype != torch.bool and not _all_bits(y):
        wrong = y[(y != 0) & (y != 1)][0].item()
        raise ValueError(f"labels must be 0 or 1 where the mask is not 0, got {wrong}")
    return p, y == 1
