"""Tables of every kind: the same rows, the same examples, the same errors."""

import csv
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import feather, parquet

from dl4py import data
from dl4py.data import tables

ROWS = [[5.1, 3.5, "rose"], [4.9, 3.0, "aster"], [6.2, 2.9, "rose"], [1.0, 2.0, "iris"]]
NAMES = ["length", "width", "kind"]
X = torch.tensor([row[:2] for row in ROWS])
Y = torch.eye(3)[[2, 0, 2, 1]]


def write_csv(path, rows=ROWS, head=NAMES):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([head, *rows] if head else rows)
    return path


def arrow(rows):
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(NAMES, map(list, columns), strict=True)))


def write_stream(table, path):
    with pa.ipc.new_stream(path, table.schema) as file:
        file.write_table(table)


WRITERS = {
    "csv": lambda rows, path: write_csv(path, rows),
    "parquet": lambda rows, path: parquet.write_table(arrow(rows), path),
    "feather": lambda rows, path: feather.write_feather(arrow(rows), path),
    "arrow": lambda rows, path: write_stream(arrow(rows), path),
}


@pytest.fixture(params=WRITERS)
def table(request, tmp_path):
    """Writes rows into a file of each kind; the file."""

    def write(rows=ROWS):
        path = tmp_path / f"a.{request.param}"
        WRITERS[request.param](rows, str(path))
        return path

    return write


def test_every_kind_has_a_writer_here():
    keys = {key for key in data.READERS if data.READERS[key].table}
    assert keys == {"csv", "parquet", "arrow"} <= set(WRITERS)


class TestEveryKind:
    @pytest.mark.parametrize(
        "words",
        [
            {"labels": "kind"},
            {"labels": 2},
            {"labels": -1, "features": [0, "width"]},
            {"labels": "kind", "classes": ["aster", "iris", "rose"]},
        ],
    )
    def test_names_of_classes_become_one_hot(self, table, words):
        found = data.read(table(), **words)
        x, y = found.batch(torch.arange(4))
        assert torch.equal(x, X) and torch.equal(y, Y)
        assert found.classes == ("aster", "iris", "rose")
        assert (found.features, found.labels) == (("length", "width"), ("kind",))

    def test_columns_for_a_regression(self, table):
        found = data.read(table(), features="length", labels="width", dtype="float64")
        x, y = found.batch(torch.arange(4))
        assert x.dtype == torch.float64 and x[:, 0].tolist() == [5.1, 4.9, 6.2, 1.0]
        assert y[:, 0].tolist() == [3.5, 3.0, 2.9, 2.0] and found.classes is None

    def test_numbers_of_classes(self, table):
        rows = [[*row[:2], i % 3] for i, row in enumerate(ROWS)]
        _, y = data.read(table(rows), labels="kind", classes=3).batch(torch.arange(4))
        assert torch.equal(y, torch.eye(3)[[0, 1, 2, 0]])

    @pytest.mark.parametrize("value", [3, -1, 0.5])
    def test_a_label_outside_names_row_and_column(self, table, value):
        rows = [[1, 2, 0.0], [3, 4, 1.0], [5, 6, float(value)]]
        path = table(rows)
        row = 4 if path.suffix == ".csv" else 3
        says = f"a.*: row {row}, column 'kind': expected a class in 0 ... 2, got '"
        with pytest.raises(ValueError, match=f"{says}{value}'"):
            data.read(path, labels="kind", classes=3)

    def test_an_unknown_class_is_named(self, table):
        says = "row [12], column 'kind': expected one of the classes aster, iris, got"
        with pytest.raises(ValueError, match=f"{says} 'rose'"):
            data.read(table(), labels="kind", classes=["aster", "iris"])

    def test_text_among_features_is_named(self, table):
        says = "row [12], column 'kind': expected a number, got 'rose'"
        with pytest.raises(ValueError, match=says):
            data.read(table())

    def test_blocks_are_joined_in_order(self, table, monkeypatch):
        monkeypatch.setattr(tables, "BLOCK", 4096)
        monkeypatch.setattr(tables, "ROWS", 100)
        values = np.arange(3000.0)
        path = table([[v, 2 * v, "ab"[int(v) % 2]] for v in values.tolist()])
        found = data.read(path, labels="kind")
        x, y = found.batch(torch.arange(3000))
        assert torch.equal(x[:, 1], torch.from_numpy(2 * values).float())
        assert torch.equal(y.argmax(1), torch.arange(3000) % 2)
        pieces = list(data.stream(path, labels="kind"))
        assert torch.equal(torch.cat([p.inputs[0] for p in pieces]), x)
        assert path.suffix in (".feather", ".arrow") or len(pieces) > 5

    def test_a_missing_column_is_named_with_the_nearest(self, table):
        says = "labels: no column 'knid': did you mean 'kind'.; there are length, width"
        with pytest.raises(ValueError, match=says):
            data.read(table(), labels="knid")
        with pytest.raises(ValueError, match="no column 3, there are 3"):
            data.read(table(), labels=3)


