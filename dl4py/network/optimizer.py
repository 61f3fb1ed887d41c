"""One optimizer for a whole network: DL4J's order of a training iteration.

Lightning's automatic optimization takes one optimizer, so this one holds an updater for
every layer and kind of parameter. A step is a list of stages:

1. gradients are collected, those of batch-norm statistics included
2. they are normalised, per layer
3. l1 and l2 go into them
4. the updater, with the present values of its schedules; weight decay beside it
5. iteration + 1
6. constraints

With a solver (``optimization_algo``) a
:class:`~dl4py.network.solving.Solution` takes the place of 1 to 4.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dl4py.clock import Clock
from dl4py.config.settings import SGD, NetworkConfiguration
from dl4py.layers.view import View
from dl4py.network.gradients import collect, fill, normalise, penalise
from dl4py.network.keeping import BASE, Keeping
from dl4py.network.solving import Solution
from dl4py.network.tracks import Track, is_ours, rule_of
from dl4py.ops.register import uncompiled
from dl4py.updaters import rates, states

CYCLED = ("momentum", "betas")  # what torch's schedulers cycle beside a rate
Listener = Callable[[str, Mapping[str, Tensor]], None]


class NetworkOptimizer(Keeping):
    """The optimizer of a network; ``net.configure_optimizer()`` makes one.

    Every parameter group is one layer × kind ("weight", "bias", "scale");
    ``group["name"]`` says which, and ``group["lr"]`` is the learning rate of the next
    step, or what multiplies the step of an updater without one;
    ``group["weight_decay"]`` is torch's, beside DL4J's own. What others write there (a
    scheduler of torch, a callback, you) holds, and a schedule rests then, with one
    warning. The counters ``iteration`` and ``epoch`` are the network's, and are saved
    with the state.

    Args:
        views: the network's parameters and statistics; their configurations state
            updaters, penalties, gradient normalisation and constraints.
        conf: the network's settings.
        clock: the network's counters, and whether DL4J's faults are reproduced.

    Attributes:
        listeners: functions ``listener(stage, values)`` that look between two stages;
            ``values`` maps names such as ``"layer0/W"`` to tensors: with
            ``"gradients"`` what goes into the updaters, with ``"updates"`` what was
            subtracted from the parameters. They cost nothing where there are none.

    Example:
        >>> from dl4py.config import NeuralNetConfiguration, Output
        >>> chain = NeuralNetConfiguration.builder().updater("adam", lr=0.01)
        >>> net = chain.layer(Output(n_in=4, n_out=3)).build().module()
        >>> [(g["name"], g["lr"]) for g in net.configure_optimizer().param_groups]
        [('layer0/weight', 0.01), ('layer0/bias', 0.01)]
    """

    def __init__(
        self, views: Sequence[View], conf: NetworkConfiguration, clock: Clock
    ) -> None:
        self.conf = conf
        self.clock = clock
        self.dl4j_exact = clock.dl4j_exact
        # DL4J's SGD goes downhill whatever ``minimize`` says
        self.uphill = not conf.minimize and not self.dl4j_exact
        self.tracks = []
        self.listeners: list[Listener] = []
        self.solution = None
        self.rules = []
        groups: list[dict[str, Any]] = []
        places: dict[tuple[str, str], int] = {}
        for view in views:
            count = len(view.leaves)
            tracks = [Track(view, None, None, i, count) for i in range(count)]
            self.tracks += tracks
            if view.kind == "statistic" or view.trained == "never":
                continue
            kind = "weight" if view.kind == "gain" else view.kind
            place = places.setdefault((view.node, kind), len(groups))
            if place == len(groups):
                rule = rule_of(view)
                self.rules.append(rule)
                numbers = {k: self.clock.at(v) for k, v in rule.hyper.items()}
                group = {"params": [], "name": f"{view.node}/{kind}", **BASE}
                groups.append({**group, states.MARK: rule.name, **numbers})
            for track in tracks:
                track.group = place
                groups[place]["params"].append(track.tensor)
        for rule, group in zip(self.rules, groups, strict=True):
            if not is_ours(rule.updater):
                rule.inner = rule.updater(group["params"])
                group["lr"] = rule.inner.param_groups[0].get("lr", 1.0)
            self._follow(rule, group)
        self._cut(places)
        if not groups:
            groups.append({"params": [torch.zeros(0)], "name": "none", **BASE})
        # what all groups have: schedulers look here for a momentum to cycle
        common = [k for k in CYCLED if all(k in group for group in groups)]
        every = [p for group in groups for p in group["params"]]
        super().__init__(every, {k: groups[0][k] for k in common})
        # not given to torch, which compares each group with all the others
        self.param_groups[:] = groups
        if self.conf.optimization_algo != SGD:
            self.solution = Solution(self)

    def _cut(self, places: Mapping[tuple[str, str], int]) -> None:
        """Find what DL4J updates by the rules of another kind of parameter."""
        for track in self.tracks:
            pieces = [
                Track(piece, places[piece.node, piece.kind], whole=track)
                for piece in track.view.pieces()
            ]
            rules = [
                self.rules[p.group] for p in (track, *pieces) if p.group is not None
            ]
            ours = all(is_ours(rule.updater) for rule in rules)
            if ours and any(rule != rules[0] for rule in rules):
                track.pieces = pieces

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """For torch's constructor only: the network says what its groups are."""
        if len(getattr(self, "param_groups", ())) >= max(1, len(self.rules)):
            raise ValueError(
                "NetworkOptimizer.add_param_group: groups are the network's layers; "
                "give other parameters an optimizer of their own"
            )
        super().add_param_group(param_group)

    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """One training iteration on the gradients of the mean loss.

        With a solver the closure is needed, and may be called several times; its loss
        is that of ``Network.objective``. ``torch.compile`` leaves it as it is.
        """
        return self._step(closure)

    @uncompiled
    def _step(self, closure: Callable[[], float] | None) -> float | None:
        if self.solution is not None:
            score: float = self.solution.step(closure)
            return score
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            collect(self.tracks)
            fill(self.tracks, self.clock)
            normalise(self.tracks)
            penalise(self.tracks, self.clock)
            self._tell("gradients", lambda track: track.grad)
            before = [t.tensor.clone() for t in self.tracks] if self.listeners else []
            behind = [t for t in self.tracks if t.view.behind and t.view.exact]
            old = [t.tensor.clone() for t in behind]
            self._update()
            for track, start in zip(behind, old, strict=True):
                track.left = start - track.tensor
            self._advance_statistics()
            was = dict(zip(map(id, self.tracks), before, strict=False))
            self._tell("updates", lambda track: was[id(track)] - track.tensor)
            self.clock.iteration += 1
            self._constrain()
            self._forget()
        self.preview()
        return loss

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Within it a step may write over the gradients, which are dropped after it."""
        for track in self.tracks:
            track.spends = True
        try:
            yield
        finally:
            for track in self.tracks:
                track.spends = False

    def _tell(self, stage: str, value: Callable[[Track], Tensor | None]) -> None:
        if not self.listeners:
            return
        values = {}
        for track in self.tracks:
            found = value(track) if track.grad is not None else None
            if found is not None:
                values[track.name] = found
        for listener in self.listeners:
            listener(stage, values)

    def _forget(self) -> None:
        for track in self.tracks:
            track.grad = None
            if self.listeners:  # who may have kept it
                track.kept = None

    @property
    def trials(self) -> list[Any]:
        """The solver's context managers around trial evaluations."""
        return self.solution.solver.trials if self.solution is not None else []

    @property
    def is_trial(self) -> bool:
        """Whether a trial evaluation of a solver is going on."""
        return self.solution is not None and self.solution.is_trial

    def updates(self) -> Tensor:
        """What a step would subtract, flat; updaters advance, parameters do not.

        Statistics stand with their pseudo-gradients, in the order of ``tracks``.
        """
        collect(self.tracks)
        normalise(self.tracks)
        penalise(self.tracks, self.clock)
        kept = [track.tensor.clone() for track in self.tracks]
        for track in self.tracks:
            if track.group is not None:
                track.tensor.zero_()  # then nothing of u is rounded off
        self._update()
        parts = []
        for track, before in zip(self.tracks, kept, strict=True):
            if track.group is None:
                u = torch.zeros_like(before) if track.grad is None else track.grad
            else:
                u = -track.tensor
                track.tensor.copy_(before)
                if track.grad is not None:
                    rate = self.param_groups[track.group]["lr"]
                    u = u + self._decay_factor(track, rate) * before
            parts.append(u.reshape(-1))
        return torch.cat(parts) if parts else torch.zeros(0)

    def finish(self, statistics: bool = True) -> None:
        """End an iteration of a solver: statistics, iteration + 1, constraints."""
        collect(self.tracks)
        if statistics:
            self._advance_statistics()
        for track in self.tracks:
            track.view.owner.pending.pop(track.view.attribute, None)
        self._forget()
        self.clock.iteration += 1
        self._constrain()
        self.preview()

    def _update(self) -> None:
        buckets: dict[Any, list[Track]] = {}
        pairs = zip(self.rules, self.param_groups, strict=False)
        rates.tell(self, [name for pair in pairs for name in self._follow(*pair)])
        for track in self.tracks:
            if track.group is None or track.grad is None:
                continue
            rule, group = self.rules[track.group], self.param_groups[track.group]
            if rule.inner is not None:
                continue
            if track.pieces:
                self._update_pieces(track, track.grad)
                continue
            hyper = tuple((k, float(group[k])) for k in {**rule.hyper, "lr": 1.0})
            self._decay(track, float(group["lr"]))
            buckets.setdefault((rule.updater, hyper), []).append(track)
        for (updater, hyper), tracks in buckets.items():
            self._apply(updater, dict(hyper), tracks)
        for place, rule in enumerate(self.rules):
            if rule.inner is not None:
                self._apply_torch(rule.inner, self.param_groups[place], place)

    def _decay(self, track: Track, rate: float) -> None:
        factor = self._decay_factor(track, rate)
        if isinstance(factor, Tensor) or factor:
            track.tensor.mul_(1 + factor if self.uphill else 1 - factor)

    def _decay_factor(self, track: Track, rate: float) -> Any:
        own = sum(
            r.factor(track.tensor, rate, self.clock)
            for r in track.view.penalties
            if not r.before_updater
        )
        place = track.group
        assert place is not None
        return own + rate * float(self.param_groups[place]["weight_decay"])

    def _apply(
        self, updater: Any, hyper: dict[str, float], tracks: list[Track]
    ) -> None:
        tensors = [track.tensor for track in tracks]
        grads = [track.grad for track in tracks if track.grad is not None]
        states = [self._state_of(p, updater, hyper) for p in tensors]
        state = {n: [s[n] for s in states] for n in updater.state_names}
        before = [p.clone() for p in tensors] if self.uphill else None
        updater.apply_(
            tensors, grads, state, hyper, self.clock.iteration, self.dl4j_exact
        )
        if before is not None:  # uphill: p + u instead of p - u
            for p, old in zip(tensors, before, strict=True):
                p.copy_(2 * old - p)

    def _update_pieces(self, track: Track, grad: Tensor) -> None:
        state = self._state_of_pieces(track)
        for piece in track.pieces:
            assert piece.group is not None
            rule, group = self.rules[piece.group], self.param_groups[piece.group]
            hyper = {k: float(group[k]) for k in {**rule.hyper, "lr": 1.0}}
            view, names = piece.view, rule.updater.state_names
            factor = self._decay_factor(track, hyper["lr"])
            rest = 1 - (view.flat(factor) if isinstance(factor, Tensor) else factor)
            p, mine = (
                view.flat(track.tensor) * rest,
                [view.flat(state[n]) for n in names],
            )
            mine = [t.clone() for t in mine]
            rule.updater.apply_(
                [p],
                [view.flat(grad)],
                {n: [t] for n, t in zip(names, mine, strict=True)},
                hyper,
                self.clock.iteration,
                self.dl4j_exact,
            )
            view.fill(p, track.tensor)
            for n, t in zip(names, mine, strict=True):
                view.fill(t, state[n])

    def _apply_torch(
        self, inner: torch.optim.Optimizer, group: dict[str, Any], place: int
    ) -> None:
        if "lr" in inner.param_groups[0]:
            inner.param_groups[0]["lr"] = group["lr"]
        rate = float(group["lr"])
        tracks = [s for s in self.tracks if s.group == place and s.grad is not None]
        kept = [track.tensor.grad for track in tracks]
        for track in tracks:
            self._decay(track, rate)
            grad = track.grad
            assert grad is not None
            track.tensor.grad = -grad if self.uphill else grad
        inner.step()
        for track, grad in zip(tracks, kept, strict=True):
            track.tensor.grad = grad

    def _advance_statistics(self) -> None:
        for track in self.tracks:
            if track.is_statistic and track.grad is not None:
                track.tensor.sub_(track.grad)
                track.view.owner.pending.pop(track.view.attribute, None)

    def _constrain(self) -> None:
        for track in self.tracks:
            view = track.view
            if (
                view.trained in ("still", "never")
                or track.place
                or not view.constraints
            ):
                continue
            view.change(view.constrain)
