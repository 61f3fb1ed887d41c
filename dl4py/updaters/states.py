"""Saved states: whose they are, and hooks in the order that torch promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from dl4py.ops.steps import state_dtype
from dl4py.registry import UPDATERS
from dl4py.updaters import options, rates

State = dict[str, Any]
MARK = "optimizer"  # the key of a group that holds the name of its class


def load(
    optimizer: Optimizer,
    by: Callable[[State], None],
    state_dict: Mapping[str, Any],
    checked: Callable[[State], State],
    restored: Callable[[State], None],
) -> None:
    """Load by torch: pre-hooks, ``checked``, torch, ``restored``, post-hooks.

    Args:
        optimizer: whose hooks run.
        by: torch's own ``load_state_dict``.
        state_dict: what was given.
        checked: raises, or returns what torch shall load.
        restored: told of that, to put right what torch has done.
    """
    seen: list[State] = []

    def before(_: Optimizer, given: State) -> State:
        seen.append(checked(given))
        return seen[0]

    handles = [
        optimizer.register_load_state_dict_pre_hook(before),
        optimizer.register_load_state_dict_post_hook(
            lambda _: restored(seen[0]), prepend=True
        ),
    ]
    try:
        by(dict(state_dict))
    finally:
        for handle in handles:
            handle.remove()


def save(
    optimizer: Optimizer, by: Callable[[], State], completed: Callable[[State], State]
) -> State:
    """Save by torch: pre-hooks, torch, ``completed``, post-hooks."""
    handle = optimizer.register_state_dict_post_hook(
        lambda _, state: completed(state), prepend=True
    )
    try:
        return by()
    finally:
        handle.remove()


def refuse_others(groups: Sequence[State], names: Iterable[str]) -> None:
    """Raise if a group was saved by another updater; old ones do not say.

    Args:
        groups: as saved.
        names: of the updaters that they are loaded into.
    """
    for i, (group, name) in enumerate(zip(groups, names, strict=False)):
        maker = group.get(MARK, name)
        if maker != name:
            raise ValueError(
                f"state_dict: param_groups[{i}] was saved by {maker}, not by {name}; "
                f"construct {maker}, or start {name} without a state"
            )


def completed(optimizer: Optimizer, state_dict: State, needed: set[str]) -> State:
    """``state_dict`` of an updater with what old ones lack, or one error.

    Args:
        optimizer: the updater.
        state_dict: what another of its class saved.
        needed: keys that its groups have always had.
    """
    name, groups = type(optimizer).__name__, []
    saved = state_dict["param_groups"]
    refuse_others(saved, itertools.repeat(name))
    for i, (theirs, ours) in enumerate(
        zip(saved, optimizer.param_groups, strict=False)
    ):
        where = f"state_dict: param_groups[{i}]"
        if missing := sorted(needed - theirs.keys()):
            raise ValueError(
                f"{where} lacks {', '.join(missing)}: it was not saved by {name}"
            )
        if odd := options.foreign(theirs, optimizer.defaults):
            raise ValueError(f"{where} has {', '.join(odd)}: {name} did not save it")
        scheduled = theirs.get("schedules", ())  # flat files lose it where it is empty
        if lost := sorted(set(scheduled) - set(ours["schedules"])):
            raise ValueError(
                f"{where} was saved with a schedule for {', '.join(lost)}: "
                f"construct {name} with one"
            )
        own = {key: ours[key] for key in optimizer.defaults if key != "betas"}
        groups.append({**own, rates.WRITTEN: {}, **theirs})
        rates.pair_betas(groups[-1])
    groups += saved[len(groups) :]  # torch refuses these
    return {**state_dict, "param_groups": groups}


def check_state(
    optimizer: Optimizer, state_dict: State, names: tuple[str, ...]
) -> None:
    """Raise unless every saved state has all ``names``, of its parameter's shape.

    Other keys are their user's own, unless another updater calls its state so: files
    that do not say whose they are can say it by that.
    """
    by = type(optimizer).__name__
    kinds = (getattr(UPDATERS[key], "state_names", ()) for key in UPDATERS)
    others = {name for kind in kinds for name in kind} - set(names)
    for i, p in _pairs(optimizer, state_dict):
        where, state = f"state_dict: state[{i!r}]", state_dict["state"].get(i) or {}
        if odd := sorted(others & state.keys()):
            raise ValueError(f"{where} has {', '.join(odd)}: it was not saved by {by}")
        for name in names if state else ():
            value = state.get(name)
            if not isinstance(value, Tensor):
                raise ValueError(f"{where} lacks {name!r}: it was not saved by {by}")
            if value.shape != p.shape:
                raise ValueError(
                    f"{where}[{name!r}] has shape {tuple(value.shape)}, its parameter "
                    f"{tuple(p.shape)}: it was saved for another model"
                )


def _pairs(optimizer: Optimizer, state_dict: State) -> Iterator[tuple[Any, Tensor]]:
    """(key of a saved state, its parameter), in the order of the groups."""
    theirs = (i for group in state_dict["param_groups"] for i in group["params"])
    ours = (p for group in optimizer.param_groups for p in group["params"])
    return zip(theirs, ours, strict=False)


def restore_precision(optimizer: Optimizer, state_dict: State) -> None:
    """Load the state of half types again: torch rounds it to the parameter's dtype."""
    for i, p in _pairs(optimizer, state_dict):
        if p.dtype != state_dtype(p):
            for name, value in state_dict["state"].get(i, {}).items():
                if isinstance(value, Tensor):
                    wide = value.to(p.device, state_dtype(p), copy=True)
                    optimizer.state[p][name] = wide
