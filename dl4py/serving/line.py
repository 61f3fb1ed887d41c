"""Requests that wait for a model, and what takes them to it."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dl4py.serving.metrics import Counts
from dl4py.serving.model import rows
from dl4py.serving.spec import Array, Arrays, Refused, Spec
from dl4py.serving.worker import Died, Runner

TRIES = 3  # a request that has ended so many workers is answered with 500


class Job:
    """A request that was accepted: it is answered, whatever happens."""

    def __init__(self, given: Arrays) -> None:
        self.given = given
        self.rows = rows(given)
        self.tries = 0
        # arrays that can be joined along their rows
        self.key = tuple((a.dtype.char, a.shape[1:]) for a in given.values())
        self.answer: asyncio.Future[dict[str, Array]] = (
            asyncio.get_running_loop().create_future()
        )

    def end(self, found: dict[str, Array] | Refused) -> None:
        """Answer it, unless whoever asked has gone."""
        if self.answer.done():
            return
        if isinstance(found, Refused):
            self.answer.set_exception(found)
        else:
            self.answer.set_result(found)


class Line:
    """One version of a model: its runners, and the requests before them.

    A runner that is free takes what waits, up to ``batch`` rows of equal shape; nobody
    waits for company. Where a worker dies, what it had goes back to the head of the
    line, each request alone from then on, and a new worker takes its place.

    Args:
        runners: where the model is run.
        batch: rows that go through the model at once; 1: each request alone.
        counts: what is counted on the way.
    """

    def __init__(self, runners: Sequence[Runner], batch: int, counts: Counts) -> None:
        self.runners, self.batch, self.counts = list(runners), batch, counts
        self.threads = [ThreadPoolExecutor(1) for _ in self.runners]
        self.waiting: deque[Job] = deque()
        self.open: set[Job] = set()  # accepted and not yet answered
        self.some = asyncio.Event()
        self.alive = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.spec: Spec

    async def start(self) -> None:
        """Open the model in every runner.

        Raises:
            ValueError: where one of them cannot; then all are ended.
        """
        calls = [self._in(i, runner.start) for i, runner in enumerate(self.runners)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        for result in found:
            if isinstance(result, BaseException):
                await self.stop()
                raise result
            self.spec = result
        self.batch = 1 if self.spec.rows is not None else self.batch
        self.alive = len(self.runners)
        self.tasks = [
            asyncio.create_task(self._run(i)) for i in range(len(self.runners))
        ]

    def put(self, given: Arrays) -> Job:
        """Accept a request."""
        job = Job(given)
        self.open.add(job)
        self.waiting.append(job)
        self.some.set()
        job.answer.add_done_callback(lambda _: self.open.discard(job))
        return job

    async def drained(self) -> None:
        """Return when everything accepted is answered."""
        while self.open:
            await asyncio.wait([job.answer for job in self.open])

    async def stop(self) -> None:
        """End the runners."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for job in [*self.open]:
            job.end(Refused(503, "the server was stopped before it could answer"))
        await asyncio.gather(*(self._in(i, r.stop) for i, r in enumerate(self.runners)))
        for thread in self.threads:
            thread.shutdown(wait=False)

    def _in(self, i: int, call: Any, *given: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self.threads[i], call, *given)

    async def _run(self, i: int) -> None:
        while True:
            jobs = await self._taken()
            try:
                given = [job.given for job in jobs]
                found = await self._in(i, self.runners[i].answers, given)
            except Died as error:
                self._back(jobs, str(error))
                await self._replaced(i, str(error))
                continue
            except (
                Exception
            ) as error:  # ours: what was accepted is answered all the same
                found = [Refused(500, f"{type(error).__name__}: {error}")] * len(jobs)
            self.counts.batches.add()
            self.counts.rows.add(sum(job.rows for job in jobs))
            for job, answer in zip(jobs, found, strict=True):
                job.end(answer)

    async def _taken(self) -> list[Job]:
        """The first that waits, and those behind it that go with it."""
        while not self.waiting:
            self.some.clear()
            await self.some.wait()
        first = self.waiting.popleft()
        jobs, count, others = [first], first.rows, deque[Job]()
        while self.waiting and count < self.batch and not first.tries:
            job = self.waiting.popleft()
            if (
                job.key == first.key
                and not job.tries
                and count + job.rows <= self.batch
            ):
                jobs.append(job)
                count += job.rows
            else:
                others.append(job)
        self.waiting.extendleft(reversed(others))
        return jobs

    def _back(self, jobs: Sequence[Job], why: str) -> None:
        for job in reversed(jobs):
            job.tries += 1
            if job.tries < TRIES:
                self.waiting.appendleft(job)
                self.some.set()
            else:
                job.end(Refused(500, f"{TRIES} workers ended on this request: {why}"))

    async def _replaced(self, i: int, why: str) -> None:
        self.alive -= 1
        self.counts.restarts.add()
        print(f"dl4py serve: {why}; a new one is started", file=sys.stderr, flush=True)
        wait = 0.1
        while True:
            try:
                await self._in(i, self.runners[i].start)
                break
            except Exception as error:
                print(f"dl4py serve: {error}; again in {wait:g} s", file=sys.stderr)
                await asyncio.sleep(wait)
                wait = min(2 * wait, 10.0)
        self.alive += 1
