"""One name under which a model is served, whichever version of it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl4py.serving.line import Line
from dl4py.serving.metrics import Counts
from dl4py.serving.spec import Array, Arrays, Refused
from dl4py.serving.worker import Here, Runner, Worker

Stamp = tuple[int, int, int]


class Service:
    """A model by name.

    The file is copied before it is opened, so that all workers, those that replace
    others too, have the same model whatever becomes of the file; a reload takes a new
    copy.

    Args:
        name: its name.
        path: of the model file.
        folder: where copies are kept.
        workers: processes that run the model; 0: this one does.
        batch: rows that go through the model at once.
        queue: requests that may be accepted and not yet answered.
        patience: seconds after which a worker that does not answer is replaced.
        labels: names of the classes, for those who ask.
    """

    def __init__(
        self,
        name: str,
        path: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        workers: int = 1,
        batch: int = 32,
        queue: int = 256,
        patience: float = 60.0,
        labels: Sequence[str] = (),
    ) -> None:
        self.name, self.path, self.folder = name, Path(path), Path(folder)
        self.workers, self.batch, self.queue = workers, batch, queue
        self.patience, self.labels = patience, tuple(labels)
        self.counts = Counts()
        self.version = 0
        self.stamp: Stamp = (0, 0, 0)
        self.line: Line | None = None
        self.old: set[Line] = set()  # still answering what they accepted
        self.turn = asyncio.Lock()

    async def load(self) -> None:
        """Take the file as it is now; requests that were accepted get the old answers.

        Raises:
            OSError, ValueError: where it cannot be opened, or changes meanwhile. Then
                what was served before is served on.
        """
        async with self.turn:
            version = self.version + 1
            copy = self.folder / f"{self.name}-{version}" / self.path.name
            try:
                stamp = await asyncio.to_thread(_copied, self.path, copy)
                line = Line(self._runners(str(copy)), self.batch, self.counts)
                await line.start()
            except BaseException:
                shutil.rmtree(copy.parent, ignore_errors=True)
                raise
            before, self.line = self.line, line
            self.version, self.stamp = version, stamp
            if before is not None:
                self.counts.reloads.add()
                self.old.add(before)
                await before.drained()
                await before.stop()
                self.old.discard(before)
                shutil.rmtree(copy.parent.with_name(f"{self.name}-{version - 1}"))

    def _runners(self, path: str) -> list[Runner]:
        if not self.workers:
            return [Here(path)]
        # a core is left to this process; threads that share one wait for each other
        threads = max(1, (len(os.sched_getaffinity(0)) - 1) // self.workers)
        if "OMP_NUM_THREADS" in os.environ:
            threads = 0
        return [Worker(path, threads, self.patience) for _ in range(self.workers)]

    async def stop(self) -> None:
        """End what runs, once a reload has ended and what was accepted is answered."""
        async with self.turn:
            if self.line is not None:
                await self.line.drained()
                await self.line.stop()

    def check_room(self) -> None:
        """Refuse with 429 where no more requests are accepted."""
        if self.open >= self.queue:
            raise Refused(
                429,
                f"{self.open} requests wait for {self.name!r}, which is all that may "
                "(--queue); ask again in a second",
            )

    async def predict(self, given: Arrays) -> dict[str, Array]:
        """The model's outputs by name.

        Raises:
            Refused: where the request does not fit, or there is no room for it.
        """
        if self.line is None:
            raise Refused(503, f"{self.name!r} is not loaded")
        taken = self.line.spec.taken(given)
        self.check_room()
        return await self.line.put(taken).answer

    @property
    def open(self) -> int:
        """How many requests are accepted and not yet answered."""
        return sum(len(line.open) for line in (*self.old, self.line) if line)

    def gauges(self) -> dict[str, int]:
        """Numbers that go up and down."""
        line = self.line
        return {
            "waiting": len(line.waiting) if line else 0,
            "open": self.open,
            "queue": self.queue,
            "workers": line.alive if line else 0,
            "version": self.version,
        }

    def info(self) -> dict[str, Any]:
        """What is served, in plain types."""
        assert self.line is not None
        spec = self.line.spec
        try:
            changed = _stamp(self.path) != self.stamp
        except OSError:
            changed = True
        return {
            "file": self.path.name,
            "version": self.version,
            # the file is another one by now, which is served after a reload
            "changed": changed,
            "inputs": {
                name: {"shapes": [list(s) for s in into.shapes], "indices": into.whole}
                for name, into in spec.inputs.items()
            },
            "outputs": list(spec.outputs),
            "labels": list(self.labels or spec.labels) or None,
            "normalizer": spec.normalizer,
            "dtype": spec.dtype,
            "workers": self.workers,
            "batch": self.line.batch,
            "queue": self.queue,
        }


def _stamp(path: Path) -> Stamp:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _copied(path: Path, copy: Path) -> Stamp:
    """Copy a file that does not change meanwhile."""
    before = _stamp(path)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)
    if _stamp(path) != before:
        raise ValueError(
            f"{path.name}: it changed while it was read; write a new file beside it, "
            "rename it into place and reload"
        )
    return before
