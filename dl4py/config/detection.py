"""Detection of objects in images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import is_real
from dl4py.config.feedforward import HasLoss
from dl4py.config.inputs import Convolutional, InputType, Shape
from dl4py.config.kinds import Item, Real, field
from dl4py.config.layer import ConfigurationError, Layer
from dl4py.config.sliding import NCHW
from dl4py.registry import LAYERS, LOSSES

_OTHERS = 5  # x, y, width, height and confidence of a box, before its classes


def boxes(value: Any) -> tuple[tuple[float, float], ...]:
    """(width, height) pairs of positive numbers; a single pair stands for one box."""
    pairs = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(pairs, Sequence) and len(pairs) == 2 and all(map(is_real, pairs)):
        pairs = (pairs,)
    if not isinstance(pairs, Sequence) or not pairs or not all(map(_is_pair, pairs)):
        raise ValueError(
            "must be (width, height) pairs in units of grid cells, both > 0, one for "
            f"each box, got {value!r}"
        )
    return tuple((float(w), float(h)) for w, h in pairs)


def _is_pair(value: Any) -> bool:
    if not isinstance(value, Sequence) or len(value) != 2:
        return False
    return all(is_real(size) and size > 0 for size in value)


@LAYERS.add("yolo2_output", "yolo2", java="objdetect.Yolo2OutputLayer")
@dataclass(frozen=True, kw_only=True)
class Yolo2Output(Layer, HasLoss):
    """Objects in the cells of a grid, some boxes a cell: the output layer of YOLOv2.

    Of each box (x, y) = σ(·) is its centre in the cell, (w, h) = prior·exp(·) its size
    in cells, then come the confidence σ(·) and softmax(·) over classes.

    Labels are ``[n, 4 + classes, h, w]``: left, top, right and bottom of the object
    whose centre is in the cell, in cells, and one class that is 1; all 0 where there is
    none. In a cell with an object the box that overlaps it most answers for it: score =
    λ_coord·(loss(xy) + loss(√wh)) + (confidence - IOU)² + loss(classes); all the others
    add λ_noobj·confidence².

    Args:
        bounding_boxes: the priors, (width, height) in cells, > 0 each.
        lambda_coord: λ_coord >= 0.
        lambda_no_obj: λ_noobj >= 0.
        loss_position_scale: the loss of centres and sizes; DL4J's default is L2.
        loss_class_predictions: that of the classes; DL4J's default is L2.
        format: ``"NCHW"``, or ``"NHWC"`` for channels last, labels too.

    Reference: Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2016.
    DL4J: org.deeplearning4j.nn.conf.layers.objdetect.Yolo2OutputLayer
    """

    lambda_coord: float = field(5.0, Real(0.0))
    lambda_no_obj: float = field(0.5, Real(0.0))
    loss_position_scale: Any = field("l2", Item(LOSSES))
    loss_class_predictions: Any = field("l2", Item(LOSSES))
    bounding_boxes: tuple[tuple[float, float], ...] | None = field(None, boxes)
    format: str = field("NCHW", NCHW)
    gradient_normalization_threshold: Any = field(
        None, Real(0.0), inherit=True, training=True
    )

    leading: ClassVar[tuple[str, ...]] = ("bounding_boxes",)
    family: ClassVar[str] = "cnn"

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(bounding_boxes=((1.0, 1.0), (2.0, 1.5))), Convolutional(3, 4, 14)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        last = self.format == "NHWC"
        area, channels = ("height", "width"), ("boxes·(5 + classes)",)
        return (("n", *(area + channels if last else channels + area)),)

    def classes(self, channels: int) -> int:
        """How many classes there are in ``channels``."""
        count = len(self.bounding_boxes or ())
        if not count or channels % count or channels // count < _OTHERS + 1:
            raise ConfigurationError(
                f"bounding_boxes: expected boxes·(5 + classes) channels, at least "
                f"{count} · {_OTHERS + 1} and a multiple of {count}, got {channels}"
            )
        return channels // count - _OTHERS

    def with_input(self, given: InputType) -> Any:
        if isinstance(given, Convolutional):
            self.classes(given.channels)
            if given.format != self.format:
                raise ConfigurationError(
                    f"format: the layer before gives {given.format}, got {self.format}"
                )
        return self

    def check(self) -> None:
        if self.bounding_boxes is None:
            raise ValueError(
                "bounding_boxes: expected (width, height) pairs, got nothing"
            )

    def json_extra(self) -> dict[str, Any]:
        """DL4J's array of the priors."""
        pairs = self.bounding_boxes or ()
        flat = [size for pair in pairs for size in pair]
        array = {"dataType": "DOUBLE", "shape": [len(pairs), 2], "data": flat}
        return {"boundingBoxes": array}