class TestCsv:
    def test_an_error_late_in_a_file_names_its_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "BLOCK", 1 << 12)
        rows = [[i, i + 1, "a"] for i in range(2000)]
        rows[1500][1] = "1o"
        path = write_csv(tmp_path / "a.csv", rows)
        assert path.read_text().splitlines()[1501] == "1500,1o,a"
        says = "a.csv: row 1502, column 'width': expected a number, got '1o'"
        with pytest.raises(ValueError, match=says):
            data.read(path, features=["length", "width"])
        for wrong in ([1500, 1], [1500, 1, "a", 2]):
            rows[1500] = wrong
            write_csv(path, rows)
            says = f"row 1502: expected 3 columns, got {len(wrong)}: '1500,1"
            with pytest.raises(ValueError, match=says):
                data.read(path, labels="kind")

    @pytest.mark.parametrize("cell, came", [("", ""), ("1,5", "1,5"), ("NULL", "NULL")])
    def test_cells_that_are_no_numbers(self, tmp_path, cell, came):
        path = write_csv(tmp_path / "a.csv", [[1, 2], [cell, 3]], ["a", "b"])
        says = f"row 3, column 'a': expected a number, got '{came}'"
        with pytest.raises(ValueError, match=says):
            data.read(path)

    @pytest.mark.parametrize(
        "text, words, columns",
        [
            ("1,2\n3,4\n", {}, ("0", "1")),
            ("a,b\n1, 2\n\n 3,4\n\n", {}, ("a", "b")),
            ("\ufeffa;b\n1;2\n3;4", {"delimiter": ";"}, ("a", "b")),
            ("# made today\na,b\n1,2\n3,4\n", {"skip": 1}, ("a", "b")),
            ("9,9\n1,2\n3,4\n", {"header": True}, ("9", "9")),
            ('"a","b"\r\n"1",2\r\n3,"4"\r\n', {}, ("a", "b")),
        ],
    )
    def test_dialects(self, tmp_path, text, words, columns):
        path = tmp_path / "a.csv"
        path.write_text(text, encoding="utf-8", newline="")
        found = data.read(path, **words)
        assert found.features == columns
        assert found.inputs[0].tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize("text", ["", "\n\n", "a,b\n"])
    def test_a_file_without_rows(self, tmp_path, text):
        path = tmp_path / "a.csv"
        path.write_text(text)
        with pytest.raises(ValueError, match="a.csv: "):
            data.read(path)

    def test_bytes_that_are_no_text(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_bytes(b"a,b\n1,\xff\n")
        with pytest.raises(ValueError, match="a.csv: row 2, column .b.: .*UTF-8"):
            data.read(path)

    def test_tabs_and_what_float32_cannot_hold(self, tmp_path):
        path = tmp_path / "a.tsv"
        path.write_text("a\tb\n1e300\t2\n")
        assert data.read(path, dtype="float64").inputs[0].tolist() == [[1e300, 2]]
        says = "row 2, column 'a': expected a number that float32 holds"
        with pytest.raises(ValueError, match=says):
            data.read(path)


def test_nulls_are_named(tmp_path):
    table = pa.table({"a": [1.0, None], "b": ["x", None]})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    with pytest.raises(ValueError, match="row 2, column 'a': expected a number, got"):
        data.read(path, features="a")
    with pytest.raises(ValueError, match="row 2, column 'b': expected a class's name"):
        data.read(path, features="a", labels="b")


def test_words_in_dictionaries(tmp_path):
    path = tmp_path / "a.parquet"
    kinds = pa.array(["b", "a", "b"]).dictionary_encode()
    parquet.write_table(pa.table({"a": [1, 2, 3], "kind": kinds}), path)
    found = data.read(path, labels="kind")
    assert found.classes == ("a", "b")
    assert found.outputs[0].argmax(1).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "words, says",
    [
        ({"labels": "kind", "features": ["kind"]}, "a feature and a label"),
        ({"classes": 3}, "expected one label column, got 0"),
        ({"labels": ["kind", 2]}, "a column twice"),
        ({"align": "middle"}, "align: expected one of equal, start, end"),
        ({"classes": 1}, "classes: expected a number >= 2"),
        ({"dtype": "int"}, "dtype: expected one of float32, float64"),
        ({"delimiter": ";;"}, "delimiter: expected one character"),
        ({"classes": 2.5}, "classes: expected a number >= 2, or distinct names"),
        ({"height": 0}, "height: expected 1 or more, got 0"),
        ({"width": -2}, "width: expected 1 or more, got -2"),
    ],
)
def test_words_that_do_not_fit(tmp_path, words, says):
    with pytest.raises(ValueError, match=says):
        data.read(write_csv(tmp_path / "a.csv"), **words)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    for i in (10, 2, 1):
        (tmp_path / f"{i}.csv").write_text(f"{i},0\n")
    assert data.read(tmp_path).inputs[0][:, 0].tolist() == [1, 2, 10]
    (tmp_path / "3.csv").write_text("1,2,3\n")
    with pytest.raises(ValueError, match="files of unequal shapes"):
        data.read(tmp_path)
    with pytest.raises(ValueError, match=r"a.xls: expected a file that ends in .npz"):
        (tmp_path / "a.xls").touch()
        data.read(tmp_path / "a.xls")
    with pytest.raises(FileNotFoundError, match="no such file"):
        data.read(tmp_path / "b.csv")


