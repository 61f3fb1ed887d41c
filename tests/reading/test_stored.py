"""Files that hold whole arrays, and folders of images."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dl4py import data
from dl4py.config import DL4JFormatError
from dl4py.io import DataSet, read_dataset, write_dataset
from tests.golden import SHARED

MNIST = SHARED / "dl4j-test-resources" / "datasets" / "mnist" / "mnist-train-0.bin"
JAVA = Path(__file__).parent.parent / "data" / "datasets"
X = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
Y = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
MASK = np.array([[1, 1, 0], [1, 1, 1]], np.float32)


class TestDL4J:
    @pytest.mark.skipif(not MNIST.exists(), reason="DL4J's files are not at hand")
    def test_a_file_that_dl4j_wrote(self):
        found = data.read(MNIST)
        x, y = found.batch(torch.arange(64))
        assert x.shape == (64, 784) and 0 <= x.min() < x.max() == 1
        assert torch.equal(y.sum(1), torch.ones(64)) and y.shape == (64, 10)

    @pytest.mark.parametrize("path", sorted(JAVA.iterdir()), ids=lambda p: p.stem)
    def test_equals_dl4j_to_the_byte(self, path):
        """Written by DL4J 1.0.0-M2.1, with masks and without, single and several."""
        found, out = read_dataset(path), io.BytesIO()
        write_dataset(found, out)
        theirs = path.read_bytes()
        if path.stem == "same":  # labels that are the features: here they are twice
            assert np.array_equal(found.labels[0], found.features[0])
        elif path.stem == "named":  # Java's objects follow
            assert theirs[0] & 96 and theirs[1:].startswith(out.getvalue()[1:])
        else:
            assert out.getvalue() == theirs
        x = np.arange(1, 13, dtype=np.float32).reshape(2, 2, 3)
        if found.features[0].ndim == 3:
            np.testing.assert_allclose(found.features[0], x, rtol=1e-6)

    @pytest.mark.parametrize(
        "given, head",
        [
            (DataSet((X,), (Y,), (MASK,), (MASK,)), b"\x1b"),
            (DataSet((X,), (Y,), (None,), (MASK,)), b"\x13"),
            (DataSet((X[:, 0],)), b"\1"),
            (DataSet((X, Y), (Y,), (MASK, None), (None,)), bytes(3) + b"\2"),
            (DataSet((X,), (Y, X)), bytes(3) + b"\1"),
        ],
    )
    def test_round_trip_and_first_bytes(self, tmp_path, given, head):
        path = tmp_path / "a.bin"
        with open(path, "wb") as file:
            write_dataset(given, file)
        assert path.read_bytes().startswith(head)
        found = read_dataset(path)
        for name in ("features", "labels", "features_masks", "labels_masks"):
            for a, b in zip(getattr(found, name), getattr(given, name), strict=False):
                assert (a is None and b is None) or np.array_equal(a, b)
        examples = data.read(path)
        assert len(examples) == 2 and examples.batch(torch.tensor([1]))
        for cut in (1, 17, 60, len(path.read_bytes()) - 1):
            (tmp_path / "b.bin").write_bytes(path.read_bytes()[:cut])
            with pytest.raises(DL4JFormatError, match="b.bin"):
                read_dataset(tmp_path / "b.bin")
        (tmp_path / "b.bin").write_bytes(path.read_bytes() + b"\0")
        if len(head) == 1:
            with pytest.raises(DL4JFormatError, match="bytes follow"):
                read_dataset(tmp_path / "b.bin")

    @pytest.mark.parametrize("start", [b"", b"\0", b"PK\3\4", b"\6", bytes(16)])
    def test_what_is_none(self, tmp_path, start):
        (tmp_path / "a.bin").write_bytes(start)
        with pytest.raises(DL4JFormatError, match="a.bin"):
            read_dataset(tmp_path / "a.bin")

    def test_java_objects_behind_the_arrays_are_never_read(self, tmp_path):
        out = io.BytesIO()
        write_dataset(DataSet((X,), (Y,)), out)
        path = tmp_path / "a.bin"
        path.write_bytes(bytes([out.getvalue()[0] | 32]) + out.getvalue()[1:] + b"\xac")
        assert np.array_equal(read_dataset(path).features[0], X)


class TestNpz:
    def write(self, path, **arrays):
        np.savez(path / "a.npz", **arrays)
        return path / "a.npz"

    def test_arrays_and_masks(self, tmp_path):
        path = self.write(tmp_path, x=X, y=Y, features_mask=MASK)
        x, y, x_mask, y_mask = data.read(path).batch(torch.tensor([1, 0]))
        assert np.array_equal(x, X[::-1]) and np.array_equal(x_mask, MASK[::-1])
        assert np.array_equal(y, Y[::-1]) and y_mask is None

    def test_class_numbers_and_names(self, tmp_path):
        path = self.write(tmp_path, a=X, b=np.array([1, 0]), c=np.array(["u", "v"]))
        read = lambda **words: data.read(path, features="a", **words)  # noqa: E731
        assert read(labels="b", classes=2).outputs[0].tolist() == [[0, 1], [1, 0]]
        assert read(labels="b").outputs[0].tolist() == [[1], [0]]
        both = read(labels="c", classes=["v", "u"])
        assert both.outputs[0].tolist() == [[0, 1], [1, 0]]
        with pytest.raises(ValueError, match="row 1, .* one of the classes u, w"):
            read(labels="c", classes=["u", "w"])
        with pytest.raises(ValueError, match="labels: expected the name of one array"):
            read(labels=["b", "c"])
        assert torch.equal(read(labels=["b"]).outputs[0], read(labels="b").outputs[0])
        with pytest.raises(ValueError, match="row 0, column 'labels': expected a cl"):
            np.savez(path, a=X, b=np.array([2, 0]))
            read(labels="b", classes=2)

    @pytest.mark.parametrize(
        "arrays, says",
        [
            ({"z": X}, "expected an array 'features' or 'x', there are z"),
            ({"x": X, "y": Y[:1]}, "labels: expected 2 examples .* got 1"),
            ({"x": X.astype(complex)}, "features: expected an array of real numbers"),
            ({"x": np.array([{}])}, "not an .npz of numbers"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path, arrays, says):
        with pytest.raises(ValueError, match=f"a.npz: .*{says}"):
            data.read(self.write(tmp_path, **arrays))
        for content in (b"PK\3\4", b"", b"abc"):
            (tmp_path / "a.npz").write_bytes(content)
            with pytest.raises(ValueError, match="a.npz: not an .npz file, as NumPy"):
                data.read(tmp_path / "a.npz")


class TestImages:
    @pytest.fixture
    def folder(self, tmp_path):
        for i, (kind, colour) in enumerate(
            [("dog", (255, 0, 0)), ("cat", (0, 255, 0)), ("dog", (10, 20, 30))]
        ):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.new("RGB", (6, 4), colour).save(tmp_path / kind / f"{i}.png")
        return tmp_path

    def test_labels_are_folders_and_channels_are_dl4js(self, folder):
        found = data.read(folder)
        assert found.classes == ("cat", "dog") and len(found) == 3
        x, y = found.batch(torch.arange(3))
        assert x.shape == (3, 3, 4, 6) and x.dtype == torch.float32
        assert x[:, :, 0, 0].tolist() == [[0, 255, 0], [0, 0, 255], [30, 20, 10]]
        assert y.argmax(1).tolist() == [0, 1, 1]
        assert [len(part) for part in found.split(0.5)] == [2, 1]

    def test_sizes_and_grey(self, folder):
        found = data.read(folder, height=2, width=9, channels=1, dtype="float64")
        x, _ = found.batch(torch.tensor([2]))
        assert x.shape == (1, 1, 2, 9) and x.dtype == torch.float64
        grey = round(0.299 * 10 + 0.587 * 20 + 0.114 * 30)
        assert torch.equal(x, torch.full_like(x, grey))

    def test_edges_move_as_without_smoothing(self, tmp_path):
        pixels = np.arange(8, dtype=np.uint8)[None].repeat(2, 0) * 10
        Image.fromarray(pixels).save(tmp_path / "a.png")
        x, y = data.read(tmp_path, height=2, width=4, channels=1).batch(torch.arange(1))
        assert x[0, 0, 0].tolist() == [5, 25, 45, 65] and y is None

    def test_a_turned_picture_is_set_upright(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 6  # to be turned by a quarter, clockwise
        pixels = np.array([[10, 20, 30]], np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
        x, _ = data.read(tmp_path, channels=1).batch(torch.arange(1))
        assert x[0, 0].tolist() == [[10], [20], [30]]

    def test_what_does_not_fit(self, folder):
        with pytest.raises(ValueError, match="expected a folder of one of the classes"):
            data.read(folder, classes=["cat", "emu"])
        (folder / "dog" / "1.png").write_bytes(b"no")
        with pytest.raises(ValueError, match="1.png: not an image"):
            data.read(folder, height=2, width=2).batch(torch.arange(3))
        (folder / "a.png").touch()
        with pytest.raises(ValueError, match="a.png lies beside folders"):
            data.read(folder)
