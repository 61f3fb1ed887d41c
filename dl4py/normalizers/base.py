"""Normalizers: features, and labels if wanted, scaled and back."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from dl4py.normalizers.scales import Range, Scale, Seen, Standard
from dl4py.registry import NORMALIZERS

Arrays = Any  # a tensor, or a tuple of one per input


class Normalizer(nn.Module):
    """Base of all normalizers: ``fit``, ``transform``, ``revert``, and a module.

    ``normalizer(x)`` is ``transform(x)``, so that it stands in any ``nn.Sequential``.
    What is fitted is kept in buffers and travels in state dicts.

    Attributes:
        code: DL4J's word for it in a file; "" if it cannot be in one.
    """

    code: ClassVar[str] = ""
    fit_labels: bool

    def fit(self, data: Any) -> Normalizer:
        """Learn the statistics in one pass.

        Args:
            data: features, or a batch ``(features, labels)`` or ``(features, labels,
                features mask, labels mask)``, or any iterable of such batches, e.g. a
                ``DataLoader``. Features and labels of several inputs are tuples.
        """
        return self

    def transform(self, x: Arrays, mask: Arrays = None) -> Arrays:
        """Features scaled; masked steps are 0."""
        raise NotImplementedError

    def revert(self, x: Arrays, mask: Arrays = None) -> Arrays:
        """The inverse of :meth:`transform`."""
        raise NotImplementedError

    def transform_labels(self, y: Arrays, mask: Arrays = None) -> Arrays:
        """Labels scaled, if ``fit_labels``; as they are if not."""
        return y

    def revert_labels(self, y: Arrays, mask: Arrays = None) -> Arrays:
        """The inverse of :meth:`transform_labels`: predictions in the labels' units."""
        return y

    def forward(self, x: Arrays, mask: Arrays = None) -> Arrays:
        """:meth:`transform`."""
        return self.transform(x, mask)

    def describe(self) -> str:
        """One line of what it does."""
        return type(self).__name__


