"""``dl4py convert``; what it writes is tested beside the formats."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

import dl4py
from dl4py.commands.cli import main
from dl4py.commands.inspection import origin
from tests.formats.test_convert import saved
from tests.formats.test_load import assert_same, fitted
from tests.resources import MLP, data


@pytest.fixture
def old(tmp_path: pathlib.Path) -> pathlib.Path:
    return saved(fitted(), tmp_path / "old.safetensors")


def run(*words: Any) -> int:
    return main(["convert", *map(str, words)])


def test_it_says_what_it_did(old: pathlib.Path, capsys: Any) -> None:
    new = old.with_name("new.ckpt")
    assert run(old, new) == 0
    assert capsys.readouterr().out == f"{new}: ckpt, from a safetensors\n"
    assert_same(dl4py.load(new), fitted())
    capsys.readouterr()
    assert run(old, old.with_name("new.pt2"), "--labels", "a,b,c") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["input input: [n, 4]", "outputs: layer1"]
    assert lines[3].startswith("left out: the updaters' state and the counters")
    assert run(old, old.with_name("new.py"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["written"] == "py" and len(found["left_out"]) == 2


def test_a_file_of_an_old_release_becomes_todays(tmp_path: pathlib.Path) -> None:
    old, new = tmp_path / "old.zip", tmp_path / "new.zip"
    old.write_bytes(data(MLP).getvalue())
    assert run(old, new) == 0
    before, after = origin(old)["releases"], origin(new)["releases"]
    assert before == "0.8.0" and after.endswith("M2.1")
    assert main(["diff", str(old), str(new)]) == 0


def test_bad_input(old: pathlib.Path, capsys: Any) -> None:
    """One line, status 2, and nothing half-written."""
    new = old.with_name("new.zip")
    new.write_bytes(b"mine")
    broken = old.with_name("broken.zip")
    broken.write_bytes(b"PK")
    for words, says in (
        ((old, new), f"{new} exists; --force replaces it"),
        ((old, old.with_name("new.txt")), "expected a name that ends in .zip, .ckpt"),
        ((old.with_name("no.zip"), old.with_name("b.py")), "no.zip"),
        ((broken, old.with_name("b.py")), "broken.zip: not a zip file"),
        ((old, old.with_name("no") / "b.py"), "convert(old, new): there is no folder"),
        ((old, old.parent), "ends in .zip"),
    ):
        assert run(*words) == 2
        out, err = capsys.readouterr()
        assert says in err and err.count("\n") == 1 and not out
    assert new.read_bytes() == b"mine"
    assert {p.name for p in old.parent.iterdir()} == {
        "new.zip",
        "broken.zip",
        "old.safetensors",
    }
    assert run(old, new, "--force") == 0
    assert dl4py.load(new).clock.epoch == 3
    with pytest.raises(SystemExit):
        run(old, old.with_name("a.pt2"), "--shape", "3,x")
    assert "whole numbers >= 1, or any" in capsys.readouterr().err
