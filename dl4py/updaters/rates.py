"""Who writes the numbers of a parameter group: schedules, schedulers, or their user.

A group holds the numbers of the next step, as under a scheduler of torch. What was last
written there by schedules is kept under ``"written"``, so that a number that someone
else has put in its place is seen, and holds.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

Group = dict[str, Any]
WRITTEN = "written"

_told: weakref.WeakSet[Optimizer] = weakref.WeakSet()


def follow(
    group: Group, schedules: Mapping[str, Any], at: Callable[[str, Any], float]
) -> list[str]:
    """Write what schedules say now; returns the names that someone else drives.

    >>> group = {"lr": 0.1, "written": {}}
    >>> follow(group, {"lr": lambda t: 0.1 / t}, lambda name, schedule: schedule(2))
    []
    >>> group["lr"] = 0.7
    >>> follow(group, {"lr": lambda t: 0.1 / t}, lambda name, schedule: schedule(4))
    ['lr']
    >>> group
    {'lr': 0.7, 'written': {'lr': 0.05}}
    """
    written, driven = group.setdefault(WRITTEN, {}), []
    for name, schedule in schedules.items():
        if name in written and bool(group[name] != written[name]):
            # torch.distributed.checkpoint steps at rate 0 to make states
            driven += [name] if group[name] else []
        else:
            group[name] = written[name] = at(name, schedule)
    return driven


def pair_betas(group: Group) -> None:
    """Make torch's ``betas`` and (beta1, beta2) agree: what was written last holds.

    So schedulers that cycle a momentum find it where torch's Adam has it.
    """
    if "beta1" not in group or "beta2" not in group:
        return
    written = group.setdefault(WRITTEN, {})
    last = written.get("betas")
    if group.get("betas", last) != last:
        group["beta1"], group["beta2"] = group["betas"]
    group["betas"] = written["betas"] = (group["beta1"], group["beta2"])


def tell(optimizer: Optimizer, names: list[str]) -> None:
    """Warn once that someone else has taken over from a schedule."""
    if names and optimizer not in _told:
        _told.add(optimizer)
        what = " and ".join(dict.fromkeys(names))
        warnings.warn(
            f"{type(optimizer).__name__}: {what} of a parameter group was changed from "
            "outside, by a scheduler or by hand, and holds; the dl4py schedule given "
            f"for {what} rests. Use one of the two",
            stacklevel=3,
        )
