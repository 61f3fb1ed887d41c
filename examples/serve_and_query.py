"""Serves a network over HTTP and asks it for the kind of a flower.

The server is a process of its own, ``dl4py serve``; any program may ask it:

    curl 127.0.0.1:8000/predict --json '{"inputs": [[5.1, 3.5, 1.4, 0.2]]}'

    pip install "dl4py[serve]"
    python examples/serve_and_query.py
    python examples/serve_and_query.py --epochs 100
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

import dl4py
from dl4py import NeuralNetConfiguration, data
from dl4py.config import Dense, Output
from dl4py.normalizers import Standardize

KINDS = ("setosa", "versicolor", "virginica")


def trained(epochs: int) -> dl4py.Network:
    """A network that knows Iris, with the normalizer of its inputs."""
    x, y = data.iris()
    normalizer = Standardize().fit(x)
    chain = NeuralNetConfiguration.builder().seed(1).updater("adam", lr=0.05)
    chain = chain.layer(Dense(n_in=4, n_out=8, activation="tanh"))
    net = chain.layer(Output(n_out=3)).build().module()
    net.fit([(normalizer.transform(x), y)], epochs=epochs)
    net.normalizer = normalizer
    return net


def ask(url: str, rows: list[list[float]]) -> list[list[float]]:
    """The server's answer for some rows."""
    body = json.dumps({"inputs": rows}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[list[float]] = json.load(answer)["outputs"]
        return found


def served(path: str, rows: list[list[float]]) -> list[list[float]]:
    """What ``dl4py serve`` answers, started for this and stopped again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dl4py.commands.cli", "serve", path]
    server = subprocess.Popen([*command, f"--port={port}", "--workers=0"])
    try:
        while True:
            try:
                return ask(f"http://127.0.0.1:{port}/predict", rows)
            except OSError:  # it starts
                if server.poll() is not None:
                    raise
                time.sleep(0.1)
    finally:
        server.terminate()
        server.wait()


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, serve, ask; the server's answers beside the network's own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    options = parser.parse_args(argv)

    net = trained(options.epochs)
    x, _ = data.iris()
    rows = x[::50].tolist()
    with tempfile.TemporaryDirectory() as folder:
        dl4py.save(net, f"{folder}/iris.zip", allow_difference=True)
        answers = served(f"{folder}/iris.zip", rows)
    for row, answer in zip(rows, answers, strict=True):
        best = max(range(3), key=answer.__getitem__)
        print(f"{row}: {KINDS[best]} ({answer[best]:.2f})")
    return {"served": answers, "here": net.predict(x[::50]).tolist()}


if __name__ == "__main__":
    main()
