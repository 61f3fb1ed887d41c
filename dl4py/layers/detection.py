"""Detection of objects in images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dl4py import config, losses
from dl4py.config.codec import is_real
from dl4py.layers.base import Layer
from dl4py.layers.output import Scored
from dl4py.layers.part import implements


@dataclass(frozen=True)
class DetectedObject:
    """One object that was found; sizes and places are in cells of the grid.

    Args:
        example: which image of the batch it is in.
        center_x, center_y: its centre, from the left and from the top.
        width, height: its size.
        class_predictions: the probability of each class, ``[classes]``.
        confidence: of there being an object at all, in [0, 1].

    Example:
        >>> found = DetectedObject(0, 2.0, 1.5, 2.0, 1.0, torch.tensor([0.1, 0.9]), 0.8)
        >>> found.top_left, found.bottom_right, found.predicted_class
        ((1.0, 1.0), (3.0, 2.0), 1)

    DL4J: org.deeplearning4j.nn.layers.objdetect.DetectedObject
    """

    example: int
    center_x: float
    center_y: float
    width: float
    height: float
    class_predictions: Tensor
    confidence: float

    @property
    def top_left(self) -> tuple[float, float]:
        """(x, y) of its top left corner."""
        return self.center_x - self.width / 2, self.center_y - self.height / 2

    @property
    def bottom_right(self) -> tuple[float, float]:
        """(x, y) of its bottom right corner."""
        return self.center_x + self.width / 2, self.center_y + self.height / 2

    @property
    def predicted_class(self) -> int:
        """The class that is most probable."""
        return int(self.class_predictions.argmax())

    def iou(self, other: DetectedObject) -> float:
        """Intersection over union with another box, in [0, 1].

        >>> p = torch.ones(1)
        >>> a, b = (DetectedObject(0, x, 1.0, 2.0, 2.0, p, 1.0) for x in (1.0, 2.0))
        >>> round(a.iou(b), 4)
        0.3333
        """
        return float(_overlaps((self, other))[0, 1])


def _share(name: str, value: float) -> None:
    """Refuse what is no number in [0, 1]."""
    if not is_real(value) or not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number in [0, 1], got {value!r}")


def non_max_suppression(
    found: Sequence[DetectedObject], threshold: float, dl4j_exact: bool = False
) -> list[DetectedObject]:
    """``found`` without boxes that overlap a more confident one of their class.

    The most confident box stays, those that overlap it go, and so on with what is left;
    the order stays. In exact mode boxes go in their order, each if any box that is
    still there is more confident, even one that goes itself.

    Args:
        found: boxes, of any examples.
        threshold: of intersection over union, in [0, 1]; 0 lets all stay.
        dl4j_exact: whether DL4J's faults are reproduced too.

    DL4J: org.deeplearning4j.nn.layers.objdetect.YoloUtils.nms
    """
    _share("threshold", threshold)
    if not threshold:
        return list(found)
    overlap = _overlaps(found) > threshold
    kind = torch.tensor([box.predicted_class for box in found])
    sure = torch.tensor([box.confidence for box in found], dtype=torch.float64)
    rivals = overlap & (kind[:, None] == kind)
    left = torch.ones(len(found), dtype=torch.bool)
    if dl4j_exact:  # which does not look at the example either
        rivals &= sure[:, None] < sure
        for i, mine in enumerate(rivals):
            left[i] = not (mine & left).any()
    else:
        example = torch.tensor([box.example for box in found])
        rivals &= example[:, None] == example
        for i in sure.argsort(descending=True, stable=True).tolist():
            if left[i]:
                left &= ~rivals[i]
                left[i] = True
    return [box for box, stays in zip(found, left.tolist(), strict=True) if stays]


def _overlaps(found: Sequence[DetectedObject]) -> Tensor:
    """Intersection over union of all pairs of boxes."""
    for box in found:
        if not isinstance(box, DetectedObject):
            raise TypeError(
                f"expected boxes of type DetectedObject, got {type(box).__name__}"
            )
    corners = [(*box.top_left, *box.bottom_right) for box in found]
    low, high = torch.tensor(corners, dtype=torch.float64).view(-1, 2, 2).unbind(1)
    sides = torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)
    shared = sides.clamp(min=0).prod(2)
    area = (high - low).prod(1)
    union = area[:, None] + area - shared
    return torch.where(shared > 0, shared / union, 0.0)  # boxes may be empty


@implements(config.Yolo2Output)
class Yolo2Output(Scored):
    """
    Shape:
        ``[n, boxes·(5 + classes), h, w]``, the same out; with labels
        ``[n, 4 + classes, h, w]`` → the score, a single number. A labels mask is
        ``[n]``, ``[n, 1]`` or ``[n, 1, h, w]``.

    Example:
        >>> layer = Yolo2Output([(1.0, 2.0)])
        >>> layer(torch.zeros(1, 7, 1, 1)).flatten()
        tensor([0.5000, 0.5000, 1.0000, 2.0000, 0.5000, 0.5000, 0.5000])
        >>> layer.predicted_objects(layer(torch.zeros(1, 7, 1, 1)))[0].top_left
        (0.0, -0.5)
    """

    neighbour = ("—", "a loss on a grid of boxes; torchvision has the later ones")

    always_divides = True
    additive = True

    def build(self) -> None:
        conf, exact = self.conf, self.dl4j_exact
        scale, classes = conf.loss_position_scale, conf.loss_class_predictions
        self.center_loss = losses.get(scale, activation="sigmoid", dl4j_exact=exact)
        self.size_loss = losses.get(scale, dl4j_exact=exact)
        self.class_loss = losses.get(classes, activation="softmax", dl4j_exact=exact)

    def split(self, x: Tensor) -> Tensor:
        """Channels first as ``[n, boxes, 5 + classes, h, w]``."""
        if x.dim() != 4 or not x.is_floating_point():
            raise ValueError(
                "Yolo2Output: expected [n, boxes·(5 + classes), h, w] of floats, got "
                f"{list(x.shape)}, {x.dtype}"
            )
        self.conf.classes(x.shape[1])
        count = len(self.conf.bounding_boxes)
        return x.reshape(x.shape[0], count, x.shape[1] // count, *x.shape[2:])

    def priors(self, x: Tensor) -> Tensor:
        """(width, height) of the priors, ``[boxes, 2, 1, 1]``, like ``x``."""
        return x.new_tensor(self.conf.bounding_boxes)[:, :, None, None]

    def finish(self, y: Tensor) -> Tensor:
        z = self.split(self.arrange(y))
        parts = (
            z[:, :, :2].sigmoid(),
            self.priors(z) * z[:, :, 2:4].exp(),
            z[:, :, 4:5].sigmoid(),
            z[:, :, 5:].softmax(2),
        )
        return self.as_given(torch.cat(parts, 2).flatten(1, 2))

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        return y  # DL4J: a box of 0 by 0 would mean nothing

    def score_sum(
        self, z: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        z = self.split(self.arrange(z))
        labels = self._labels(labels, z)
        corners, classes = labels[:, :4], labels[:, 4:]
        there = classes.sum(1, keepdim=True)  # [n, 1, h, w]: whether there is an object
        center = 0.5 * (corners[:, :2] + corners[:, 2:])
        size = corners[:, 2:] - corners[:, :2]
        overlap = self._overlap(z, corners, size)
        best = torch.zeros_like(overlap).scatter(1, overlap.argmax(1, keepdim=True), 1)
        chosen, others = best * there, 1 - best * there  # [n, boxes, h, w]
        if mask is not None and not self.dl4j_exact:
            shown = self._shown(mask, z)
            chosen, others = chosen * shown, others * shown
            z = z.masked_fill(shown.unsqueeze(1) == 0, 0)
            overlap = overlap.masked_fill(shown == 0, 0)
        conf, weight = self.conf, chosen.reshape(-1)

        def judge(loss: losses.Loss, output: Tensor, target: Tensor) -> Tensor:
            wanted = target.unsqueeze(1).expand(-1, z.shape[1], -1, -1, -1)
            return loss.score(_rows(output), _rows(wanted), weight, average=False)

        scaled = self.priors(z).sqrt() * (0.5 * z[:, :, 2:4]).exp()
        place = judge(self.center_loss, z[:, :, :2], center - center.floor())
        place = place + judge(self.size_loss, scaled, size.sqrt())
        sure = z[:, :, 4].sigmoid()
        total: Tensor = conf.lambda_coord * place
        total = total + (chosen * (sure - overlap).square()).sum()
        total = total + conf.lambda_no_obj * (others * sure.square()).sum()
        return total + judge(self.class_loss, z[:, :, 5:], classes)

    def _labels(self, labels: Tensor, z: Tensor) -> Tensor:
        """Labels, channels first, in the dtype of ``z``."""
        n, _, width, h, w = z.shape
        if not isinstance(labels, Tensor):
            raise TypeError(
                f"Yolo2Output: labels must be a tensor, got {type(labels).__name__}"
            )
        given = self.arrange(labels) if labels.dim() == 4 else labels
        if given.shape != (n, width - 1, h, w):
            raise ValueError(
                f"Yolo2Output: labels must be [n, 4 + classes, h, w] = "
                f"[{n}, {width - 1}, {h}, {w}], {self.conf.format}, got "
                f"{list(labels.shape)}"
            )
        given = given.to(z.dtype)
        if not torch.compiler.is_compiling() and not self.dl4j_exact:
            self._check_boxes(given)
        return given

    def _check_boxes(self, labels: Tensor) -> None:
        """Refuse boxes that are none, or whose centre is in another cell.

        Classes count as an object's where they sum to 1, as none where all are 0.
        """
        h, w = labels.shape[2:]
        classes = labels[:, 4:]
        total = classes.sum(1)
        there = total != 0
        odd = ~(classes >= 0).all(1) | ((total - 1).abs() > 1e-2) & there
        left, top, right, bottom = labels[:, :4].unbind(1)
        column = torch.arange(w, device=labels.device)
        row = torch.arange(h, device=labels.device)[:, None]
        right_way = (left <= right) & (top <= bottom)  # not so of NaN either
        wrong = ~(right_way & (left >= 0) & (top >= 0) & (right <= w) & (bottom <= h))
        moved = ((left + right) / 2).floor() != column
        moved = moved | (((top + bottom) / 2).floor() != row)
        if not bool((odd | (wrong | moved) & there).any()):
            return
        if bool(odd.any()):
            n, y, x = odd.nonzero()[0].tolist()
            got = [round(v, 4) for v in classes[n, :, y, x].tolist()]
            raise ValueError(
                "Yolo2Output: labels: expected classes >= 0 that sum to 1 where an "
                f"object is and are 0 elsewhere, got {got} of example {n} in row {y}, "
                f"column {x}"
            )
        for fault, told in (
            (wrong, f"left <= right and top <= bottom in a grid {h} high, {w} wide"),
            (moved, "the object's centre in the cell that its label stands in"),
        ):
            places = (fault & there).nonzero()
            if len(places):
                n, y, x = places[0].tolist()
                box = [round(v, 4) for v in labels[n, :4, y, x].tolist()]
                raise ValueError(
                    f"Yolo2Output: labels: expected {told}, got (left, top, right, "
                    f"bottom) = {box} of example {n} in row {y}, column {x}; they are "
                    "in units of grid cells"
                )

    def _shown(self, mask: Tensor, z: Tensor) -> Tensor:
        """The labels mask as ``[n, 1, h or 1, w or 1]``."""
        n, h, w = len(z), *z.shape[3:]
        shown = self.arrange(mask) if mask.dim() == 4 else mask
        if mask.dim() < 3 and mask.numel() == n:
            shown = mask.reshape(n, 1, 1, 1)
        if (
            shown.dim() != 4
            or shown.shape[:2] != (n, 1)
            or (shown.shape[2] not in (1, h) or shown.shape[3] not in (1, w))
        ):
            raise ValueError(
                f"Yolo2Output: labels_mask must be [{n}], [{n}, 1] or [{n}, 1, {h}, "
                f"{w}], got {list(mask.shape)}"
            )
        return shown.to(z.dtype)

    def _overlap(self, z: Tensor, corners: Tensor, size: Tensor) -> Tensor:
        """Intersection over union of each box with its cell's object."""
        h, w = z.shape[3:]
        column = torch.arange(w, dtype=z.dtype, device=z.device).expand(h, w)
        row = torch.arange(h, dtype=z.dtype, device=z.device)[:, None].expand(h, w)
        center = z[:, :, :2].sigmoid() + torch.stack((column, row))
        own = self.priors(z) * z[:, :, 2:4].exp()
        low = torch.maximum(center - own / 2, corners[:, None, :2])
        high = torch.minimum(center + own / 2, corners[:, None, 2:])
        shared = (high - low).clamp(min=0).prod(2)
        union = own.prod(2) + size.prod(1).unsqueeze(1) - shared
        return shared / union

    def predicted_objects(
        self, output: Tensor, threshold: float = 0.5, nms_threshold: float = 0.4
    ) -> list[DetectedObject]:
        """The boxes in the layer's activations.

        Args:
            output: what the layer, or a network that ends with it, gives.
            threshold: the least confidence, in [0, 1].
            nms_threshold: as in :func:`non_max_suppression`; 0 lets all boxes stay.

        DL4J: org.deeplearning4j.nn.layers.objdetect.YoloUtils.getPredictedObjects
        """
        _share("threshold", threshold)
        _share("nms_threshold", nms_threshold)
        if not isinstance(output, Tensor):
            raise TypeError(
                "output: expected the layer's activations, a tensor, got "
                f"{type(output).__name__}"
            )
        found = []
        y = self.split(self.arrange(output.detach()))
        y = y.permute(0, 4, 3, 1, 2)  # DL4J's order: example, column, row, box
        for n, column, row, box in (y[..., 4] >= threshold).nonzero().tolist():
            values = y[n, column, row, box]
            dx, dy, width, height, confidence = values[:5].tolist()
            center = column + dx, row + dy
            found.append(
                DetectedObject(n, *center, width, height, values[5:], confidence)
            )
        return non_max_suppression(found, nms_threshold, self.dl4j_exact)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        lines = (
            "DL4J's non-max suppression lets boxes that go themselves suppress others",
            "DL4J does not look at labels masks",
        )
        found = Layer.differs(self, dtype)
        return [*found, *(f"Yolo2Output: {line}" for line in lines)]


def _rows(t: Tensor) -> Tensor:
    """``[n, boxes, size, h, w]`` as rows ``[n·boxes·h·w, size]``."""
    return t.movedim(2, -1).flatten(0, 3)
