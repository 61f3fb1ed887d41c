"""Where a model is run: in a thread of this process, or in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from dl4py.serving.model import Model, answers, open_model
from dl4py.serving.spec import Array, Arrays, Refused, Spec

START = 600.0  # seconds in which a worker must have its model


class Died(Exception):
    """A worker ended, or had to be ended, before it answered."""


class Runner(Protocol):
    """What has a model open. Its methods block; one thread calls them."""

    def start(self) -> Spec:
        """Open the model.

        Raises:
            ValueError: where it cannot be opened.
        """

    def answers(self, requests: Sequence[Arrays]) -> list[dict[str, Array] | Refused]:
        """One answer for each request.

        Raises:
            Died: where there is none; ``start`` makes a new worker.
        """

    def stop(self) -> None:
        """End it; whatever it was doing is lost."""


class Here:
    """A model in this process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.model: Model | None = None

    def start(self) -> Spec:
        self.model = open_model(self.path)
        return self.model.spec

    def answers(self, requests: Sequence[Arrays]) -> list[dict[str, Array] | Refused]:
        assert self.model is not None
        return answers(self.model, requests)

    def stop(self) -> None:
        self.model = None


class Worker:
    """A model in a process of its own.

    Args:
        path: of the model file.
        threads: of torch's in the process; 0: as many as torch takes by itself.
        patience: seconds after which a worker that does not answer is ended.
    """

    def __init__(self, path: str, threads: int, patience: float) -> None:
        self.path, self.threads, self.patience = path, threads, patience
        self.process: subprocess.Popen[bytes] | None = None
        self.line: Connection | None = None

    def start(self) -> Spec:
        self.stop()
        ours, theirs = socket.socketpair()
        code = f"from dl4py.serving.worker import main; main({theirs.fileno()})"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # what this process can import the worker can
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
            )
        self.line = Connection(ours.detach())
        try:
            found = self._asked((self.path, self.threads), START)
        except Died as error:
            raise ValueError(f"{os.path.basename(self.path)}: {error}") from None
        if isinstance(found, str):
            self.stop()
            raise ValueError(found)
        assert isinstance(found, Spec)
        return found

    def answers(self, requests: Sequence[Arrays]) -> list[dict[str, Array] | Refused]:
        found = self._asked(list(requests), self.patience)
        assert isinstance(found, list)
        return found

    def _asked(self, what: Any, seconds: float) -> Any:
        if self.line is None:
            raise Died("its worker has ended")
        try:
            self.line.send(what)
            if self.line.poll(seconds):
                return self.line.recv()
            why = f"its worker did not answer within {seconds:g} s"
        except (OSError, EOFError):
            why = "its worker has ended"
        self.stop()
        raise Died(why)

    def stop(self) -> None:
        if self.line is not None:
            self.line.close()  # upon which it ends
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
            self.process.kill()
            self.process.wait()
        self.line = self.process = None


def main(number: int) -> None:
    """What a worker's process does: it answers on a socket until that is closed."""
    for name in (signal.SIGINT, signal.SIGTERM):  # the server's, who then lets it go
        signal.signal(name, signal.SIG_IGN)
    line = Connection(number)
    with contextlib.suppress(EOFError, OSError):
        path, threads = line.recv()
        if threads:
            torch.set_num_threads(threads)
        try:
            model = open_model(path)
        except Exception as error:
            line.send(" ".join(str(error).split()) or type(error).__name__)
            return
        line.send(model.spec)
        while True:
            line.send(answers(model, line.recv()))