class Fitted(Normalizer):
    """Base of those with statistics: a scale, or none, for each input and output."""

    several: ClassVar[bool] = False  # whether features are tuples

    def __init__(self, fit_labels: bool = False) -> None:
        super().__init__()
        if not isinstance(fit_labels, bool):
            raise TypeError(
                f"{type(self).__name__}(fit_labels=...): expected True or False, got "
                f"{fit_labels!r}"
            )
        self.fit_labels = fit_labels
        self.inputs = nn.ModuleList()
        self.outputs = nn.ModuleList()

    def scale(self, side: str, index: int) -> Scale | None:
        """A new scale for an input or output, ``None`` to leave it as it is."""
        raise NotImplementedError

    def fit(self, data: Any) -> Normalizer:
        sides: dict[str, list[Seen]] = {"inputs": [], "outputs": []}
        for batch in _batches(data, self.several):
            x, y, x_mask, y_mask = _parts(batch, self.several)
            self._see(sides["inputs"], "features", x, x_mask)
            if self.fit_labels:
                if y is None:
                    raise ValueError(
                        f"{type(self).__name__}(fit_labels=True).fit: the data has no "
                        "labels; give batches (features, labels)"
                    )
                self._see(sides["outputs"], "labels", y, y_mask)
        if not sides["inputs"] or not all(s.count for s in sides["inputs"]):
            raise ValueError(f"{type(self).__name__}.fit: the data has no rows")
        for side, seen in sides.items():
            made = [self.scale(side, i) for i in range(len(seen))]
            for scale, columns in zip(made, seen, strict=True):
                if scale is not None:
                    scale.learn(columns)
            setattr(self, side, self._list(made))
        return self

    def _see(self, seen: list[Seen], what: str, arrays: Arrays, masks: Arrays) -> None:
        arrays, masks = self._tuple(arrays), self._tuple(masks)
        if not seen:
            seen.extend(Seen() for _ in arrays)
        if len(arrays) != len(seen):
            raise ValueError(
                f"{type(self).__name__}.fit: batches of {len(seen)} {what}, then one "
                f"of {len(arrays)}"
            )
        for i, x in enumerate(arrays):
            if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2:
                got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x)
                raise TypeError(
                    f"{type(self).__name__}.fit: expected {what} as float tensors "
                    f"[n, columns, ...], got {got}"
                )
            seen[i].add(x, masks[i] if i < len(masks) else None)

    def _list(self, scales: list[Scale | None]) -> nn.ModuleList:
        return nn.ModuleList(nn.Identity() if s is None else s for s in scales)

    def _tuple(self, arrays: Arrays) -> tuple[Any, ...]:
        if arrays is None:
            return ()
        if self.several and isinstance(arrays, (tuple, list)):
            return tuple(arrays)
        return (arrays,)

    def _each(self, side: str, name: str, arrays: Arrays, masks: Arrays) -> Arrays:
        if not len(self.inputs):
            raise RuntimeError(
                f"{type(self).__name__}: no statistics yet; call fit(data) first"
            )
        scales: list[nn.Module] = list(getattr(self, side))
        given, covers = self._tuple(arrays), self._tuple(masks)
        rest = range(len(scales), len(given))
        if all(self.scale(side, i) is None for i in rest):  # files do not count those
            scales += [nn.Identity() for _ in rest]
        if len(given) != len(scales):
            raise ValueError(
                f"{type(self).__name__}: fitted to {len(scales)} arrays, got "
                f"{len(given)}"
            )
        found = []
        for i, (scale, x) in enumerate(zip(scales, given, strict=True)):
            mask = covers[i] if i < len(covers) else None
            of = scale if name == "transform" else getattr(scale, "revert", scale)
            found.append(of(x, mask) if isinstance(scale, Scale) else x)
        return tuple(found) if isinstance(arrays, (tuple, list)) else found[0]

    def transform(self, x: Arrays, mask: Arrays = None) -> Arrays:
        return self._each("inputs", "transform", x, mask)

    def revert(self, x: Arrays, mask: Arrays = None) -> Arrays:
        return self._each("inputs", "revert", x, mask)

    def transform_labels(self, y: Arrays, mask: Arrays = None) -> Arrays:
        if not self.fit_labels:
            return y
        return self._each("outputs", "transform", y, mask)

    def revert_labels(self, y: Arrays, mask: Arrays = None) -> Arrays:
        if not self.fit_labels:
            return y
        return self._each("outputs", "revert", y, mask)

    def describe(self) -> str:
        sizes = [
            ", ".join(
                str(s.statistics()[0].numel()) if isinstance(s, Scale) else "as it is"
                for s in scales
            )
            for scales in (self.inputs, self.outputs)
        ]
        labels = f", labels of {sizes[1]}" if sizes[1] else ""
        return f"{type(self).__name__}: features of {sizes[0] or 'no'} columns{labels}"

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any
    ) -> None:
        for side in ("inputs", "outputs"):  # as many as the state has
            start = f"{prefix}{side}."
            keys = [k[len(start) :] for k in state_dict if k.startswith(start)]
            count = max((int(k.split(".")[0]) + 1 for k in keys), default=0)
            if count != len(getattr(self, side)):
                made = [self.scale(side, i) for i in range(count)]
                setattr(self, side, self._list(made))
        super()._load_from_state_dict(state_dict, prefix, *args)


@NORMALIZERS.add("standardize", java="NormalizerStandardize")
class Standardize(Fitted):
    """(x - μ) / σ with the mean and population deviation of each column.

    Columns are axis 1; for series and images all steps and pixels count, without those
    that are masked out. Sums are in float64, statistics in the dtype of the data.

    Args:
        fit_labels: whether labels are scaled too.

    Example:
        >>> import torch
        >>> normalizer = Standardize().fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        >>> normalizer(torch.tensor([[2.0, 5.0], [4.0, 6.0]]))
        tensor([[0., 0.],
                [2., 1.]])
        >>> normalizer.revert(torch.tensor([[2.0, 1.0]]))
        tensor([[4., 6.]])

    DL4J: org.nd4j.linalg.dataset.api.preprocessor.NormalizerStandardize
    """

    code = "STANDARDIZE"

    def scale(self, side: str, index: int) -> Scale | None:
        return Standard()


