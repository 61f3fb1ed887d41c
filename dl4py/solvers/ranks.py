"""The ranks that solve one problem together: they take means, and fail together."""

from __future__ import annotations

import contextlib
import datetime
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = datetime.timedelta(seconds=10)  # of one that failed, and wants to go
_MEETINGS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # of each group


class AnotherRankFailed(RuntimeError):
    """What is raised by a rank that did nothing wrong."""


class Ranks:
    """The ranks of a process group during one step.

    They meet before ``backward()`` and before every exchange, over a group of their
    own, so that what others send, such as DistributedDataParallel's buckets, is never
    mixed up with it. A rank that failed says so at its next meeting and waits for
    nobody; all others raise there.

    Args:
        group: the process group; ``None``: all ranks.
        device: where the problem lives.
        name: whose step it is, for a message.

    Attributes:
        count: how many there are.

    >>> ranks = Ranks(None, torch.device("cpu"), "LBFGS")
    >>> ranks.count, ranks.mean(torch.tensor([2.0]))
    (1, tensor([2.]))
    """

    def __init__(self, group: Any, device: torch.device, name: str) -> None:
        self.group = group
        self.name = name
        self.count = 1
        self._meeting: Any = None
        if dist.is_available() and dist.is_initialized():
            self.count = dist.get_world_size(group)
            if self.count > 1:
                self._meeting = _meeting(group or dist.group.WORLD, device)

    def mean(self, t: Tensor) -> Tensor:
        """The mean over all ranks; ``t`` may be overwritten."""
        if self.count > 1:
            self.meet()
            dist.all_reduce(t, group=self.group)
            t /= self.count
        return t

    def meet(self) -> None:
        """Wait for the others; raise if one of them failed."""
        if self._meeting is None:
            return
        failed = torch.zeros((), dtype=torch.int64)
        try:
            dist.all_reduce(failed, op=dist.ReduceOp.MAX, group=self._meeting)
        except RuntimeError as error:  # it failed long ago, or its process ended
            raise self._another("another rank") from error
        if failed:
            raise self._another(f"rank {int(failed) - 1}")

    def fail(self, error: BaseException) -> None:
        """Tell the others, without waiting for them."""
        if self._meeting is None or isinstance(error, AnotherRankFailed):
            return
        options: Any = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.MAX
        options.timeout = PATIENCE
        options.asyncOp = True
        with contextlib.suppress(RuntimeError):  # the others are gone
            self._meeting.allreduce([torch.tensor(dist.get_rank() + 1)], options)

    def _another(self, who: str) -> AnotherRankFailed:
        return AnotherRankFailed(
            f"{self.name}.step(closure): {who} failed, whose own error says why; "
            "parameters are what they were before the step"
        )


def _meeting(group: Any, device: torch.device) -> Any:
    """The group over which the ranks of ``group`` meet, made once."""
    backend = dist.get_backend(group)
    if not dist.is_gloo_available() or backend in ("mpi", "fake"):
        return None
    if group not in _MEETINGS:
        try:  # as patient as the group itself
            patience = group._get_backend(device).options._timeout
        except (AttributeError, RuntimeError):
            patience = None
        _MEETINGS[group] = dist.new_group(
            dist.get_process_group_ranks(group),
            timeout=patience,
            backend="gloo",
            use_local_synchronization=True,
        )
    return _MEETINGS[group]
