"""One optimizer for a whole network: DL4J's order of a training iteration.

Lightning's automatic optimization takes one optimizer, so this one holds an updater for
every layer and kind of parameter. A step is

1. gradient normalisation, per layer, batch-norm statistics included
2. l1 and l2 into the gradient
3. the updater, with the present values of its schedules; weight decay beside it
4. iteration + 1
5. constraints

With a solver (``optimization_algo``) a
:class:`~dl4py.network.solving.Solution` takes the place of 1 to 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dl4py.config.network import SGD
from dl4py.network.solving import Solution
from dl4py.ops.steps import state_dtype
from dl4py.registry import UPDATERS, Named
from dl4py.solvers import Solver
from dl4py.updaters import Updater
from dl4py.updaters.base import restore_precision

if TYPE_CHECKING:
    from dl4py.layers.base import View
    from dl4py.network import Network, Node

SMALL = 1e-5  # DL4J's stand-in for a norm of 0


@dataclass
class Slot:
    """One parameter or statistic of one layer, and how it is updated."""

    node: Node
    view: View
    group: int | None  # its place in param_groups; None: a statistic
    penalties: tuple[Any, ...] = ()
    grad: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """The live tensor: moving a module to a device replaces its buffers."""
        tensor: Tensor = getattr(self.node.layer, self.view.tensor)
        return tensor


@dataclass
class Rule:
    """The updater of one parameter group: DL4J's, or any torch optimizer's."""

    updater: Any
    hyper: dict[str, Any] = field(default_factory=dict)
    inner: torch.optim.Optimizer | None = None


class NetworkOptimizer(torch.optim.Optimizer):
    """The optimizer of a network; ``net.configure_optimizer()`` makes one.

    Every parameter group is one layer × kind ("weight", "bias", "scale");
    ``group["name"]`` says which, and ``group["lr"]`` is the present learning rate. A
    rate that is not on a schedule may be changed there. The counters ``iteration`` and
    ``epoch`` are the network's, and are saved with the state.

    Args:
        network: the network; its configuration states updaters, penalties, gradient
            normalisation and constraints.

    Example:
        >>> from dl4py.config import NeuralNetConfiguration, Output
        >>> chain = NeuralNetConfiguration.builder().updater("adam", lr=0.01)
        >>> net = chain.layer(Output(n_in=4, n_out=3)).build().module()
        >>> [(g["name"], g["lr"]) for g in net.configure_optimizer().param_groups]
        [('layer0/weight', 0.01), ('layer0/bias', 0.01)]
    """

    def __init__(self, network: Network) -> None:
        self.conf = network.conf
        self.clock = network.clock
        self.dl4j_exact = network.dl4j_exact
        # DL4J's SGD goes downhill whatever ``minimize`` says
        self.uphill = not network.conf.minimize and not self.dl4j_exact
        self.slots: list[Slot] = []
        self.solution: Solution | None = None
        self.rules: list[Rule] = []
        groups: list[dict[str, Any]] = []
        places: dict[tuple[str, str], int] = {}
        for node, view in network.views():
            slot = Slot(node, view, None, penalties(node.conf, view))
            self.slots.append(slot)
            if view.kind == "statistic":
                continue
            kind = "weight" if view.kind == "gain" else view.kind
            place = places.setdefault((node.name, kind), len(groups))
            if place == len(groups):
                rule = _rule(node.conf, view)
                self.rules.append(rule)
                numbers = {k: self.clock.at(v) for k, v in rule.hyper.items()}
                groups.append({"params": [], "name": f"{node.name}/{kind}", **numbers})
            slot.group = place
            groups[place]["params"].append(slot.tensor)
        for rule, group in zip(self.rules, groups, strict=True):
            if not _is_ours(rule.updater):
                rule.inner = rule.updater(group["params"])
                group["lr"] = rule.inner.param_groups[0].get("lr", 1.0)
        super().__init__(groups or [{"params": [torch.zeros(0)], "name": "none"}], {})
        if self.conf.optimization_algo != SGD:
            self.solution = Solution(self)

    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """One training iteration on the gradients of the mean loss.

        With a solver the closure is needed, and may be called several times; its loss
        is that of ``Network.objective``.
        """
        self._refuse_what_is_to_come()
        if self.solution is not None:
            score: float = self.solution.step(closure)
            return score
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._collect()
            for slots in self._by_layer():
                self._normalise(slots)
            self._penalise()
            self._update()
            self._advance_statistics()
            self.clock.iteration += 1
            self._constrain()
            for slot in self.slots:
                slot.grad = None
        return loss

    @property
    def trials(self) -> list[Any]:
        """The solver's context managers around trial evaluations."""
        return self.solution.solver.trials if self.solution is not None else []

    @property
    def is_trial(self) -> bool:
        """Whether a trial evaluation of a solver is going on."""
        return self.solution is not None and self.solution.is_trial

    def _refuse_what_is_to_come(self) -> None:
        if self.conf.backprop_type != "Standard":
            raise NotImplementedError(
                f"backprop_type {self.conf.backprop_type}: truncated back-propagation "
                "through time is not built yet; use Standard"
            )

    def _collect(self) -> None:
        for slot in self.slots:
            if slot.group is None:
                slot.grad = slot.node.layer.pending.get(slot.view.tensor)
            else:
                slot.grad = slot.tensor.grad

    def updates(self) -> Tensor:
        """What a step would subtract, flat; updaters advance, parameters do not.

        Statistics stand with their pseudo-gradients, in the order of ``slots``.
        """
        self._collect()
        for slots in self._by_layer():
            self._normalise(slots)
        self._penalise()
        kept = [slot.tensor.clone() for slot in self.slots]
        for slot in self.slots:
            if slot.group is not None:
                slot.tensor.zero_()  # then nothing of u is rounded off
        self._update()
        parts = []
        for slot, before in zip(self.slots, kept, strict=True):
            if slot.group is None:
                u = torch.zeros_like(before) if slot.grad is None else slot.grad
            else:
                u = -slot.tensor
                slot.tensor.copy_(before)
                if slot.grad is not None:
                    rate = self.param_groups[slot.group].get("lr", 1.0)
                    u = u + self._decay_factor(slot, rate) * before
            parts.append(u.reshape(-1))
        return torch.cat(parts) if parts else torch.zeros(0)

    def finish(self, statistics: bool = True) -> None:
        """End an iteration of a solver: statistics, iteration + 1, constraints."""
        self._collect()
        if statistics:
            self._advance_statistics()
        for slot in self.slots:
            slot.node.layer.pending.pop(slot.view.tensor, None)
            slot.grad = None
        self.clock.iteration += 1
        self._constrain()

    def _by_layer(self) -> Iterator[list[Slot]]:
        layers: dict[str, list[Slot]] = {}
        for slot in self.slots:
            if slot.grad is not None:
                layers.setdefault(slot.node.name, []).append(slot)
        return iter(layers.values())

    def _normalise(self, slots: list[Slot]) -> None:
        conf = slots[0].node.conf
        mode = getattr(conf, "gradient_normalization", None) or "None"
        if mode == "None":
            return
        threshold = conf.gradient_normalization_threshold
        grads = [slot.grad for slot in slots if slot.grad is not None]
        for slot, grad in zip(slots, normalised(grads, mode, threshold), strict=True):
            slot.grad = grad

    def _penalise(self) -> None:
        for slot in self.slots:
            for r in slot.penalties:
                if r.before_updater and slot.grad is not None:
                    slot.grad = slot.grad + r.gradient(slot.tensor, self.clock)

    def _update(self) -> None:
        buckets: dict[Any, list[Slot]] = {}
        for slot in self.slots:
            if slot.group is None or slot.grad is None:
                continue
            rule, group = self.rules[slot.group], self.param_groups[slot.group]
            if rule.inner is not None:
                continue
            for name, value in rule.hyper.items():
                if callable(value):
                    group[name] = self.clock.at(value)
            hyper = tuple((name, group[name]) for name in rule.hyper)
            self._decay(slot, group.get("lr", 1.0) if "lr" in rule.hyper else 1.0)
            buckets.setdefault((rule.updater, hyper), []).append(slot)
        for (updater, hyper), slots in buckets.items():
            self._apply(updater, dict(hyper), slots)
        for place, rule in enumerate(self.rules):
            if rule.inner is not None:
                self._apply_torch(rule.inner, self.param_groups[place], place)

    def _decay(self, slot: Slot, rate: float) -> None:
        factor = self._decay_factor(slot, rate)
        if factor:
            slot.tensor.mul_(1 + factor if self.uphill else 1 - factor)

    def _decay_factor(self, slot: Slot, rate: float) -> float:
        return sum(
            self.clock.at(r.coeff) * (rate if r.apply_lr else 1.0)
            for r in slot.penalties
            if not r.before_updater
        )

    def _apply(self, updater: Any, hyper: dict[str, float], slots: list[Slot]) -> None:
        tensors = [slot.tensor for slot in slots]
        grads = [slot.grad for slot in slots if slot.grad is not None]
        states = [self._state_of(p, updater, hyper) for p in tensors]
        state = {n: [s[n] for s in states] for n in updater.state_names}
        before = [p.clone() for p in tensors] if self.uphill else None
        updater.apply_(
            tensors, grads, state, hyper, self.clock.iteration, self.dl4j_exact
        )
        if before is not None:  # uphill: p + u instead of p - u
            for p, old in zip(tensors, before, strict=True):
                p.copy_(2 * old - p)

    def _state_of(
        self, p: Tensor, updater: type[Updater], hyper: dict[str, float]
    ) -> dict[str, Tensor]:
        """The state of a parameter; it follows to another dtype or device."""
        state: dict[str, Tensor] = self.state[p]
        if len(state) < len(updater.state_names):
            state.update(updater.initial_state(p, hyper))
        dtype = state_dtype(p)
        for name, t in state.items():
            if t.dtype != dtype or t.device != p.device:
                state[name] = t.to(p.device, dtype)
        return state

    def _apply_torch(
        self, inner: torch.optim.Optimizer, group: dict[str, Any], place: int
    ) -> None:
        if "lr" in inner.param_groups[0]:
            inner.param_groups[0]["lr"] = group["lr"]
        rate = float(group["lr"])
        slots = [s for s in self.slots if s.group == place and s.grad is not None]
        kept = [slot.tensor.grad for slot in slots]
        for slot in slots:
            self._decay(slot, rate)
            grad = slot.grad
            assert grad is not None
            slot.tensor.grad = -grad if self.uphill else grad
        inner.step()
        for slot, grad in zip(slots, kept, strict=True):
            slot.tensor.grad = grad

    def _advance_statistics(self) -> None:
        for slot in self.slots:
            if slot.group is None and slot.grad is not None:
                slot.tensor.sub_(slot.grad)
                slot.node.layer.pending.pop(slot.view.tensor, None)

    def _constrain(self) -> None:
        for slot in self.slots:
            for c in getattr(slot.node.conf, "constraints", None) or ():
                if slot.view.name in (c.params or ()):
                    array = slot.view.shaped(slot.tensor)
                    for _ in range(2 if self.dl4j_exact else 1):  # DL4J: twice
                        array.copy_(c.apply(array, self.dl4j_exact))

    def blocks(self) -> Iterator[tuple[Any, list[Slot]]]:
        """DL4J's updater blocks: runs of parameters with equal updaters, flat order."""
        last: Any = None
        run: list[Slot] = []
        for slot in self.slots:
            rule = self.rules[slot.group] if slot.group is not None else None
            key = (rule.updater, tuple(rule.hyper.items())) if rule else None
            if run and key != last:
                yield last, run
                run = []
            last = key
            run.append(slot)
        if run:
            yield last, run

    def segments(self) -> Iterator[tuple[str, Slot]]:
        """(name of the state, its parameter) in the order of :meth:`flat_state`."""
        for key, slots in self.blocks():
            if key is None or not _is_ours(key[0]):
                continue
            updater, hyper = key[0], {k: self.clock.at(v) for k, v in key[1]}
            for name in updater.state_names:
                for slot in slots:
                    self._state_of(slot.tensor, updater, hyper)
                    yield name, slot

    def flat_state(self) -> Tensor:
        """All state as one vector in DL4J's block order, a copy in p's dtype."""
        parts = [
            s.view.flat(self.state[s.tensor][n]).to(s.tensor.dtype)
            for n, s in self.segments()
        ]
        return torch.cat(parts) if parts else torch.zeros(0)

    def set_flat_state(self, values: Tensor) -> None:
        """Write :meth:`flat_state`'s vector back."""
        segments = list(self.segments())
        expected = sum(slot.tensor.numel() for _, slot in segments)
        if values.dim() != 1 or values.numel() != expected:
            raise ValueError(
                f"set_flat_state(values): expected a vector of {expected} numbers, got "
                f"shape {tuple(values.shape)}"
            )
        start = 0
        for name, slot in segments:
            size = slot.tensor.numel()
            slot.view.fill(self.state[slot.tensor][name], values[start : start + size])
            start += size

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps only its own attributes
        own = ("conf", "clock", "dl4j_exact", "uphill", "slots", "rules", "solution")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with the counters and the state of foreign optimizers."""
        inner = [r.inner.state_dict() if r.inner else None for r in self.rules]
        counters = {"iteration": self.clock.iteration, "epoch": self.clock.epoch}
        state = {**super().state_dict(), "clock": counters, "inner": inner}
        if self.solution is not None:
            state["solver"] = self.solution.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        rest = dict(state_dict)
        counters, inner = rest.pop("clock", None), rest.pop("inner", None)
        solver = rest.pop("solver", None)
        if counters is None or inner is None or len(inner) != len(self.rules):
            raise ValueError(
                "state_dict: expected one that a NetworkOptimizer of the same network "
                "saved"
            )
        if (solver is None) != (self.solution is None):
            raise ValueError(
                "state_dict: expected one that was saved with optimization_algo "
                f"{self.conf.optimization_algo}"
            )
        super().load_state_dict(rest)
        restore_precision(self, rest)
        if self.solution is not None and solver is not None:
            self.solution.load_state_dict(solver)
        for rule, saved in zip(self.rules, inner, strict=True):
            if rule.inner is not None:
                rule.inner.load_state_dict(saved)
        self.clock.iteration = int(counters["iteration"])
        self.clock.epoch = int(counters["epoch"])


def penalties(conf: Any, view: View) -> tuple[Any, ...]:
    """The penalties on one parameter of a layer with configuration ``conf``."""
    if view.kind in ("weight", "gain"):
        return tuple(getattr(conf, "regularization", None) or ())
    if view.kind == "bias":
        return tuple(getattr(conf, "regularization_bias", None) or ())
    return ()


def normalised(grads: list[Tensor], mode: str, threshold: float) -> list[Tensor]:
    """The gradients of one layer after one of DL4J's five rules; θ is the threshold.

    RenormalizeL2PerLayer: g / ‖layer‖; RenormalizeL2PerParamType: g / ‖g‖;
    ClipElementWiseAbsoluteValue: clip(g, -θ, θ); ClipL2PerLayer: g·θ/‖layer‖ where
    ‖layer‖ > θ; ClipL2PerParamType: g·θ/‖g‖ where ‖g‖ > θ. A norm of 0 counts as 1e-5.

    >>> normalised([torch.tensor([3.0, 4.0])], "ClipL2PerLayer", 1.0)
    [tensor([0.6000, 0.8000])]
    """
    if mode == "ClipElementWiseAbsoluteValue":
        return [g.clamp(-threshold, threshold) for g in grads]
    norms = torch.stack([g.double().norm() for g in grads])
    if mode.endswith("PerLayer"):
        norms = norms.norm().expand(len(grads))
    if mode.startswith("Renormalize"):
        scales = norms.masked_fill(norms == 0, SMALL).reciprocal()
    else:
        scales = torch.where(norms > threshold, threshold / norms, 1.0)
    return [g * scale.to(g.dtype) for g, scale in zip(grads, scales, strict=True)]


def _is_ours(updater: Any) -> bool:
    return isinstance(updater, type) and issubclass(updater, Updater)


def _rule(conf: Any, view: View) -> Rule:
    """The updater of one kind of parameter."""
    chosen = getattr(conf, "updater", None)
    if view.kind == "bias" and getattr(conf, "bias_updater", None) is not None:
        chosen = conf.bias_updater
    kind = chosen.entry.item if isinstance(chosen, Named) else chosen
    if isinstance(kind, type) and issubclass(kind, Solver):
        name = UPDATERS.entry_of(kind)
        raise ValueError(
            f"{type(conf).__name__}: updater {kind.__name__} solves for a whole "
            f"network, not for a layer; write .optimization_algo"
            f"({name.key if name else kind.__name__!r}) in the builder"
        )
    if isinstance(chosen, Named):
        return Rule(chosen.entry.item, chosen.kwargs)
    if chosen is None:
        raise ValueError(
            f"{type(conf).__name__}: its parameters need an updater; derive the "
            "configuration from BaseLayer"
        )
    return Rule(chosen)
