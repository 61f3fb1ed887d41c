"""What a solver sees of an ordinary closure while it runs, and what it replays."""

from __future__ import annotations

import functools
import random
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dl4py.ops.register import set_grad_enabled

_GRAD: Any = Tensor.grad  # a descriptor, whatever stubs say
_SPECIAL: dict[Any, str] = {
    Tensor.backward: "backward",
    torch.autograd.backward: "backward",
    torch.autograd.grad: "grad",
    set_grad_enabled: "mode",
    _GRAD.__get__: "touch",
    _GRAD.__set__: "touch",
}
_NORMS: dict[Any, tuple[int, int]] = {  # function → places of its running statistics
    F.batch_norm: (1, 2),
    F.instance_norm: (1, 2),
    torch.batch_norm: (3, 4),
    torch.instance_norm: (3, 4),
    torch.batch_norm_gather_stats_with_counts: (3, 4),
}
_ASSIGNING = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"}


class Watch(TorchFunctionMode):
    """Stands around one call of a closure and sees every function of torch in it.

    Args:
        differentiate: whether ``backward()`` is carried out. If not, it does nothing,
            and ``torch.enable_grad()`` in the closure has no effect either unless
            ``graph`` is true.
        graph: whether the closure differentiates by itself, so that even its value
            needs a graph.
        replay: where tensors that the closure changes are noted; only at the first
            call of a step.
        before: called before the first ``backward()``.
        after: called after every ``backward()``, when gradients are as the loss has
            them, before anything clips them.

    Attributes:
        total: Σ of what ``backward()`` was called on, detached; None: never called.
        graph: whether ``torch.autograd.grad`` was seen.
        whole: whether ``backward(create_graph=True)`` was seen: no value without it.
        touched: whether any ``.grad`` was read or set since the last ``backward()``.
    """

    def __init__(
        self,
        differentiate: bool = True,
        graph: bool = False,
        replay: Replay | None = None,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.differentiate = differentiate
        self.graph = graph
        self.replay = replay
        self.before = before
        self.after = after
        self.total: Tensor | None = None
        self.whole = False
        self.touched = False

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        special = _SPECIAL.get(func)
        if special == "backward":
            return self.backward(func, args, kwargs)
        if special == "touch":
            self.touched = True
        elif special == "grad":
            self.graph = True
        elif special == "mode" and not (self.differentiate or self.graph):
            return None
        if self.replay is not None:
            for t in changed(func, args, kwargs):
                self.replay.touch(t)
        return func(*args, **kwargs)

    def backward(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """What happens in place of ``backward()``; add to it to keep the graph."""
        roots, weights = args[0], args[1] if len(args) > 1 else None
        weights = kwargs.get("gradient", kwargs.get("grad_tensors", weights))
        self.whole = self.whole or bool(kwargs.get("create_graph"))
        if self.total is None and self.before is not None:
            self.before()
        for root, weight in weighted(roots, weights):
            if root.numel() != 1 and weight is None:
                raise ValueError(
                    "step(closure): backward() needs a loss that is one number, got "
                    f"shape {tuple(root.shape)}; return its mean or sum"
                )
            value = root.detach() if weight is None else (root * weight).detach()
            value = value.sum() if value.dim() else value
            self.total = value if self.total is None else self.total + value
        if self.differentiate:
            func(*args, **kwargs)
            self.touched = False
            if self.after is not None:
                self.after()


def weighted(roots: Any, weights: Any) -> list[tuple[Tensor, Tensor | None]]:
    """What ``backward()`` was called on, each with its weight."""
    if isinstance(roots, Tensor):
        return [(roots, weights[0] if isinstance(weights, (list, tuple)) else weights)]
    given = weights if isinstance(weights, (list, tuple)) else [weights] * len(roots)
    return list(zip(roots, given, strict=True))


def changed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """What a function of torch overwrites, as far as it belongs to no graph.

    Running statistics of a normalisation, and tensors changed in place such as
    ``num_batches_tracked`` or the vectors of a spectral norm.

    >>> x = torch.zeros(2)
    >>> changed(Tensor.add_, (x, 1), {})[0] is x, changed(Tensor.add, (x, 1), {})
    (True, [])
    """
    found: list[Any] = []
    places = _NORMS.get(func)
    if places is not None:
        names = ("running_mean", "running_var")
        for place, name in zip(places, names, strict=True):
            found.append(args[place] if len(args) > place else kwargs.get(name))
    else:
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__")
        if args and (in_place or name in _ASSIGNING):
            found.append(args[0])
        if "out" in kwargs:
            found.append(kwargs["out"])
    return [t for t in found if isinstance(t, Tensor) and not t.requires_grad]


class Replay:
    """Random numbers and statistics: equal at every evaluation inside one step.

    The state after the first evaluation is what remains, however many follow.

    Args:
        devices: where random numbers may be drawn.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._sources = _sources(devices)
        self._start = [source.get() for source in self._sources]
        self._end: list[Any] | None = None
        self._touched: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._after: list[tuple[Tensor, Tensor, Tensor]] = []

    def touch(self, t: Tensor) -> None:
        """Note a tensor that is about to change during the first evaluation."""
        known = self._touched.get(id(t))
        if known is None or known[0]() is not t:
            # weak, because most of them live no longer than the forward pass
            self._touched[id(t)] = (weakref.ref(t), t.clone())

    def mark(self) -> None:
        """The first evaluation is over; what it did not draw from is left alone."""
        drawn = [
            (source, start, end)
            for source, start in zip(self._sources, self._start, strict=True)
            if not _equal(start, end := source.get())
        ]
        self._sources = [source for source, _, _ in drawn]
        self._start = [start for _, start, _ in drawn]
        self._end = [end for _, _, end in drawn]
        for ref, before in self._touched.values():
            t = ref()
            if t is not None:
                self._after.append((t, before, t.clone()))
        self._touched = {}

    def rewind(self) -> None:
        """Back to where the first evaluation began."""
        for source, start in zip(self._sources, self._start, strict=True):
            source.set(start)
        for t, before, _ in self._after:
            t.copy_(before)

    def finish(self) -> None:
        """To where the first evaluation ended."""
        for source, end in zip(self._sources, self._end or (), strict=False):
            source.set(end)
        for t, _, after in self._after:
            t.copy_(after)


@dataclass(frozen=True)
class _Source:
    """Where random numbers come from."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]


def _sources(devices: Iterable[torch.device]) -> list[_Source]:
    found = [
        _Source(torch.get_rng_state, torch.set_rng_state),
        _Source(random.getstate, random.setstate),
    ]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found.append(_Source(numpy.random.get_state, numpy.random.set_state))
    for device in dict.fromkeys(devices):
        module: Any = getattr(torch, device.type, None)
        if device.type == "mps":
            found.append(_Source(module.get_rng_state, module.set_rng_state))
        elif hasattr(module, "get_rng_state"):
            get = functools.partial(module.get_rng_state, device)
            put = functools.partial(module.set_rng_state, device=device)
            found.append(_Source(get, put))
    return found


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if hasattr(a[1], "tobytes"):  # NumPy's
        return bool(a[2:] == b[2:] and a[1].tobytes() == b[1].tobytes())
    return bool(a == b)
