"""What all updaters share: groups, schedules, closures, saved states, exact mode."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dl4py.clock import Clock
from dl4py.ops.register import uncompiled
from dl4py.ops.steps import state_dtype
from dl4py.registry import UPDATERS, parameters
from dl4py.schedules import Schedule
from dl4py.updaters import options, rates, shards, states
from dl4py.updaters.batch import Batch, Count, Hyper, Rate, move, rounded

BETAS = ("beta1", "beta2")
MODES = ("dl4j_exact", "maximize", "capturable")


class Updater(torch.optim.Optimizer):
    """Base of all updaters: everything but the formula.

    A subclass names its hyper-parameters in its constructor and its state in
    ``state_names``, and writes its step in ``update_``, which treats every number of a
    parameter alike: of a DTensor it gets the shard of this rank.

    A group holds the numbers of the next step, ``iteration`` and ``epoch`` beside them.
    What others write there (a scheduler of torch, a callback, you) holds; if a
    schedule was given for it, the schedule rests, with one warning. t counts the steps
    of the group, as in DL4J, not those of a parameter that joined later.

    Args:
        params: parameters or groups, as for any torch optimizer. A group may set every
            other argument for itself, and carry keys of your own, which are saved with
            it; an option of other optimizers is refused.
        hyper: name → value. ``lr`` and ``momentum`` may be schedules, or callables
            ``(iteration, epoch)``; ``lr`` may be a tensor of one number.
        dl4j_exact: DL4J's own numbers also where ``differs`` names a fault.
        maximize: go uphill.
        weight_decay: λ >= 0 of p ← p - η·λ·p beside the step, as in torch's AdamW. Not
            the ``weightDecay`` of a DL4J layer; its files do not hold it.
        lr: of updaters without a learning rate: what their step is multiplied with; 1
            is DL4J's.
        capturable: t is counted on the device, so that a CUDA graph of ``step`` does
            what ``step`` does. Not with schedules, which the host computes; other
            hyper-parameters are those of the capture.

    Attributes:
        state_names: the state tensors of a parameter, in DL4J's order.
        json: argument → key in DL4J's JSON, where it is not the camelCase.
        ranges: hyper-parameter → its half-open range; any finite number where absent.
        scheduled: hyper-parameters that may be schedules.
        java_state: whether DL4J can load the state that it would save.

    Example:
        >>> @UPDATERS.add("sign_sgd")
        ... class SignSgd(Updater):
        ...     def __init__(self, params, lr=0.1, dl4j_exact=False, **options):
        ...         super().__init__(params, {"lr": lr}, dl4j_exact, **options)
        ...
        ...     @classmethod
        ...     def update_(cls, batch):
        ...         signs = torch._foreach_sign(batch.grads)
        ...         torch._foreach_add_(batch.params, signs, alpha=-batch.hyper["lr"])
        >>> w = torch.nn.Parameter(torch.zeros(2))
        >>> w.grad = torch.tensor([3.0, -5.0])
        >>> get("sign_sgd")([w]).step()
        >>> w.data
        tensor([-0.1000,  0.1000])
    """

    state_names: ClassVar[tuple[str, ...]] = ()
    java_state: ClassVar[bool] = True
    json: ClassVar[dict[str, str]] = {"lr": "learningRate"}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "lr": (0.0, math.inf),
        "epsilon": (0.0, math.inf),
        "momentum": (0.0, 1.0),
        "beta1": (0.0, 1.0),
        "beta2": (0.0, 1.0),
        "rho": (0.0, 1.0),
        "rms_decay": (0.0, 1.0),
        "weight_decay": (0.0, math.inf),
    }
    scheduled: ClassVar[tuple[str, ...]] = ("lr", "momentum")

    def __init__(
        self,
        params: ParamsT,
        hyper: Mapping[str, Rate],
        dl4j_exact: bool = False,
        *,
        maximize: bool = False,
        weight_decay: float = 0.0,
        capturable: bool = False,
        **others: Any,
    ) -> None:
        if not isinstance(params, Iterable):
            raise TypeError(self._no_parameters(params))
        modes = dict(zip(MODES, (dl4j_exact, maximize, capturable), strict=True))
        rest = {"lr": others.pop("lr", 1.0)} if "lr" not in hyper else {}
        rest |= {"weight_decay": weight_decay}
        options.refuse(type(self), others, [*hyper, *rest, *modes])
        defaults = {**self._normal({**hyper, **rest}), **modes}
        rates.pair_betas(defaults)
        self._given: list[dict[str, Any]] = []  # schedules of the groups
        counts = {"iteration": 0, "epoch": 0, states.MARK: type(self).__name__}
        super().__init__(params, {**defaults, **counts})

    @classmethod
    def update_(cls, batch: Batch) -> None:
        """p ← p - u and the new state, in place."""
        raise NotImplementedError

    @classmethod
    def initial_state(cls, p: Tensor, hyper: Hyper) -> dict[str, Tensor]:
        """The state of one parameter before its first update; of half types float32."""
        dtype = state_dtype(p)
        return {name: torch.zeros_like(p, dtype=dtype) for name in cls.state_names}

    @classmethod
    def difference(cls, hyper: Mapping[str, Rate]) -> str | None:
        """What ``dl4j_exact`` changes for these hyper-parameters, in one line."""
        schedules = (v for v in hyper.values() if isinstance(v, Schedule))
        return next((line for s in schedules if (line := s.differs())), None)

    @classmethod
    @torch.no_grad()
    def apply_(
        cls,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        state: Mapping[str, Sequence[Tensor]],
        hyper: Hyper,
        iteration: Count = 0,
        dl4j_exact: bool = False,
        maximize: bool = False,
    ) -> None:
        """Update parameters and state in place; the gradients stay as they are.

        Args:
            params: tensors, of any dtypes and devices.
            grads: their gradients.
            state: state name → one tensor for every parameter.
            hyper: numbers, schedules evaluated already; ``weight_decay``, and ``lr`` of
                updaters without one, may be left out.
            iteration: t.
            dl4j_exact: DL4J's own numbers.
            maximize: go uphill.
        """
        if not params:
            return
        lists = shards.local(
            [params, grads, *(state[name] for name in cls.state_names)]
        )
        params = lists[0]
        kinds = {(p.dtype, p.device) for p in params}
        for kind in kinds:
            numbers, chosen = hyper, lists
            if len(kinds) > 1:
                here = [(p.dtype, p.device) == kind for p in params]
                chosen = [list(itertools.compress(tensors, here)) for tensors in lists]
            if dl4j_exact:
                numbers = {k: rounded(v, kind[0]) for k, v in hyper.items()}
            p, g, *own = map(list, chosen)
            if maximize:
                g = list(torch._foreach_neg(g))
            named = dict(zip(cls.state_names, own, strict=True))
            batch = Batch(p, g, named, numbers, iteration, dl4j_exact)
            move(cls.update_, batch, scaled="lr" not in cls._names())

    @classmethod
    def check(cls, **hyper: Rate) -> None:
        """Raise unless every hyper-parameter is in its range."""
        cls._normal(hyper)

    def differs(self) -> str | None:
        """What ``dl4j_exact`` changes for this updater, in one line."""
        groups = enumerate(self.param_groups)
        hypers = ({**group, **self._schedules(i)} for i, group in groups)
        return next((line for h in hypers if (line := self.difference(h))), None)

    @property
    def iteration(self) -> int:
        """Updates done so far: t, and what schedules count."""
        return int(self.param_groups[0]["iteration"])

    @iteration.setter
    def iteration(self, value: int) -> None:
        for group in self.param_groups:
            if isinstance(group["iteration"], Tensor):
                group["iteration"].fill_(value)
            else:
                group["iteration"] = value
        self._preview()

    @property
    def epoch(self) -> int:
        """Epochs done so far, counted by the training loop: ``updater.epoch += 1``."""
        return int(self.param_groups[0]["epoch"])

    @epoch.setter
    def epoch(self, value: int) -> None:
        for group in self.param_groups:
            group["epoch"] = value
        self._preview()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient.

        Under ``torch.compile`` it runs as it is: one kernel for all tensors already.
        """
        return self._step(closure)

    @uncompiled
    def _step(self, closure: Callable[[], float] | None) -> float | None:
        loss = None
        self._refuse_capture()
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        driven: list[str] = []
        for i in range(len(self.param_groups)):
            driven += self._follow(i)
        hypers = [self._now(group) for group in self.param_groups]
        pairs = [self._with_gradient(group) for group in self.param_groups]
        rates.tell(self, driven)
        for group, hyper, (params, grads) in zip(
            self.param_groups, hypers, pairs, strict=True
        ):
            states = [self.state[p] for p in params] if self.state_names else []
            for p, state in zip(params, states, strict=False):
                if not state:
                    state.update(self.initial_state(p, hyper))
            named = {name: [s[name] for s in states] for name in self.state_names}
            t, exact, uphill = (
                group[name] for name in ("iteration", "dl4j_exact", "maximize")
            )
            self.apply_(params, grads, named, hyper, t, exact, uphill)
        for group in self.param_groups:
            group["iteration"] += 1  # a tensor in place
        self._preview()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        given = dict(param_group)
        betas = tuple(given.get(name, self.defaults.get(name)) for name in BETAS)
        if given.get("betas") in (betas, list(betas)):
            del given["betas"]  # of a copied group
        options.refuse_in_group(type(self), given, [*self._numbers(), *MODES])
        group = {**self.defaults, **given, rates.WRITTEN: {}}
        group.pop("betas", None)
        for name in MODES:
            if not isinstance(group[name], bool):
                raise TypeError(self._wrong(name, "True or False", group[name]))
        if not isinstance(group["params"], (Tensor, set)):
            group["params"] = list(group["params"])
            for p in group["params"]:
                self._refuse_complex(p[1] if isinstance(p, tuple) else p)
        if self.param_groups:
            group |= {"iteration": self.iteration, "epoch": self.epoch}
        group |= self._normal({name: group[name] for name in self._numbers()})
        names = [name for name in self._numbers() if callable(group[name])]
        group["schedules"] = (
            names  # groups hold plain types only, as callbacks save them
        )
        if names and group["capturable"]:
            expected = f"False with a schedule of {', '.join(names)}, of the host"
            raise ValueError(self._wrong("capturable", expected, True))
        schedules = {name: group[name] for name in names}
        self._write(group, schedules)
        super().add_param_group(group)
        self._given.append(schedules)
        self._count_on_device(self.param_groups[-1])

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps only its own attributes
        return {**super().__getstate__(), "_given": self._given}

    def state_dict(self) -> dict[str, Any]:
        """As torch's. Of schedules the names only: the constructor gives them anew."""

        def plain(saved: dict[str, Any]) -> dict[str, Any]:
            for group in saved["param_groups"]:
                group["schedules"] = list(group["schedules"])
                group["iteration"] = int(group["iteration"])
                group[rates.WRITTEN] = dict(group[rates.WRITTEN])
            return saved

        return states.save(self, super().state_dict, plain)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken, with this updater's schedules."""
        kept = [(g["schedules"], g["capturable"]) for g in self.param_groups]
        needed = {*self._names(), "dl4j_exact", "iteration", "epoch"}

        def restored(saved: dict[str, Any]) -> None:
            states.restore_precision(self, saved)
            for group, own in zip(self.param_groups, kept, strict=True):
                group["schedules"], group["capturable"] = own
                self._count_on_device(group)
            self._preview()

        def checked(given: dict[str, Any]) -> dict[str, Any]:
            whole = states.completed(self, given, needed)
            states.check_state(self, whole, self.state_names)
            return whole

        states.load(self, super().load_state_dict, state_dict, checked, restored)

    @classmethod
    @functools.cache
    def _names(cls) -> tuple[str, ...]:
        """The hyper-parameters, in the order of the constructor."""
        return tuple(parameters(cls))

    @classmethod
    @functools.cache
    def _numbers(cls) -> tuple[str, ...]:
        """The hyper-parameters, and the numbers that every updater has."""
        return tuple(dict.fromkeys((*cls._names(), "lr", "weight_decay")))

    @classmethod
    def _normal(cls, hyper: Mapping[str, Rate]) -> dict[str, Rate]:
        """Checked hyper-parameters: floats, and schedules as they are."""
        for name, value in hyper.items():
            if callable(value) and name not in cls.scheduled:
                raise ValueError(cls._wrong(name, "a number, not a schedule", value))
        checked: dict[str, Rate] = {}
        for name, value in hyper.items():
            checked[name] = value if callable(value) else cls._number(name, value)
        if isinstance(lr := hyper.get("lr"), Tensor):  # schedulers fill it
            checked["lr"] = lr
        return checked

    @classmethod
    def _number(cls, name: str, value: Any, when: str = "") -> float:
        low, high = cls.ranges.get(name, (-math.inf, math.inf))
        if type(value) is float and low <= value < high and value > -math.inf:
            return value  # of every step
        real = hasattr(value, "__float__") and not isinstance(value, bool)
        if isinstance(value, Tensor):
            real = name == "lr" and value.numel() == 1 and not value.is_complex()
            value = value.detach()
        number = float(value) if real else math.nan
        if not (math.isfinite(number) and low <= number < high):
            bound = f"in [{low:g}, {high:g})" if high < math.inf else "a number"
            bound += f" >= {low:g}" if high == math.inf and low > -math.inf else ""
            raise ValueError(cls._wrong(name, bound + when, value))
        return number

    def _schedules(self, place: int) -> dict[str, Any]:
        """The schedules of a group; of one that a callback put there, the default."""
        given = self._given[place] if place < len(self._given) else {}
        names = self.param_groups[place]["schedules"]
        return {name: given.get(name, self.defaults[name]) for name in names}

    def _follow(self, place: int) -> list[str]:
        """Write present values into a group; the names whose schedules rest."""
        group = self.param_groups[place]
        return self._write(group, self._schedules(place) if group["schedules"] else {})

    def _write(self, group: dict[str, Any], schedules: dict[str, Any]) -> list[str]:
        driven: list[str] = []
        if schedules:
            clock = Clock(group["iteration"], group["epoch"], group["dl4j_exact"])
            when = f" at iteration {clock.iteration}, epoch {clock.epoch}"

            def at(name: str, schedule: Any) -> float:
                return self._number(name, clock.at(schedule), when)

            driven = rates.follow(group, schedules, at)
        rates.pair_betas(group)
        return driven

    def _preview(self) -> None:
        """Let groups show the next step; where that cannot be, the step will say so."""
        for i, group in enumerate(self.param_groups):
            if group["schedules"]:
                with contextlib.suppress(Exception):
                    self._follow(i)

    def _now(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The numbers of a group's next step."""
        now: dict[str, Any] = {}
        for name in self._numbers():
            value = group[name]
            if isinstance(value, Tensor) and group["capturable"]:  # read there
                value = value.detach().to(group["iteration"].device, torch.float64)
                now[name] = value.reshape(())
            else:
                now[name] = self._number(name, value)
        return now

    def _count_on_device(self, group: dict[str, Any]) -> None:
        if group["capturable"]:
            device = group["params"][0].device if group["params"] else None
            t = int(group["iteration"])
            group["iteration"] = torch.tensor(t, dtype=torch.float64, device=device)

    def _refuse_capture(self) -> None:
        cuda: Any = torch.cuda
        if not (cuda.is_initialized() and cuda.is_current_stream_capturing()):
            return
        if not all(group["capturable"] for group in self.param_groups):
            raise RuntimeError(
                f"{type(self).__name__}.step() inside a CUDA graph would repeat one "
                "iteration for ever: construct it with capturable=True"
            )

    def _with_gradient(
        self, group: Mapping[str, Any]
    ) -> tuple[list[Tensor], list[Tensor]]:
        pairs = [(p, g) for p in group["params"] if (g := p.grad) is not None]
        for p, g in pairs:
            if g.layout != torch.strided:
                raise TypeError(
                    f"{type(self).__name__} needs dense gradients, got {g.layout} "
                    f"for a parameter of shape {tuple(p.shape)}; use sparse=False"
                )
        return [p for p, _ in pairs], [g for _, g in pairs]

    def _refuse_complex(self, p: object) -> None:
        if isinstance(p, Tensor) and p.is_complex():
            raise TypeError(
                f"{type(self).__name__} updates real parameters, got a {p.dtype} one "
                f"of shape {tuple(p.shape)}; use torch.view_as_real"
            )

    @classmethod
    def _no_parameters(cls, given: object) -> str:
        entry, lr = UPDATERS.entry_of(cls), "lr" in cls._names()
        number = isinstance(given, (int, float))
        rate = f", lr={given}" if number and lr else ""
        way = f"{cls.__name__}(model.parameters(){rate})"
        if entry is not None:
            way += f", or .updater({entry.key!r}{rate}) in the builder"
        got = repr(given) if number else type(given).__name__
        return f"{cls.__name__}(params) must be parameters, got {got}; write {way}"

    @classmethod
    def _wrong(cls, name: str, expected: str, value: object) -> str:
        return f"{cls.__name__}({name}=...) must be {expected}, got {value!r}"


def get(name: str | Callable[..., Any]) -> Any:
    """The optimizer class called ``name``, DL4J's name or Java class.

    Args:
        name: a name, or in its place a torch optimizer class (given back as it is).

    Example:
        >>> get("ADAM").__name__, get(torch.optim.LBFGS).__name__
        ('Adam', 'LBFGS')
    """
    if isinstance(name, str):
        return UPDATERS[name]
    inner = name.func if isinstance(name, functools.partial) else name
    if inspect.isclass(inner) and issubclass(inner, torch.optim.Optimizer):
        return name
    raise TypeError(f"expected an updater's name or an optimizer class, got {name!r}")
