"""What all updaters share: groups, schedules, closures, saved states, exact mode."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dl4py.clock import Clock
from dl4py.ops.steps import state_dtype
from dl4py.registry import UPDATERS, parameters
from dl4py.schedules import Schedule

Hyper = Mapping[str, float]
Rate = float | Callable[..., float]
Count = int | Tensor
Number = float | Tensor


@dataclass(frozen=True)
class Batch:
    """What one update works on: lists of tensors of one dtype and device.

    Attributes:
        params: the parameters p, changed in place.
        grads: their gradients g, never changed.
        state: state name → one tensor for every parameter, changed in place.
        hyper: hyper-parameters as numbers, of the precision of p in exact mode.
        t: updates done before; of a capturable updater a tensor on the device of p.
        dl4j_exact: DL4J's own numbers.
    """

    params: list[Tensor]
    grads: list[Tensor]
    state: dict[str, list[Tensor]]
    hyper: Hyper
    t: Count
    dl4j_exact: bool

    def correction(self, beta: float) -> Number:
        """1 - β^(t+1); DL4J computes the power in the precision of p."""
        power: Number = beta ** (self.t + 1)
        if self.dl4j_exact:
            power = _rounded(power, self.params[0].dtype)
        return 1 - power


class Updater(torch.optim.Optimizer):
    """Base of all updaters: everything but the formula.

    A subclass names its hyper-parameters in its constructor and its state in
    ``state_names``, and writes its step in ``update_``.

    Args:
        params: parameters or groups, as for any torch optimizer. A group may set every
            other argument for itself.
        hyper: name → value. ``lr`` and ``momentum`` may be schedules, or callables
            ``(iteration, epoch)``.
        dl4j_exact: DL4J's own numbers also where ``differs`` names a fault.
        maximize: go uphill.
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
    }
    scheduled: ClassVar[tuple[str, ...]] = ("lr", "momentum")

    def __init__(
        self,
        params: ParamsT,
        hyper: Mapping[str, Rate],
        dl4j_exact: bool = False,
        *,
        maximize: bool = False,
        capturable: bool = False,
    ) -> None:
        if not isinstance(params, Iterable):
            raise TypeError(self._no_parameters(params))
        modes = {
            "dl4j_exact": dl4j_exact,
            "maximize": maximize,
            "capturable": capturable,
        }
        for name, value in modes.items():
            if not isinstance(value, bool):
                raise TypeError(self._wrong(name, "True or False", value))
        counts = {"iteration": 0, "epoch": 0}
        super().__init__(params, {**self._normal(hyper), **modes, **counts})

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
    ) -> None:
        """Update parameters and state in place; the gradients stay as they are.

        Args:
            params: tensors, of any dtypes and devices.
            grads: their gradients.
            state: state name → one tensor for every parameter.
            hyper: numbers, schedules evaluated already.
            iteration: t.
            dl4j_exact: DL4J's own numbers.
        """
        if not params:
            return
        kinds = {(p.dtype, p.device) for p in params}
        for kind in kinds:
            numbers, chosen = (
                hyper,
                [params, grads, *(state[n] for n in cls.state_names)],
            )
            if len(kinds) > 1:
                here = [(p.dtype, p.device) == kind for p in params]
                chosen = [list(itertools.compress(tensors, here)) for tensors in chosen]
            if dl4j_exact:
                numbers = {k: _rounded(v, kind[0]) for k, v in hyper.items()}
            p, g, *states = map(list, chosen)
            named = dict(zip(cls.state_names, states, strict=True))
            cls.update_(Batch(p, g, named, numbers, iteration, dl4j_exact))

    @classmethod
    def check(cls, **hyper: Rate) -> None:
        """Raise unless every hyper-parameter is in its range."""
        cls._normal(hyper)

    def differs(self) -> str | None:
        """What ``dl4j_exact`` changes for this updater, in one line."""
        hypers = ({**group, **group["schedules"]} for group in self.param_groups)
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

    @property
    def epoch(self) -> int:
        """Epochs done so far, counted by the training loop: ``updater.epoch += 1``."""
        return int(self.param_groups[0]["epoch"])

    @epoch.setter
    def epoch(self, value: int) -> None:
        for group in self.param_groups:
            group["epoch"] = value

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        self._refuse_capture()
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hypers = [self._now(group) for group in self.param_groups]
        pairs = [self._with_gradient(group) for group in self.param_groups]
        for group, hyper, (params, grads) in zip(
            self.param_groups, hypers, pairs, strict=True
        ):
            group.update(hyper)  # where monitors look for the rate
            states = [self.state[p] for p in params] if self.state_names else []
            for p, state in zip(params, states, strict=False):
                if not state:
                    state.update(self.initial_state(p, hyper))
            if group["maximize"] and grads:
                grads = list(torch._foreach_neg(grads))
            named = {name: [s[name] for s in states] for name in self.state_names}
            t, exact = group["iteration"], group["dl4j_exact"]
            self.apply_(params, grads, named, hyper, t, exact)
        for group in self.param_groups:
            group["iteration"] += 1  # a tensor in place
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        group = {**self.defaults, **param_group}
        if not isinstance(group["params"], (Tensor, set)):
            group["params"] = list(group["params"])
            for p in group["params"]:
                self._refuse_complex(p[1] if isinstance(p, tuple) else p)
        if self.param_groups:
            group |= {"iteration": self.iteration, "epoch": self.epoch}
        hyper = self._normal({name: group[name] for name in self._names()})
        group["schedules"] = {k: v for k, v in hyper.items() if callable(v)}
        super().add_param_group(group | hyper | self._now(group | hyper))
        self._count_on_device(self.param_groups[-1])

    def state_dict(self) -> dict[str, Any]:
        """As torch's. Of schedules the names only: the constructor gives them anew."""
        saved = super().state_dict()
        for group in saved["param_groups"]:
            group["schedules"] = sorted(group["schedules"])
            group["iteration"] = int(group["iteration"])
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken, with this updater's schedules."""
        saved, own = state_dict["param_groups"], self.param_groups
        optional = {"param_names", "capturable"}
        for i, (theirs, ours) in enumerate(zip(saved, own, strict=False)):
            where, name = f"state_dict: param_groups[{i}]", type(self).__name__
            if missing := sorted(ours.keys() - theirs.keys() - optional):
                raise ValueError(
                    f"{where} lacks {', '.join(missing)}: it was not saved by {name}"
                )
            if lost := sorted(set(theirs["schedules"]) - set(ours["schedules"])):
                raise ValueError(
                    f"{where} was saved with a schedule for {', '.join(lost)}: "
                    f"construct {name} with one"
                )
        schedules = [group["schedules"] for group in own]
        modes = [group["capturable"] for group in own]
        super().load_state_dict(state_dict)
        restore_precision(self, state_dict)
        for group, schedule, mode in zip(
            self.param_groups, schedules, modes, strict=True
        ):
            group["schedules"], group["capturable"] = schedule, mode
            self._count_on_device(group)

    @classmethod
    @functools.cache
    def _names(cls) -> tuple[str, ...]:
        """The hyper-parameters, in the order of the constructor."""
        return tuple(parameters(cls))

    @classmethod
    def _normal(cls, hyper: Mapping[str, Rate]) -> dict[str, Rate]:
        """Checked hyper-parameters: floats, and schedules as they are."""
        for name, value in hyper.items():
            if callable(value) and name not in cls.scheduled:
                raise ValueError(cls._wrong(name, "a number, not a schedule", value))
        return {k: v if callable(v) else cls._number(k, v) for k, v in hyper.items()}

    @classmethod
    def _number(cls, name: str, value: Any, when: str = "") -> float:
        low, high = cls.ranges.get(name, (-math.inf, math.inf))
        real = hasattr(value, "__float__") and not isinstance(value, (bool, Tensor))
        number = float(value) if real else math.nan
        if not (math.isfinite(number) and low <= number < high):
            bound = f"in [{low:g}, {high:g})" if high < math.inf else "a number"
            bound += f" >= {low:g}" if high == math.inf and low > -math.inf else ""
            raise ValueError(cls._wrong(name, bound + when, value))
        return number

    def _now(self, group: Mapping[str, Any]) -> dict[str, float]:
        """The hyper-parameters of a group at its iteration and epoch."""
        clock = Clock(group["iteration"], group["epoch"], group["dl4j_exact"])
        values = {name: group[name] for name in self._names()}
        for name, schedule in group["schedules"].items():
            values[name] = clock.at(schedule)
        when = ""
        if group["schedules"]:
            when = f" at iteration {clock.iteration}, epoch {clock.epoch}"
        return {name: self._number(name, value, when) for name, value in values.items()}

    def _count_on_device(self, group: dict[str, Any]) -> None:
        if not group["capturable"]:
            return
        if group["schedules"]:
            names = ", ".join(group["schedules"])
            expected = f"False with a schedule of {names}, which the host computes"
            raise ValueError(self._wrong("capturable", expected, True))
        device = group["params"][0].device if group["params"] else None
        t = torch.tensor(int(group["iteration"]), dtype=torch.float64, device=device)
        group["iteration"] = t

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


@overload
def _rounded(x: float, dtype: torch.dtype) -> float: ...


@overload
def _rounded(x: Number, dtype: torch.dtype) -> Number: ...


def _rounded(x: Number, dtype: torch.dtype) -> Number:
    """``x`` as a number of ``dtype``: DL4J casts its doubles before it computes."""
    if isinstance(x, Tensor):
        return x.to(dtype).double()
    return x if dtype == torch.float64 else torch.tensor(x, dtype=dtype).item()


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


def restore_precision(
    optimizer: torch.optim.Optimizer, state_dict: Mapping[str, Any]
) -> None:
    """Load the state of half types again: torch rounds it to the parameter's dtype."""
    ours = (p for group in optimizer.param_groups for p in group["params"])
    theirs = (i for group in state_dict["param_groups"] for i in group["params"])
    for p, i in zip(ours, theirs, strict=True):
        if p.dtype != state_dtype(p):
            for name, value in state_dict["state"].get(i, {}).items():
                optimizer.state[p][name] = value.to(p.device, state_dtype(p), copy=True)
