"""``dl4py list``: every registered part, under DL4J's name and ours."""

import ast
import importlib
import json
import pathlib
import re

import pytest

import dl4py
from dl4py.commands import migration, names
from dl4py.commands.cli import main
from dl4py.registry import REGISTRIES
from tests import migration as migration_page


def test_lists_every_part_that_a_user_names(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for kind, registry in REGISTRIES.items():
        keys = [row["name"] for row in found if row["kind"] == kind]
        assert keys == (
            [] if kind == "module" else [registry.entry(k).key for k in registry]
        )
    assert all(row["what"] for row in found if row["kind"] in REGISTRIES)


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


def resolved(name):
    """What a whole name of dl4py or torch stands for."""
    module, *rest = name.split(".")
    found = importlib.import_module(module)
    for part in rest:
        found = getattr(found, part)
    return found


def test_what_has_no_registry_is_listed_and_there():
    rows = migration.concepts()
    kinds = {row["kind"] for row in rows}
    assert {"network", "training", "evaluation", "zoo", "not here"} <= kinds
    for row in rows:
        assert row["java"]
        text = f"{row['name']} {row['what']}"
        for name in re.findall(r"\b(?:dl4py|torch|lightning)(?:\.\w+)+", text):
            assert resolved(name) is not None
    here = {row["java"] for row in rows if row["kind"] == "evaluation"}
    assert len(here) == len(dl4py.evaluation.__all__)


def test_what_stands_for_early_stopping_and_spark_is_named():
    told = " ".join(f"{row['name']} {row['what']}" for row in migration.concepts())
    for module in ("stopping", "spark"):
        text = (
            pathlib.Path(dl4py.__file__).parent / module / "__init__.py"
        ).read_text()
        names = ast.literal_eval(text.rpartition("__all__ = ")[2])
        for name in set(names) - {"Condition", "Score"}:  # bases of one's own
            assert re.search(rf"\bdl4py\.{module}\.{name}\b", told), name


def test_the_page_leaves_no_class_of_dl4js_out():
    text = migration_page.page()
    for row in names.rows():
        if row["java"]:
            assert row["java"].rpartition(".")[2] in text and row["name"] in text
