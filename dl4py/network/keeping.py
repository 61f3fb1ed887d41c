"""What a network's optimizer keeps, as torch holds it and as DL4J's files do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dl4py.clock import Clock
from dl4py.config.settings import NetworkConfiguration
from dl4py.network.solving import Solution
from dl4py.network.tracks import Rule, Track, is_ours
from dl4py.ops.steps import state_dtype
from dl4py.updaters import Updater, rates, states

BASE = {"lr": 1.0, "weight_decay": 0.0}  # of every group


class Keeping(torch.optim.Optimizer):
    """An optimizer whose state is that of a network's updaters, in DL4J's order.

    Attributes:
        tracks: the network's parameters and statistics.
        rules: an updater for each group.
        solution: what a solver keeps.
    """

    conf: NetworkConfiguration
    clock: Clock
    dl4j_exact: bool
    tracks: list[Track]
    rules: list[Rule]
    solution: Solution | None

    def _follow(self, rule: Rule, group: dict[str, Any]) -> list[str]:
        schedules = {k: v for k, v in rule.hyper.items() if callable(v)}
        driven = rates.follow(group, schedules, lambda _, rate: self.clock.at(rate))
        rates.pair_betas(group)
        return driven

    def preview(self) -> None:
        """Let groups show the numbers of the next step, now that the clock moved."""
        for rule, group in zip(self.rules, self.param_groups, strict=False):
            with contextlib.suppress(Exception):  # the step itself will say so
                self._follow(rule, group)

    def _state_of_pieces(self, track: Track) -> dict[str, Tensor]:
        """The state of all pieces: in each that of its own updater."""
        p = track.tensor
        state: dict[str, Tensor] = self.state[p]
        for piece in () if state else track.pieces:
            assert piece.group is not None
            rule = self.rules[piece.group]
            hyper = {k: self.clock.at(v) for k, v in rule.hyper.items()}
            for name, t in rule.updater.initial_state(p, hyper).items():
                piece.view.fill(piece.view.flat(t), state.setdefault(name, t.clone()))
        return state

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

    def blocks(self) -> Iterator[tuple[Any, list[Track]]]:
        """DL4J's updater blocks: runs of parameters with equal updaters, flat order."""
        last: Any = None
        run: list[Track] = []
        for track in (part for t in self.tracks for part in t.pieces or [t]):
            if not track.stands_for:
                continue
            rule = self.rules[track.group] if track.group is not None else None
            waits = track.view.trained == "pretraining"
            phase = (track.view.node,) if waits else ()  # of one layer alone
            key = (rule.updater, tuple(rule.hyper.items()), phase) if rule else None
            if run and key != last:
                yield last, run
                run = []
            last = key
            run.append(track)
        if run:
            yield last, run

    def segments(self) -> Iterator[tuple[str, Track]]:
        """(name of the state, its parameter) in the order of :meth:`flat_state`."""
        for key, tracks in self.blocks():
            if key is None or not is_ours(key[0]):
                continue
            updater, hyper = key[0], {k: self.clock.at(v) for k, v in key[1]}
            for name in updater.state_names:
                for track in tracks:
                    if track.whole is not None:
                        self._state_of_pieces(track.whole)
                    else:
                        self._state_of(track.tensor, updater, hyper)
                    yield name, track

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
        expected = sum(track.view.size for _, track in segments)
        if values.dim() != 1 or values.numel() != expected:
            raise ValueError(
                f"set_flat_state(values): expected a vector of {expected} numbers, got "
                f"shape {tuple(values.shape)}"
            )
        start = 0
        for name, track in segments:
            size = track.view.size
            part = values[start : start + size]
            track.view.fill(part, self.state[track.tensor][name])
            start += size

    @property
    def stale(self) -> bool:
        """Whether a layer's tensor is computed from others than it was."""
        return any(
            track.count != len(track.view.leaves)
            for track in self.tracks
            if track.count > 1 or track.view.computed
        )

    def go_on_from(self, other: Keeping) -> None:
        """Take over rates, and the state of every tensor that is still there."""

        def place_of(t: Track) -> tuple[Any, ...]:
            return t.view.node, t.view.name, t.place, t.count

        left = {place_of(track): track.left for track in other.tracks}
        for track in self.tracks:
            track.left = left.get(place_of(track))
        before = {group["name"]: i for i, group in enumerate(other.param_groups)}
        for place, group in enumerate(self.param_groups):
            old = before.get(group["name"])
            if old is None:
                continue
            kept = other.param_groups[old]
            group.update({k: v for k, v in kept.items() if k != "params"})
            pairs: list[tuple[Any, Any]] = [(self, other)]
            if place < len(self.rules) and self.rules[place].inner is not None:
                pairs += [(self.rules[place].inner, other.rules[old].inner)]
            for mine, his in pairs:
                for p in group["params"]:
                    if p in his.state:
                        mine.state[p] = his.state[p]

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps only its own attributes
        own = ["conf", "clock", "dl4j_exact", "uphill", "tracks", "listeners"]
        own += ["rules", "solution"]
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with the counters and the state of foreign optimizers.

        In exact mode also what DL4J goes on from behind frozen layers.
        """

        def completed(state: dict[str, Any]) -> dict[str, Any]:
            for group in state["param_groups"]:
                group[rates.WRITTEN] = dict(group.get(rates.WRITTEN, {}))
            inner = [r.inner.state_dict() if r.inner else None for r in self.rules]
            counters = {"iteration": self.clock.iteration, "epoch": self.clock.epoch}
            state = {**state, "clock": counters, "inner": inner}
            if self.solution is not None:
                state["solver"] = self.solution.state_dict()
            left = {t.name: t.left for t in self.tracks if t.left is not None}
            return {**state, "left": left} if left else state

        return states.save(self, super().state_dict, completed)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        whole: dict[str, Any] = {}

        def restored(rest: dict[str, Any]) -> None:
            states.restore_precision(self, rest)
            if self.solution is not None:
                self.solution.load_state_dict(whole["solver"])
            for rule, saved in zip(self.rules, whole["inner"], strict=True):
                if rule.inner is not None:
                    rule.inner.load_state_dict(saved)
            left = whole.get("left", {})
            for track in self.tracks:
                found = left.get(track.name)
                track.left = None if found is None else found.to(track.tensor).clone()
            self.clock.iteration = int(whole["clock"]["iteration"])
            self.clock.epoch = int(whole["clock"]["epoch"])
            self.preview()

        def checked(given: dict[str, Any]) -> dict[str, Any]:
            whole.update(given)
            return self._checked(given)

        states.load(self, super().load_state_dict, state_dict, checked, restored)

    def _checked(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """What of ``state_dict`` torch loads, completed if it is old, or one error."""
        rest = dict(state_dict)
        counters, inner = rest.pop("clock", None), rest.pop("inner", None)
        solver, left = rest.pop("solver", None), rest.pop("left", {})
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
        shapes = {t.name: tuple(t.tensor.shape) for t in self.tracks}
        for name, t in left.items():
            if shapes.get(name) != tuple(t.shape):
                raise ValueError(
                    f"state_dict: left[{name!r}] has shape {tuple(t.shape)}, its "
                    f"parameter {shapes.get(name)}: it was saved for another model"
                )
        saved = rest["param_groups"]
        states.refuse_others(saved, [rule.name for rule in self.rules])
        kept = (*BASE, states.MARK)
        own = [{k: g[k] for k in kept if k in g} for g in self.param_groups]
        pairs = zip(own, saved, strict=False)
        groups = [{**ours, **theirs} for ours, theirs in pairs]
        rest["param_groups"] = [*groups, *saved[len(groups) :]]  # torch compares counts
        return rest