@NORMALIZERS.add("min_max_scaler", "min_max", java="NormalizerMinMaxScaler")
class MinMaxScaler(Fitted):
    """(x - min) / (max - min) · (high - low) + low of each column.

    Args:
        low, high: the range of the result, low < high.
        fit_labels: whether labels are scaled too.

    Example:
        >>> import torch
        >>> normalizer = MinMaxScaler(-1, 1).fit(torch.tensor([[1.0], [3.0]]))
        >>> normalizer(torch.tensor([[1.0], [2.0], [3.0]])).flatten()
        tensor([-1.,  0.,  1.])

    DL4J: org.nd4j.linalg.dataset.api.preprocessor.NormalizerMinMaxScaler
    """

    code = "MIN_MAX"

    def __init__(
        self, low: float = 0.0, high: float = 1.0, fit_labels: bool = False
    ) -> None:
        super().__init__(fit_labels)
        self.range = Range(low, high)

    def scale(self, side: str, index: int) -> Scale | None:
        return Range(self.range.low, self.range.high)


@NORMALIZERS.add("multi_standardize", java="MultiNormalizerStandardize")
class MultiStandardize(Standardize):
    """:class:`Standardize` for several inputs and outputs: features are tuples.

    DL4J: org.nd4j.linalg.dataset.api.preprocessor.MultiNormalizerStandardize
    """

    code = "MULTI_STANDARDIZE"
    several = True


@NORMALIZERS.add(
    "multi_min_max_scaler", "multi_min_max", java="MultiNormalizerMinMaxScaler"
)
class MultiMinMaxScaler(MinMaxScaler):
    """:class:`MinMaxScaler` for several inputs and outputs: features are tuples.

    DL4J: org.nd4j.linalg.dataset.api.preprocessor.MultiNormalizerMinMaxScaler
    """

    code = "MULTI_MIN_MAX"
    several = True


@NORMALIZERS.add("multi_hybrid", java="MultiNormalizerHybrid")
class MultiHybrid(Fitted):
    """A scale of its own for each of several inputs and outputs.

    Args:
        inputs, outputs: the scale of those without one of their own: a ``Standard()``,
            a ``Range(low, high)``, or ``None`` to leave them as they are.
        per_input, per_output: number → scale.

    Example:
        >>> import torch
        >>> normalizer = MultiHybrid(Standard(), per_input={1: Range(0, 1)})
        >>> a, b = torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [6.0]])
        >>> [x.flatten().tolist() for x in normalizer.fit(((a, b), None))((a, b))]
        [[-1.0, 1.0], [0.0, 1.0]]

    DL4J: org.nd4j.linalg.dataset.api.preprocessor.MultiNormalizerHybrid
    """

    code = "MULTI_HYBRID"
    several = True

    def __init__(
        self,
        inputs: Scale | None = None,
        outputs: Scale | None = None,
        per_input: Mapping[int, Scale] | None = None,
        per_output: Mapping[int, Scale] | None = None,
    ) -> None:
        super().__init__(outputs is not None or bool(per_output))
        self.rules: dict[str, tuple[Scale | None, dict[int, Scale]]] = {
            "inputs": (inputs, dict(per_input or {})),
            "outputs": (outputs, dict(per_output or {})),
        }
        for name, (rule, own) in self.rules.items():
            for scale in (rule, *own.values()):
                if scale is not None and not isinstance(scale, Scale):
                    raise TypeError(
                        f"MultiHybrid({name}=...): expected Standard(), Range(...) or "
                        f"None, got {scale!r}"
                    )

    def scale(self, side: str, index: int) -> Scale | None:
        rule, own = self.rules[side]
        return copy.deepcopy(own.get(index, rule))


