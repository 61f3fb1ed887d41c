"""``dl4py serve``: one server with several models, asked in every way."""

import asyncio
import io
import json
import os
import pathlib
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import torch

import dl4py
from dl4py.commands.cli import main
from tests.serving import models
from tests.serving.running import Connection, ask, body, closed, running

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("uvicorn")
TOKEN = "a token"
JSON, NPY, ARROW = (
    "application/json",
    "application/x-npy",
    "application/vnd.apache.arrow.stream",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    dl4py.save(models.iris(), folder / "iris.zip")
    dl4py.save(models.towers(), folder / "towers.zip")
    return folder


@pytest.fixture(scope="module")
def server(files):
    paths = (files / name for name in ("iris.zip", "towers.zip"))
    options = ("--limit", 5000, "--labels", "iris=a,b,c")
    with running(*paths, *options, token=TOKEN) as (process, port):
        yield process, port


@pytest.fixture
def port(server):
    return server[1]


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def arrow(columns):
    table = pyarrow.table(columns)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def lists(array):
    flat = pyarrow.array(np.ascontiguousarray(array).reshape(-1))
    return pyarrow.FixedSizeListArray.from_arrays(flat, array.shape[1])


X = np.random.default_rng(0).normal(5, 3, (7, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "kind, given",
    [
        (JSON, body(*X)),
        (JSON, json.dumps({"inputs": {"input": X.tolist()}}).encode()),
        (NPY, npy(X)),
        (NPY, npy(np.asfortranarray(X.astype(">f8")))),
        (ARROW, arrow({"input": lists(X)})),
        (ARROW, arrow({"input": pyarrow.array(X.tolist())})),
        (ARROW, arrow({f"x{i}": X[:, i] for i in range(4)})),
    ],
)
def test_answers_what_predict_says(port, files, kind, given):
    path = "/predict/iris"
    status, content = ask(port, path, given, TOKEN, Content_Type=kind)
    assert status == 200, content
    net = dl4py.restore(files / "iris.zip")
    expected = net.predict(torch.from_numpy(X)).numpy()
    if kind == JSON:
        found = np.array(json.loads(content)["outputs"], dtype=np.float32)
    elif kind == NPY:
        found = np.load(io.BytesIO(content))
    else:
        column = pyarrow.ipc.open_stream(content).read_all().column(0)
        found = np.array(column.to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(found, expected)
    assert not np.allclose(expected, net.output(torch.from_numpy(X)).numpy(), atol=0.01)


def test_several_inputs_and_outputs_go_by_name(port, files):
    left, right = X[:, :2], X[:, 1:]
    one, two = dl4py.restore(files / "towers.zip").predict(
        (torch.from_numpy(left), torch.from_numpy(right.copy()))
    )
    given = {"inputs": {"right": right.tolist(), "left": left.tolist()}}
    status, content = ask(port, "/predict/towers", given, TOKEN)
    assert status == 200, content
    found = json.loads(content)["outputs"]
    np.testing.assert_array_equal(np.float32(found["one"]), one.numpy())
    np.testing.assert_array_equal(np.float32(found["two"]), two.numpy())
    file = io.BytesIO()
    np.savez(file, left=left, right=right)
    for kind, given in (
        (NPY, file.getvalue()),
        (ARROW, arrow({"left": lists(left), "right": lists(right)})),
    ):
        again = ask(
            port, "/predict/towers", given, TOKEN, Content_Type=kind, Accept=JSON
        )
        assert again == (200, content)


BAD = {
    "width": ({"inputs": [[1, 2, 3]]}, 400, "inputs: expected [n, 4], got [1, 3]"),
    "rows": ({"inputs": []}, 400, "inputs: expected [n, 4], got [0]"),
    "nan": (b'{"inputs": [[1, 2, NaN, 4]]}', 400, "finite float32 numbers, got nan at"),
    "huge": ({"inputs": [[1, 2, 3, 1e39]]}, 400, "numbers, got 1e+39 at [0, 3]"),
    "ragged": ({"inputs": [[1, 2, 3, 4], [5]]}, 400, "in rows of equal length"),
    "text": ({"inputs": [["1", "2", "3", "4"]]}, 400, "inputs: expected numbers"),
    "null": ({"inputs": [[1, 2, 3, None]]}, 400, "inputs: expected numbers"),
    "key": ({"input": [[1, 2, 3, 4]]}, 400, "got ['input']"),
    "name": ({"inputs": {"x": [[1, 2, 3, 4]]}}, 400, "inputs: expected input, got x"),
    "json": (b'{"inputs": [[1, 2', 400, "the body is no JSON"),
    "deep": (b"[" * 4000, 400, "the body is no JSON"),
    "size": (
        {"inputs": [[0] * 4] * 900},
        413,
        "at most 5000 bytes (--limit), got 12612",
    ),
    "npy": (npy(X)[:-1], 400, "its header tells [7, 4] of float32, it has 111 bytes"),
    "npy objects": (npy(np.array([["a"]])), 400, "expected numbers, got <U1"),
    "no npy": (b"\x93NUMPY", 400, "the body is no npy"),
    "npz": (b"PK\x03\x04", 400, "the body is no npz"),
    "arrow": (b"ARROW1", 400, "the body is no Arrow stream"),
    "arrow nulls": (arrow({"input": [[1.0, None, 2.0, 3.0]]}), 400, "has nulls"),
    "arrow text": (arrow({"input": ["a"]}), 400, "has string, not numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(port, name):
    given, status, message = BAD[name]
    kind = JSON
    if isinstance(given, bytes):
        kind = NPY if "np" in name else ARROW if "arrow" in name else JSON
    found = ask(port, "/predict/iris", given, TOKEN, Content_Type=kind)
    assert found[0] == status and message in json.loads(found[1])["error"], found


def test_refuses_strangers_and_wrong_ways(port):
    for token in (None, "another", "b" * 5000):
        for path in ("/predict/iris", "/info", "/metrics", "/reload/iris"):
            status, content = ask(port, path, None, token)
            assert status == 401 and "Bearer" in json.loads(content)["error"]
    assert ask(port, "/health")[0] == 200
    given = body(*X)
    for path, status, told in (
        ("/predict", 404, "/predict/iris, /predict/towers"),
        ("/predict/other", 404, "/predict/iris"),
        ("/nothing", 404, "expected /predict, /reload"),
        ("/info", 405, "/info: expected GET, got POST"),
    ):
        found = ask(port, path, given, TOKEN)
        assert found[0] == status and told in json.loads(found[1])["error"], found
    found = ask(port, "/predict/iris", given, TOKEN, Content_Type="image/png")
    assert found[0] == 415 and JSON in json.loads(found[1])["error"]


def test_tells_what_is_served(port):
    found = json.loads(ask(port, "/info", None, TOKEN)[1])
    assert list(found) == ["iris", "towers"]
    assert found["iris"]["inputs"] == {
        "input": {"shapes": [["n", 4]], "indices": False}
    }
    assert found["iris"]["labels"] == ["a", "b", "c"]
    assert "Standardize" in found["iris"]["normalizer"]
    assert found["towers"]["outputs"] == ["one", "two"]


def metric(port, name):
    lines = ask(port, "/metrics", None, TOKEN)[1].decode().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def distinct(n, seed):
    return np.random.default_rng(seed).normal(5, 3, (n, 4)).astype(np.float32)


def together(port, rows, during):
    """(statuses, outputs) of requests, one a row again and again, while it happens."""
    thread = threading.Timer(0.1, during)
    thread.start()
    found = []

    async def client():
        line = Connection(port, TOKEN)
        while thread.is_alive() or len(found) < len(rows):
            at = len(found)
            found.append(None)
            given = body(rows[at % len(rows)])
            found[at] = await line.post("/predict/iris", given)
            await asyncio.sleep(0.01)
        line.close()

    async def clients():
        await asyncio.gather(*(client() for _ in range(16)))

    asyncio.run(clients())
    outputs = [json.loads(c).get("outputs", [[0] * 3])[0] for _, c in found]
    return [status for status, _ in found], np.float32(outputs)


def predicted(net, rows, n):
    """What ``net`` says of the rows, again and again, ``n`` in all."""
    return np.resize(net.predict(torch.from_numpy(rows)).numpy(), (n, 3))


def test_a_killed_worker_is_replaced_and_nothing_is_lost(server, files):
    process, port = server
    rows = distinct(300, 1)
    tasks = pathlib.Path(f"/proc/{process.pid}/task")
    dead = []

    def kill():
        for pid in " ".join(p.read_text() for p in tasks.glob("*/children")).split():
            if b"import main" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
                dead.append(pid)

    statuses, found = together(port, rows, kill)
    assert len(dead) == 2 and set(statuses) == {200}
    expected = predicted(dl4py.restore(files / "iris.zip"), rows, len(found))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert metric(port, 'dl4py_restarts_total{model="iris"}') == 1


def test_a_reload_loses_nothing_and_a_bad_file_changes_nothing(port, files):
    path = files / "iris.zip"
    kept = path.read_bytes()
    nets = [dl4py.restore(path), models.iris(seed=9)]
    rows = distinct(300, 2)
    told = []

    def reload():
        dl4py.save(nets[1], path)
        told.append(json.loads(ask(port, "/info", None, TOKEN)[1])["iris"]["changed"])
        told.append(ask(port, "/reload/iris", b"", TOKEN))

    statuses, found = together(port, rows, reload)
    assert told == [True, (200, b'{"version": 2}')] and set(statuses) == {200}
    old, new = (
        np.isclose(found, predicted(net, rows, len(found)), atol=1e-6).all(1)
        for net in nets
    )
    assert old[0] and (old ^ new).all()
    path.write_bytes(kept[: len(kept) // 2])
    status, content = ask(port, "/reload/iris", b"", TOKEN)
    assert status == 422 and "version 2 is served on" in json.loads(content)["error"]
    path.unlink()
    assert ask(port, "/reload/iris", b"", TOKEN)[0] == 422
    status, content = ask(port, "/predict/iris", body(rows[0]), TOKEN)
    assert status == 200
    outputs = np.float32(json.loads(content)["outputs"])
    np.testing.assert_allclose(outputs, predicted(nets[1], rows, 1), atol=1e-6)
    path.write_bytes(kept)


def test_too_many_get_429_and_a_signal_lets_the_others_be_answered(tmp_path):
    dl4py.save(models.heavy(1500), tmp_path / "heavy.zip")
    options = ("--workers", 0, "--batch", 1, "--queue", 8)
    with running(tmp_path / "heavy.zip", *options) as (process, port):
        bodies = [body([i, 1, 2, 3]) for i in range(100)]
        found, *_ = asyncio.run(closed(port, bodies, 100))
        statuses = [status for status, _ in found]
        assert 8 <= statuses.count(200) < 100
        assert statuses.count(200) + statuses.count(429) == 100
        assert "ask again" in json.loads(found[statuses.index(429)][1])["error"]
        time.sleep(0.5)
        threading.Timer(0.02, process.terminate).start()
        found, *_ = asyncio.run(closed(port, bodies[:8], 8))
        assert [status for status, _ in found] == [200] * 8
        assert process.wait(10) == 0


def test_bad_arguments_are_one_line(files, tmp_path, server, capsys, monkeypatch):
    monkeypatch.delenv("DL4PY_TOKEN", raising=False)
    path = str(files / "iris.zip")
    shutil.copy(files / "iris.zip", tmp_path / "iris.zip")
    (tmp_path / "damaged.zip").write_bytes(b"PK")
    for arguments, told in (
        ([path, "--port", str(server[1])], "is in use"),
        ([path, str(tmp_path / "iris.zip")], "two models have the name 'iris'"),
        ([path, "--queue", "0"], "serve(queue=...): must be >= 1, got 0"),
        ([path, "--port", "99999"], "serve(port=...): must be in [0, 65535]"),
        ([path, "--host", "no.such.host.invalid"], "is no address"),
        ([f"a/b={path}"], "got 'a/b'"),
        ([path, "--labels", "x=1,2"], "there is no model 'x'"),
        ([str(tmp_path / "none.zip"), "--port", "0"], "none.zip"),
        ([str(tmp_path / "damaged.zip"), "--workers", "0", "--port", "0"], "damaged"),
    ):
        assert main(["serve", *arguments]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1, error
    monkeypatch.setenv("DL4PY_TOKEN", " ")
    assert main(["serve", path]) == 2
    assert "DL4PY_TOKEN is empty" in capsys.readouterr().err
