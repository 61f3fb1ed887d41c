"""The benchmark's own machinery: what it times is no matter of a unit test."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.benchmarks import __main__ as command
from tests.benchmarks import harness, report, run, updaters
from tests.benchmarks.harness import Case, Floor, Row, Table

ROW = Row("cube", 1024, "2^10", 1, 1e-6, {"eager": 2.5, "relu": 0.5})


def test_every_variant_is_called_and_none_before_its_turn() -> None:
    called = {"a": 0, "b": 0}

    def call(name: str) -> None:
        called[name] += 1

    t = harness.compare(
        {"a": lambda: call("a"), "b": lambda: call("b")}, rounds=5, block=1e-4
    )
    assert list(t) == ["a", "b"] and min(t.values()) > 0
    assert min(called.values()) >= 3 + 5


def test_floors() -> None:
    floors = [
        Floor("eager", 3.0),
        Floor("eager", 9.0, lambda row: row.size > 1024),
        Floor("relu", 0.4),
        Floor("compile", 9.0),
        Floor("eager", 9.0, device="cuda"),
    ]
    assert list(harness.misses(floors, ROW)) == [("eager", 3.0, 2.5)]
    assert not list(harness.misses(floors, ROW, harness.SLACK))


def test_every_module_with_a_table_is_found() -> None:
    folder = pathlib.Path(harness.__file__).parent
    with_table = {p.stem for p in folder.glob("*.py") if "\nTABLE = " in p.read_text()}
    assert set(run.tables()) == with_table and with_table


def fake(quick: bool) -> Iterator[Case]:
    slow = functools.partial(sum, range(2000))
    for size in (1, 2):
        yield Case("sum", size, str(size), slow, {"none": lambda: None, "same": slow})


@pytest.fixture(autouse=True)
def threads_kept() -> Iterator[None]:
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.mark.usefixtures("threads_kept")
@pytest.mark.parametrize("least, fails", [(0.0, False), (1e9, True)])
def test_command(
    least: float,
    fails: bool,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table("Sums", fake, (Floor("none", least),), block=1e-4)

    def here(
        _: str,
        table: Table,
        quick: bool,
        threads: list[int],
        device: str,
        only: list[str],
    ) -> list[Row]:
        return list(harness.rows(table.only(only), quick, threads, device))

    monkeypatch.setattr(run, "tables", lambda: {"sums": table})
    monkeypatch.setattr(run, "in_own_process", here)
    argv = ["x", "--quick", "--check", "--threads", "1", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", argv)
    if fails:
        with pytest.raises(SystemExit, match="sums: sum 1, 1 threads: none .* floor"):
            command.main()
    else:
        command.main()
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["sums"]["machine"]["torch"]
    (first, second) = written["sums"]["rows"]
    assert first["ratios"]["none"] < 1 and second["label"] == "2"
    assert "| sum | 1 |" in capsys.readouterr().out
    assert (tmp_path / "sums.png").stat().st_size > 1000
    told = (tmp_path / "tables.md").read_text()
    assert (
        "## Sums (`sums --quick`)" in told and ("Missed: sum 1 on 1" in told) == fails
    )


def test_only_some_rows_are_measured_anew() -> None:
    table = Table("Sums", fake).only(["other"])
    assert not list(table.cases(True)) and len(list(Table("", fake).cases(True))) == 2
    two = dataclasses.replace(ROW, threads=2)
    new = dataclasses.replace(ROW, seconds=1.0)
    old = [dataclasses.asdict(row) for row in (ROW, two)]
    assert command.merged(old, [new]) == [new, two]


def test_rows_measured_later_say_where() -> None:
    here = {"processor": "One", "cores": 2, "torch": "2.13", "date": "today"}
    there = here | {"processor": "Two", "cores": 1}
    row = dataclasses.asdict(Row("sum", 8, "2^3", 1, 1e-6, {}))
    result = {"title": "Sums", "machine": here, "apart": {"sum": there}, "rows": [row]}
    text = report.document({"sums": result}, {"sums": Table("Sums", fake)})
    assert "One, 2 cores" in text and "\nsum: Two, 1 core, torch 2.13, today.\n" in text


def test_markdown_has_a_cell_for_every_number_of_threads() -> None:
    two = Row("cube", 1024, "2^10", 2, 2e-6, {"eager": 3.0})
    lines = report.shown([ROW, two]).splitlines()
    assert lines[0] == "|  | size | us | eager | relu |"
    assert lines[2] == "| cube | 2^10 | 1 / 2 | 2.50 / 3.00 | 0.50 / - |"


def test_cases_are_made_on_the_device() -> None:
    made: list[torch.Tensor] = []

    def cases(quick: bool) -> Iterator[Case]:
        for size in (1, 2):
            made.append(torch.zeros(size))
            yield Case("zeros", size, str(size), made[-1].sum, {})

    rows = list(harness.rows(Table("", cases, block=1e-5), True, [1], "meta"))
    assert [row.device for row in rows] == ["meta", "meta"]
    assert all(t.is_meta for t in made)
    assert not torch.zeros(1).is_meta


def test_an_updater_that_torch_cannot_fuse_here_has_one_peer_less() -> None:
    class Unfused(torch.optim.SGD):
        """As AdaGrad on CUDA: it is made, and cannot step."""

        def step(self, closure: Any = None) -> Any:
            if self.defaults["fused"]:
                raise NotImplementedError("no _fused_adagrad_ for this device")
            return super().step(closure)

    assert not updaters.fused(Unfused, [(2,)])
    assert updaters.fused(torch.optim.SGD, [(2,)])["fused"]() is None