@NORMALIZERS.add("image_scaler", java="ImagePreProcessingScaler")
class ImageScaler(Normalizer):
    """x / (2^bits - 1) · (high - low) + low: pixels into a range; nothing is fitted.

    Args:
        low, high: the range of the result, low < high.
        bits: of a pixel.
        fit_labels: whether labels are pixels too, as in segmentation.

    Example:
        >>> import torch
        >>> ImageScaler()(torch.tensor([[[[0.0, 51.0, 255.0]]]])).flatten()
        tensor([0.0000, 0.2000, 1.0000])

    DL4J: org.nd4j.linalg.dataset.api.preprocessor.ImagePreProcessingScaler
    """

    code = "IMAGE_MIN_MAX"

    def __init__(
        self,
        low: float = 0.0,
        high: float = 1.0,
        bits: int = 8,
        fit_labels: bool = False,
    ) -> None:
        super().__init__()
        if not low < high:
            raise ValueError(
                f"ImageScaler(low, high): expected low < high, got {low}, {high}"
            )
        if not isinstance(bits, int) or not 1 <= bits <= 53:
            raise ValueError(
                "ImageScaler(bits=...): expected a whole number in [1, 53], got "
                f"{bits!r}"
            )
        self.low, self.high = float(low), float(high)
        self.largest = float(2**bits - 1)
        self.fit_labels = fit_labels

    def transform(self, x: Arrays, mask: Arrays = None) -> Arrays:
        width, low = self.high - self.low, self.low
        return _mapped(lambda t: t / self.largest * width + low, x)

    def revert(self, x: Arrays, mask: Arrays = None) -> Arrays:
        width, low = self.high - self.low, self.low
        return _mapped(lambda t: (t - low) / width * self.largest, x)

    def transform_labels(self, y: Arrays, mask: Arrays = None) -> Arrays:
        return self.transform(y) if self.fit_labels else y

    def revert_labels(self, y: Arrays, mask: Arrays = None) -> Arrays:
        return self.revert(y) if self.fit_labels else y

    def describe(self) -> str:
        return (
            f"ImageScaler: pixels up to {self.largest:g} into "
            f"[{self.low:g}, {self.high:g}]"
        )


@NORMALIZERS.add("vgg16", java="VGG16ImagePreProcessor")
class VGG16(Normalizer):
    """The means that VGG16 was trained with, subtracted from the three channels.

    DL4J cannot write it into a file.

    Example:
        >>> import torch
        >>> VGG16()(torch.zeros(1, 3, 1, 1)).flatten()
        tensor([-103.9390, -116.7790, -123.6800])

    DL4J: org.nd4j.linalg.dataset.api.preprocessor.VGG16ImagePreProcessor
    """

    means = (103.939, 116.779, 123.68)
    fit_labels = False

    def _means(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != 3:
            raise ValueError(
                f"VGG16: expected images [n, 3, height, width], got {list(x.shape)}"
            )
        return x.new_tensor(self.means).reshape(1, 3, 1, 1)

    def transform(self, x: Arrays, mask: Arrays = None) -> Arrays:
        return _mapped(lambda t: t - self._means(t), x)

    def revert(self, x: Arrays, mask: Arrays = None) -> Arrays:
        return _mapped(lambda t: t + self._means(t), x)


def _mapped(f: Any, x: Arrays) -> Arrays:
    return tuple(f(t) for t in x) if isinstance(x, (tuple, list)) else f(x)


def _batches(data: Any, several: bool) -> Iterable[Any]:
    """The batches of what ``fit`` was given."""
    if isinstance(data, (Tensor, tuple)):
        return [data]
    if isinstance(data, Iterable):
        return data
    raise TypeError(
        "fit(data): expected a tensor, a tuple (features, labels) or an iterable of "
        f"such batches, got {type(data).__name__}"
    )


def _parts(batch: Any, several: bool) -> tuple[Any, Any, Any, Any]:
    """Features, labels and their masks."""
    if isinstance(batch, Tensor):
        return batch, None, None, None
    if not isinstance(batch, (tuple, list)) or not 1 <= len(batch) <= 4:
        raise TypeError(
            "fit(data): expected batches (features, labels, features mask, labels "
            f"mask), got {type(batch).__name__}"
        )
    x, y, x_mask, y_mask = [*batch, None, None, None][:4]
    return x, y, x_mask, y_mask


__all__ = [
    "VGG16",
    "ImageScaler",
    "MinMaxScaler",
    "MultiHybrid",
    "MultiMinMaxScaler",
    "MultiStandardize",
    "Normalizer",
    "Standardize",
]
