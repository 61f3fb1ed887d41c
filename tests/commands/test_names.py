"""``dl4py list``: every registered part, under DL4J's name and ours."""

import json

import pytest

from dl4py.commands.cli import main
from dl4py.registry import REGISTRIES


def test_lists_every_part_that_a_user_names(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for kind, registry in REGISTRIES.items():
        keys = [row["name"] for row in found if row["kind"] == kind]
        assert keys == (
            [] if kind == "module" else [registry.entry(k).key for k in registry]
        )
    assert all(row["what"] for row in found)


def test_one_kind_as_text(capsys):
    assert main(["list", "normalizer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["normalizer", "----------"]
    assert any(line.startswith("NormalizerStandardize") for line in lines)


@pytest.mark.parametrize("kind", ["layers", "module"])
def test_an_unknown_kind_is_one_line(kind, capsys):
    assert main(["list", kind]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dl4py list: kind: expected one of activation, ")
    assert error.count("\n") == 1
