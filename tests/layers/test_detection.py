"""Objects in the cells of a grid: scores, boxes, and what is refused."""

import json

import numpy as np
import pytest
import torch

from dl4py import config, layers
from dl4py.config import DL4JFormatError, InputType, NeuralNetConfiguration
from dl4py.layers.detection import DetectedObject, non_max_suppression
from tests.models.test_java import assert_gradient, go_on_in_java

PRIORS = ((1.0, 1.0), (2.0, 1.5))
G = torch.Generator().manual_seed(0)
X = torch.randn(3, 14, 3, 4, generator=G, dtype=torch.float64)


def labelled(n=3, classes=2):
    """An object in every image but the last, its centre in its cell."""
    labels = torch.zeros(n, 4 + classes, 3, 4, dtype=torch.float64)
    for i in range(n - 1):
        row, column = i % 3, (i + 2) % 4
        x, y = column + 0.3, row + 0.6
        box = [x - 0.3, y - 0.5, x + 0.3, y + 0.3]
        labels[i, :4, row, column] = torch.tensor(box).double()
        labels[i, 4 + i % classes, row, column] = 1
    return labels


def layer(**options):
    return layers.Yolo2Output(PRIORS, **options).double()


def by_hand(x, labels, coord, no_obj):
    """The score in loops, from the words of the paper."""
    y = layer()(x).numpy().reshape(len(x), 2, 7, 3, 4)
    total = 0.0
    for n, row, column in np.ndindex(len(x), 3, 4):
        *box, left, right = labels[n, :, row, column].tolist()
        own = y[n, :, :, row, column]
        ious = []
        for px, py, w, h, *_ in own:
            cx, cy = px + column, py + row
            wide = min(cx + w / 2, box[2]) - max(cx - w / 2, box[0])
            high = min(cy + h / 2, box[3]) - max(cy - h / 2, box[1])
            shared = max(wide, 0) * max(high, 0)
            area = (box[2] - box[0]) * (box[3] - box[1])
            ious.append(shared / (w * h + area - shared))
        best = int(np.argmax(ious))
        for k, (px, py, w, h, sure, *classes) in enumerate(own):
            if not left + right or k != best:
                total += no_obj * sure**2
                continue
            tx, ty = (box[0] + box[2]) / 2 - column, (box[1] + box[3]) / 2 - row
            total += coord * ((px - tx) ** 2 + (py - ty) ** 2)
            total += coord * (np.sqrt(w) - np.sqrt(box[2] - box[0])) ** 2
            total += coord * (np.sqrt(h) - np.sqrt(box[3] - box[1])) ** 2
            total += (sure - ious[k]) ** 2
            total += (classes[0] - left) ** 2 + (classes[1] - right) ** 2
    return total


def test_score():
    labels = labelled()
    expected = by_hand(X, labels, 3.0, 0.25)
    score = layer(lambda_coord=3.0, lambda_no_obj=0.25)(X, labels=labels)
    assert score.item() == pytest.approx(expected, rel=1e-12)
    x = X.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: layer()(t, labels=labels), x)


def test_channels_last():
    last = layer(format="NHWC")
    x, labels = X.movedim(1, -1), labelled().movedim(1, -1)
    torch.testing.assert_close(last(x).movedim(-1, 1), layer()(X))
    assert last(x, labels=labels) == layer()(X, labels=labelled())
    found, same = (m.predicted_objects(m(t), 0.4) for m, t in ((layer(), X), (last, x)))
    assert [f.top_left for f in found] == [s.top_left for s in same] and found


def test_masked_images_and_cells():
    labels, mask = labelled(), torch.tensor([1.0, 0, 1]).double()
    kept = mask.bool()
    x = X.clone()
    x[1] = 1e5
    score = layer()(x, labels=labels, labels_mask=mask)
    expected = layer()(X[kept], labels=labels[kept])
    torch.testing.assert_close(score, expected)
    pixels = torch.ones(3, 1, 3, 4).double()
    pixels[1] = 0
    assert layer()(x, labels=labels, labels_mask=pixels) == score
    exact = layer(dl4j_exact=True)
    assert exact(X, labels=labels, labels_mask=mask) == exact(X, labels=labels)


@pytest.mark.parametrize("loss", ["mcxent", "l1"])
def test_java(oracle, loss, tmp_path):
    chain = NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain.updater("adam", lr=0.01).input_type(InputType.convolutional(3, 4, 2)).l2(0.1)
    chain.layer(config.Convolution2D(n_out=14, kernel_size=1, activation="identity"))
    position = "l2" if loss == "mcxent" else "l1"
    chain.layer(
        config.Yolo2Output(
            bounding_boxes=PRIORS,
            loss_class_predictions=loss,
            loss_position_scale=position,
            lambda_coord=2.0,
        )
    )
    net = chain.build().module(dl4j_exact=True)
    x = torch.randn(3, 2, 3, 4, generator=G, dtype=torch.float64)
    assert_gradient(oracle, net, x, labelled(), tmp_path)
    go_on_in_java(oracle, net, x, labelled(), tmp_path, dtype="DOUBLE")


def box(x, confidence, kind=0, example=0):
    """A square of side 2 whose left side is at ``x``."""
    classes = torch.eye(2)[kind]
    return DetectedObject(example, x + 1, 1.0, 2.0, 2.0, classes, confidence)


