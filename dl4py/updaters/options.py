"""Which options an optimizer takes, as arguments and in a parameter group.

torch keeps whatever a group holds and reads what it knows, so that an option of another
optimizer would do nothing, unnoticed. Here a word of some optimizer is refused by those
that do not know it; any other key is its user's own and stays.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from dl4py.registry import UPDATERS, camel, parameters, suggest

# torch's and Keras's word → DL4J's
TRANSLATIONS: dict[str, tuple[str, ...]] = {
    "betas": ("beta1", "beta2"),
    "eps": ("epsilon",),
    "alpha": ("rms_decay",),
    "momentum": ("beta1",),
    "weight_decay": ("l2",),  # of solvers; every updater has it by torch's name
    "learning_rate": ("lr",),
    "learningRate": ("lr",),
}
WAYS = {
    "foreach": "leave it out: a step is one pass over all parameters anyway",
    "fused": "leave it out: a step is one pass over all parameters anyway",
    "differentiable": "leave it out: autograd does not record a step",
    "l2": "add the penalty to the loss; weight_decay=... is the decoupled decay",
}


@functools.cache
def _of_torch() -> frozenset[str]:
    """What some optimizer of torch takes."""
    kinds = [c for c in vars(torch.optim).values() if inspect.isclass(c)]
    optimizers = [c for c in kinds if issubclass(c, torch.optim.Optimizer)]
    return frozenset(n for c in optimizers for n in parameters(c))


def _takers(words: Collection[str]) -> Iterator[str]:
    """The registered optimizers that take one of ``words``."""
    for key in UPDATERS:
        if not parameters(UPDATERS[key]).keys().isdisjoint(words):
            yield getattr(UPDATERS[key], "__name__", key)


def _is_word(name: str) -> bool:
    """Whether some optimizer has an option of this name, a number if it is of dl4py."""
    if name == "dl4j_exact" or name in TRANSLATIONS or name in _of_torch():
        return True
    ours = [(n, d) for key in UPDATERS for n, d in parameters(UPDATERS[key]).items()]
    return any(name in (n, camel(n)) for n, d in ours if isinstance(d, (int, float)))


def _is_off(value: Any) -> bool:
    return value is None or value is False


def foreign(given: Mapping[str, Any], own: Collection[str]) -> list[str]:
    """The keys of a group that are options of other optimizers only.

    A switch that is off (``foreach=None``, ``amsgrad=False``) asks for nothing.

    >>> foreign({"lr": 0.1, "eps": 1e-8, "fused": None, "name": "head"}, {"lr"})
    ['eps']
    """
    odd = [k for k, v in given.items() if k not in own and not _is_off(v)]
    return [k for k in odd if _is_word(k)]


def refuse(cls: type, given: Mapping[str, Any], own: Sequence[str]) -> None:
    """Raise for what is left over of the arguments of an optimizer's constructor."""
    for name, value in given.items():
        if not (_is_off(value) and _is_word(name)):
            raise _unknown(cls, name, own)


def refuse_in_group(cls: type, group: Mapping[str, Any], own: Sequence[str]) -> None:
    """Raise for an option of a parameter group that its optimizer does not have."""
    for name in group:
        whole = name in parameters(cls) and name not in own
        if whole or foreign({name: group[name]}, own):
            raise _unknown(cls, name, own, in_group=True)


def _unknown(
    cls: type, name: str, own: Sequence[str], *, in_group: bool = False
) -> TypeError:
    """The error that says what to write in the place of option ``name``."""
    ours, what = TRANSLATIONS.get(name, ()), "no such option"
    near = difflib.get_close_matches(name, list(UPDATERS), n=1, cutoff=0.85)
    relative = getattr(UPDATERS[near[0]], "__name__", near[0]) if near else None
    if in_group and name in parameters(cls):
        what, way = "one for all groups", f"{cls.__name__}(params, {name}=...)"
    elif ours and set(ours) <= set(own):
        way = "write " + ", ".join(f"{n}=..." for n in ours)
    elif name in WAYS:
        way = WAYS[name]
    elif takers := list(_takers({name})):
        way = f"{name} is of {', '.join(takers)}"
    elif takers := list(_takers(ours)):
        are = "is" if len(ours) == 1 else "are"
        way = f"{' and '.join(ours)} {are} of {', '.join(takers)}"
    elif relative == cls.__name__:
        way = "leave it out: so it is"
    elif relative is not None:
        way = f"{relative} is an updater of its own"
    else:
        way = suggest(name, set(own))
    where = f"{cls.__name__}({name}=...)" + " in a parameter group" * in_group
    reason = f"{what}; {way}" if way else what
    return TypeError(f"{where}: {reason} (it takes {', '.join(own)})")
