"""What the evaluations share: DL4J's arrays as rows of one example each, and masks."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics import Metric


class RowMetric(Metric):
    """A metric whose states are sums over rows.

    A state that starts as the number 0 takes its shape from the first batch.
    """

    is_differentiable = False
    full_state_update = False

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
        raise ValueError(
            f"mask must have the shape {[n, *rest]}, {[n, 1, *rest]} or {list(shape)} "
            f"for predictions {list(shape)}, got {list(mask.shape)}"
        )
    return as_rows(mask) != 0
