"""Sequences as DL4J's iterators lay them out."""

import pytest
import torch

from dl4py import data


def folder(path, lengths, columns=2, first=0):
    """A CSV for each length; the numbers count on."""
    path.mkdir()
    for i, length in enumerate(lengths):
        rows = [
            ",".join(str(first + 100 * i + 10 * t + c) for c in range(columns))
            for t in range(length)
        ]
        (path / f"{i}.csv").write_text("\n".join(rows))
    return path


def test_one_file_each(tmp_path):
    found = data.read(folder(tmp_path / "x", [3, 3]), per_file=True, labels=1)
    x, y = found.batch(torch.tensor([0, 1]))  # of equal length: no masks, as in DL4J
    assert x.tolist() == [[[0, 10, 20]], [[100, 110, 120]]]
    assert y.tolist() == [[[1, 11, 21]], [[101, 111, 121]]]


def test_padded_to_the_longest_of_the_batch(tmp_path):
    found = data.read(folder(tmp_path / "x", [1, 4, 2]), per_file=True, labels=1)
    x, y, x_mask, y_mask = found.batch(torch.tensor([0, 2]))
    assert x.tolist() == [[[0, 0]], [[200, 210]]]
    assert torch.equal(x_mask, torch.tensor([[1.0, 0], [1, 1]]))
    assert torch.equal(x_mask, y_mask) and y.shape == (2, 1, 2)
    x, y = found.batch(torch.tensor([1]))
    assert x.shape == (1, 1, 4)


@pytest.mark.parametrize(
    "align, x_mask, y_mask",
    [
        ("start", [[1, 1, 1], [1, 1, 0]], [[1, 0, 0], [1, 1, 1]]),
        ("end", [[1, 1, 1], [0, 1, 1]], [[0, 0, 1], [1, 1, 1]]),
    ],
)
def test_labels_of_their_own_length(tmp_path, align, x_mask, y_mask):
    """The longer of the two begins at step 0; with ``end`` the other ends with it."""
    source = folder(tmp_path / "x", [3, 2])
    labels = folder(tmp_path / "y", [1, 3], columns=1, first=7)
    found = data.read(source, per_file=True, labels_from=str(labels), align=align)
    x, y, *masks = found.batch(torch.tensor([0, 1]))
    full = torch.ones(2, 3)
    for mask, expected in zip(masks, (x_mask, y_mask), strict=True):
        assert torch.equal(
            full if mask is None else mask, torch.tensor(expected).float()
        )
    assert x[:, 0][torch.tensor(x_mask).bool()].tolist() == [0, 10, 20, 100, 110]
    assert y[:, 0][torch.tensor(y_mask).bool()].tolist() == [7, 107, 117, 127]
    assert x[:, 0][~torch.tensor(x_mask).bool()].tolist() == [0]


def test_equal_refuses_another_length(tmp_path):
    source = folder(tmp_path / "x", [3, 2])
    with pytest.raises(ValueError, match="1.csv: expected 3 steps .* got 2; .*align"):
        data.read(source, per_file=True, align="equal")


def test_a_column_tells_sequences_apart(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,v,kind\nb,1,no\na,5,no\nb,2,yes\na,6,no\nb,3,yes\n")
    found = data.read(path, sequence="id", labels="kind")
    x, y, x_mask, y_mask = found.batch(torch.tensor([0, 1]))
    assert x.tolist() == [[[1, 2, 3]], [[5, 6, 0]]]
    assert y.argmax(1)[0].tolist() == [0, 1, 1] and y[1, :, 2].tolist() == [0, 0]
    assert x_mask.tolist() == y_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert found.classes == ("no", "yes") and found.features == ("v",)


def test_files_that_do_not_fit(tmp_path):
    source = folder(tmp_path / "x", [3, 2])
    with pytest.raises(ValueError, match="expected 2 files of labels, .* got 1"):
        labels = folder(tmp_path / "y", [1])
        data.read(source, per_file=True, labels_from=str(labels))
    (source / "1.csv").write_text("1,2,3")
    with pytest.raises(ValueError, match="1.csv: expected 2 features as in"):
        data.read(source, per_file=True)
    (source / "1.csv").write_text("1,x")
    says = "1.csv: row 1, column '1': expected a number, got 'x'"
    with pytest.raises(ValueError, match=says):
        data.read(source, per_file=True)
