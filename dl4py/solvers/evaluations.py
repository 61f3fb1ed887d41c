"""The evaluations of one closure inside one step: all of the same function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from dl4py.solvers.observation import Replay, Watch

if TYPE_CHECKING:
    from dl4py.solvers.base import Solver


class Runs:
    """Calls a closure with equal random numbers and statistics every time.

    Args:
        solver: whose ``trials`` stand around every run but the first.
        closure: what is called.
        devices: where it may draw random numbers.
        slices: how often it is called for one run; if more than once, with 0, 1, ….
        counts: whether what the first run draws and counts remains; otherwise nothing
            of any run does.

    Attributes:
        graph: whether it differentiates by itself, so that even its value needs a
            graph.
        whole: whether it calls ``backward(create_graph=True)``.
    """

    def __init__(
        self,
        solver: Solver,
        closure: Callable[..., Any],
        devices: Iterable[torch.device],
        slices: int = 1,
        counts: bool = True,
    ) -> None:
        self.solver = solver
        self.closure = closure
        self.slices = slices
        self.counts = counts
        self.graph = self.whole = False
        self.started = False
        self._replay = Replay(devices)

    def __call__(self, make: Callable[[], Watch]) -> Iterator[tuple[Watch, Any]]:
        """One run, slice by slice: the watch that stood around it, what it returned."""
        first = not self.started
        if not first:
            self._replay.rewind()
        for i in range(self.slices):
            watch = make()
            watch.graph = watch.graph or self.graph
            watch.replay = self._replay if first else None
            graph = watch.differentiate or watch.graph
            trial = self._trial() if self.started or not self.counts else None
            keeps = not watch.differentiate
            self.solver._keep_gradients = keeps
            try:
                with (
                    trial or contextlib.nullcontext(),
                    torch.set_grad_enabled(graph),
                    watch,
                ):
                    returned = self.closure(*((i,) if self.slices > 1 else ()))
            finally:
                self.solver._keep_gradients = False
            if first:
                self.graph = self.graph or watch.graph
                self.whole = self.whole or watch.whole
            yield watch, returned
        if first:
            self._replay.mark()
            self.started = True

    def finish(self) -> None:
        """Leave random numbers and statistics as after the first run, or before it."""
        if self.counts:
            self._replay.finish()
        elif self.started:
            self._replay.rewind()

    @contextlib.contextmanager
    def _trial(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for context in self.solver.trials:
                stack.enter_context(context())
            self.solver.is_trial = True
            try:
                yield
            finally:
                self.solver.is_trial = False