class TestSplit:
    def test_is_seeded_complete_and_keeps_shares_of_classes(self, tmp_path):
        rows = [[i, i, "ab"[i % 4 == 0]] for i in range(100)]
        whole = data.read(write_csv(tmp_path / "a.csv", rows), labels="kind")
        parts = whole.split(0.2, 0.2, seed=3)
        assert [p.outputs[0].sum(0).tolist() for p in parts] == [
            [45.0, 15.0], [15.0, 5.0], [15.0, 5.0],
        ]  # fmt: skip
        seen = torch.cat([p.inputs[0][:, 0] for p in parts])
        assert sorted(seen.tolist()) == list(range(100))
        again, other = (whole.split(0.2, 0.2, seed=s) for s in (3, 4))
        assert torch.equal(parts[1].inputs[0], again[1].inputs[0])
        assert not torch.equal(parts[1].inputs[0], other[1].inputs[0])

    @pytest.mark.parametrize("shares", [(1.0,), (-0.1,), (0.5, 0.5)])
    def test_shares_that_leave_nothing(self, shares):
        with pytest.raises(ValueError, match="less than 1 together"):
            data.Arrays.of(torch.zeros(4, 1)).split(*shares)


def test_what_reads_tables_is_named_where_it_is_missing(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'dl4py\[data\]'"):
        data.read(path)


@pytest.mark.parametrize(
    "text, words, says",
    [
        ("a,a,k\n1,2,3\n", {"labels": "a"}, "'a' is the name of columns 0, 1; give"),
        ("a;b;k\n1;2;3\n", {"labels": "k"}, "is its delimiter ';'\\? Give it with "),
        ("a|b\n1|2\n", {}, "is its delimiter '|'\\? Give it with"),
        ("k,a\nx,1\nx,2\n", {"labels": "k"}, "labels: 'x' is the only class"),
        ("k,a\nx,1\n", {"labels": "k", "classes": 2}, "'k': expected the number of a"),
    ],
)
def test_a_way_out_is_named(tmp_path, text, words, says):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"a.csv: .*{says.replace('|', '[|]')}"):
        data.read(path, **words)


def test_an_unknown_word_is_told_with_the_nearest(tmp_path):
    with pytest.raises(TypeError, match="lables: unknown: did you mean 'labels'"):
        data.read(write_csv(tmp_path / "a.csv"), lables="kind")


def test_bytes_that_are_no_text_have_a_row_and_a_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"k,a,b\n" + b"x,1,2\n" * 300_000 + b"y\xfc,1,2\n")
    with pytest.raises(ValueError, match="row 300002, column 'k': expected text in U"):
        data.read(path, features=["b", "a"], labels="k")


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather"])
@pytest.mark.parametrize("content", [b"", b"no table"])
def test_a_damaged_table_is_named(tmp_path, ending, content):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"a.{ending}: not a file of {ending}: "):
        data.read(path)