def test_non_max_suppression():
    a, b, c = box(0.0, 0.9), box(0.8, 0.8), box(1.6, 0.7)  # b overlaps both
    assert a.iou(b) > 0.4 > a.iou(c)
    assert non_max_suppression([c, b, a], 0.4) == [c, a]
    assert non_max_suppression([a, b, c], 0.4, dl4j_exact=True) == [a, c]
    assert non_max_suppression([c, b, a], 0.4, dl4j_exact=True) == [a]
    others = [box(0.0, 0.8, kind=1), box(0.0, 0.8, example=1)]
    assert non_max_suppression([a, *others], 0.4) == [a, *others]
    assert non_max_suppression([a, a], 0.4) == [a]  # equally sure: one stays
    assert non_max_suppression([a, b], 0) == [a, b]


def test_predicted_objects():
    x = torch.full((1, 14, 3, 4), -20.0, dtype=torch.float64)
    x[0, 7:14, 2, 1] = torch.tensor([0.0, 0, 0, 0, 3, 1, 5]).double()  # second box
    x[0, 0:7, 2, 1] = torch.tensor([0.0, 0, np.log(2.0), 0.4, 2, 1, 5]).double()
    net = layer()
    (found,) = net.predicted_objects(net(x))
    assert (found.center_x, found.center_y) == (1.5, 2.5)
    assert (found.width, found.height) == pytest.approx((2.0, 1.5))
    assert found.predicted_class == 1
    assert found.confidence == pytest.approx(1 / (1 + np.exp(-3)))
    assert len(net.predicted_objects(net(x), nms_threshold=0)) == 2
    assert not net.predicted_objects(net(x), threshold=0.99)


@pytest.mark.parametrize(
    "boxes", [((1.0, -1.0),), (), "1 2", ((1.0, 2.0, 3.0),), ((0.0, 1.0),), 3]
)
def test_bad_priors(boxes):
    with pytest.raises(ValueError, match="bounding_boxes: must be .width, height"):
        layers.Yolo2Output(boxes)


def wrong(row, column, *box):
    labels = labelled()
    labels[0, :4, row, column] = torch.tensor(box).double()
    labels[0, 4, row, column] = 1
    return labels


@pytest.mark.parametrize(
    "labels, message",
    [
        (labelled()[:2], r"labels must be \[n, 4 \+ classes, h, w\] = \[3, 6, 3, 4\]"),
        (labelled(classes=3), r"got \[3, 7, 3, 4\]"),
        (labelled().flatten(1), r"got \[3, 72\]"),
        (wrong(2, 3, 3.0, 2.2, 4.5, 2.9), "in a grid 3 high, 4 wide"),
        (wrong(0, 0, 0.8, 0.1, 0.2, 0.5), "left <= right and top <= bottom"),
        (wrong(0, 0, 1.1, 0.1, 1.8, 0.5), "stands in.*in row 0, column 0; they are in"),
        (wrong(0, 0, torch.nan, 0.1, 0.8, 0.5), "left <= right"),
        (2 * labelled(), "classes >= 0 that sum to 1 where an object is"),
        (labelled().where(labelled() == 0, torch.nan), "classes >= 0 .* got .*nan"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        layer()(X, labels=labels)


def test_bad_input():
    with pytest.raises(ValueError, match="bounding_boxes: expected boxes.*got 15"):
        layer()(torch.zeros(1, 15, 3, 4))
    with pytest.raises(ValueError, match="bounding_boxes: expected .* got nothing"):
        layers.Yolo2Output()
    with pytest.raises(ValueError, match=r"labels_mask must be \[3\], \[3, 1\] or"):
        layer()(X, labels=labelled(), labels_mask=torch.ones(3, 4))
    for name in ("threshold", "nms_threshold"):
        for value in (1.5, "0.5", None):
            with pytest.raises(ValueError, match=rf"^{name}: expected a number in \[0"):
                layer().predicted_objects(layer()(X), **{name: value})
    with pytest.raises(ValueError, match=r"x: .*floating point, got torch.int64"):
        layer()(X.long())
    with pytest.raises(TypeError, match=r"labels must be a tensor, got list"):
        layer()(X, labels=[0])
    with pytest.raises(TypeError, match=r"output: expected .*, got ndarray"):
        layer().predicted_objects(layer()(X).numpy())
    with pytest.raises(TypeError, match=r"boxes of type DetectedObject, got int"):
        non_max_suppression([3], 0.5)
    chain = NeuralNetConfiguration.builder()
    chain.input_type(InputType.convolutional(3, 4, 14, "NHWC"))
    with pytest.raises(ValueError, match="format: the layer before gives NHWC"):
        chain.layer(config.Yolo2Output(bounding_boxes=PRIORS)).build()


def test_json_of_the_priors():
    chain = NeuralNetConfiguration.builder().input_type(
        InputType.convolutional(3, 4, 7)
    )
    conf = chain.layer(config.Yolo2Output(bounding_boxes=(1.0, 2.0))).build()
    text = conf.to_json()
    assert NeuralNetConfiguration.from_json(text) == conf
    for shape in ([3, 2], [2, 1, 1], 2, ["2", 1]):
        broken = json.loads(text)
        broken["confs"][0]["layer"]["boundingBoxes"]["shape"] = shape
        with pytest.raises(DL4JFormatError, match="boundingBoxes"):
            NeuralNetConfiguration.from_json(json.dumps(broken))
