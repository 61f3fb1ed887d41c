"""ND4J's binary arrays: bytes in, numbers out, and back."""

import io
import struct

import numpy as np
import pytest

from dl4py.config import DL4JFormatError
from dl4py.io import read_ndarray, write_ndarray
from dl4py.io.arrays import TYPES


def text(value):
    return struct.pack(">H", len(value)) + value.encode()


def array(
    shape=(2, 3),
    strides=(3, 1),
    *,
    mode="MIXED_DATA_TYPES",
    order="c",
    rank=None,
    words=None,
    length=6,
    kind="FLOAT",
    values=range(6),
    tail=b"",
):
    """An array's bytes, written out by hand."""
    short = mode in ("DIRECT", "HEAP", "JAVACPP")
    size, word = (">i", "i") if short else (">q", "q")
    info = [len(shape) if rank is None else rank, *shape, *strides, 0, 1, ord(order)]
    packed = np.array(list(values), TYPES[kind][0]).astype(
        np.dtype(TYPES[kind][0]).newbyteorder(">")
    )
    return b"".join(
        (
            text(mode),
            struct.pack(size, len(info) if words is None else words),
            text("INT" if short else "LONG"),
            struct.pack(f">{len(info)}{word}", *info),
            text(mode),
            struct.pack(size, length),
            text(kind),
            packed.tobytes(),
            tail,
        )
    )


@pytest.mark.parametrize(
    "mode", ["DIRECT", "HEAP", "JAVACPP", "LONG_SHAPE", "MIXED_DATA_TYPES"]
)
def test_every_generation(mode):
    assert read_ndarray(array(mode=mode)).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_worked_example():
    words = [2, 1, 5, 1, 1, 0, 1, 99]
    data = (
        bytes.fromhex("000a4c4f4e475f5348415045 0000000000000008 00044c4f4e47")
        + struct.pack(">8q", *words)
        + bytes.fromhex("000a4c4f4e475f5348415045 0000000000000005 0005464c4f4154")
        + bytes.fromhex("3f800000 40000000 40400000 40800000 40a00000")
    )
    assert len(data) == 137
    assert read_ndarray(data).tolist() == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize("kind", sorted(set(TYPES) - {"BFLOAT16"}))
def test_every_element_type_round_trip(kind):
    a = np.arange(6).reshape(2, 3).astype(TYPES[kind][0])
    data = write_ndarray(a)
    b = read_ndarray(data)
    assert b.dtype == a.dtype and b.dtype.isnative and np.array_equal(a, b)
    assert write_ndarray(b) == data


def test_bfloat16_is_widened_and_rounded_to_even():
    exact = np.array([1.0, -2.5, 0.0, np.inf], np.float32)
    assert np.array_equal(read_ndarray(write_ndarray(exact, type="BFLOAT16")), exact)
    halfway = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    read = read_ndarray(write_ndarray(halfway, type="BFLOAT16"))
    assert read.tolist() == [1.0, 1 + 2**-6]
    nan = np.array([np.nan], np.float32)
    assert np.isnan(read_ndarray(write_ndarray(nan, type="BFLOAT16"))[0])


@pytest.mark.parametrize("shape", [(), (4,), (1, 4), (2, 0, 3), (2, 3, 4)])
def test_every_rank(shape):
    a = np.random.default_rng(0).normal(size=shape)
    assert np.array_equal(read_ndarray(write_ndarray(a)), a)


def test_strides_are_obeyed():
    fortran = array(strides=(1, 2), order="f")
    assert read_ndarray(fortran).tolist() == [[0, 2, 4], [1, 3, 5]]
    permuted = array(strides=(1, 2), order="c")  # a permuted view still says 'c'
    assert read_ndarray(permuted).tolist() == [[0, 2, 4], [1, 3, 5]]
    row = array((1, 6), (1, 1))
    assert read_ndarray(row).tolist() == [list(range(6))]


def test_paths_and_files(tmp_path):
    a = np.arange(300_000.0)
    write_ndarray(a, tmp_path / "a.bin")
    assert np.array_equal(read_ndarray(tmp_path / "a.bin"), a)
    with open(tmp_path / "a.bin", "rb") as file:
        assert np.array_equal(read_ndarray(file), a)

    class Pipe(io.BytesIO):
        def seek(self, *_):
            raise OSError("a pipe")

    assert np.array_equal(read_ndarray(Pipe((tmp_path / "a.bin").read_bytes())), a)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "length of allocation mode"),
        (array()[:-1], r"6 elements of type FLOAT takes 24 bytes, only 23 are left"),
        (array(mode="LONGER"), "unknown allocation mode 'LONGER'"),
        (array(length=-1), "length of the elements is -1"),
        (array(length=1 << 60), "only 24 are left"),
        (array(length=5), "needs 6 elements, the buffer has 5"),
        (array((1 << 40, 1 << 40), (1, 1)), "needs .* elements"),
        (array((2, -3)), "negative sizes"),
        (array(strides=(-3, 1)), "negative sizes"),
        (array(strides=(4, 1)), "reach element 6 of 6"),
        (array(order="x"), "order 120"),
        (array(rank=7), "rank 7 with shape information of 8 words"),
        (array(words=3), "shape information of 3 words"),
        (array(words=1 << 40), "shape information of"),
        (array().replace(b"FLOAT", b"UTF-8"), "elements of type 'UTF-8' cannot"),
        (array().replace(b"\x00\x04LONG", b"\x00\x04\xff\xff\xff\xff"), "ASCII"),
        (b"\xff\xff" + array(), "of 65535 characters"),
    ],
)
def test_damage_is_named_before_memory_is_taken(data, message):
    with pytest.raises(DL4JFormatError, match=rf"^array: byte \d+: .*{message}"):
        read_ndarray(data)


def test_types_nd4j_does_not_have():
    with pytest.raises(TypeError, match="no element type for complex128"):
        write_ndarray(np.zeros(2, complex))
