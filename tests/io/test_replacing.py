"""Files replaced in one step: who asked is named, and a failure costs nothing."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dl4py
from dl4py import config, normalizers
from dl4py.io import write_ndarray
from dl4py.normalizers.files import write_normalizer


def saved(path: Any) -> None:
    chain = config.NeuralNetConfiguration.builder().layer(
        config.Output(n_in=2, n_out=2)
    )
    dl4py.save(chain.build().module(dl4j_exact=True), path)


def normalizer(path: Any) -> None:
    scaler = normalizers.Standardize()
    scaler.fit(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    write_normalizer(scaler, path)


WRITERS: dict[str, Callable[[Any], Any]] = {
    "save(model, path)": saved,
    "write_ndarray(target)": lambda path: write_ndarray(np.zeros(3), path),
    "write_normalizer(target)": normalizer,
}


@pytest.mark.parametrize("what", WRITERS)
def test_an_error_begins_with_the_caller(what: str, tmp_path: pathlib.Path) -> None:
    for path, says in (
        (tmp_path / "none" / "a", "there is no folder"),
        (tmp_path, "expected a file"),
        (f"{tmp_path}/", "expected a file"),
    ):
        with pytest.raises((ValueError, OSError)) as caught:
            WRITERS[what](path)
        assert str(caught.value).startswith(f"{what}: {says}")
    WRITERS[what](tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_array_that_cannot_be_written_keeps_the_old_file(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="no element type"):
        write_ndarray(np.array([1j]), path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not pathlib.Path("/proc").is_dir(), reason="no such folder")
@pytest.mark.parametrize("what", WRITERS)
def test_a_folder_that_takes_no_file_is_told_by_the_names_given(what: str) -> None:
    with pytest.raises(OSError) as caught:
        WRITERS[what]("/proc/a.bin")
    assert str(caught.value).startswith(f"{what}: cannot write /proc/a.bin: no new f")
    assert ".tmp" not in str(caught.value)
