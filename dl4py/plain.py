"""DL4J's noise, penalties, constraints and gradient rules on any torch module.

A network of the builder has them in its configuration; here they go around modules and
optimizers of one's own, by the same formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dl4py.clock import Clock
from dl4py.config.dropout import Dropout, InputNoise
from dl4py.config.regularization import Constraint, Regularization, WeightDecay
from dl4py.config.weight_noise import DropConnect, ParameterNoise
from dl4py.network.gradients import normalised
from dl4py.noise import Noise, Source
from dl4py.registry import SCHEDULES
from dl4py.schedules import Schedule
from dl4py.solvers import Solver

MODES = (
    "RenormalizeL2PerLayer",
    "RenormalizeL2PerParamType",
    "ClipElementWiseAbsoluteValue",
    "ClipL2PerLayer",
    "ClipL2PerParamType",
)


class _Disturbed:
    """A hook that lays noise on the first input of a module while it trains."""

    def __init__(self, dropout: InputNoise, noise: Noise, clock: Clock) -> None:
        self.dropout, self.noise, self.clock = dropout, noise, clock

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        if not module.training:
            return None
        if not args or not isinstance(args[0], Tensor):
            raise TypeError(
                f"with_dropout: {type(module).__name__} must be called with its input "
                "by position, so that the noise finds it"
            )
        x, *rest = args
        return (self.dropout.apply(x, self.noise, self.clock), *rest)


class _NoisyParameter(nn.Module):
    """A parametrization that disturbs a parameter while training, for each use anew."""

    def __init__(self, kind: ParameterNoise, noise: Noise, clock: Clock) -> None:
        super().__init__()
        self.kind, self.noise, self.clock = kind, noise, clock

    def forward(self, w: Tensor) -> Tensor:
        if not self.training:
            return w
        with torch.no_grad():
            drawn = self.kind.draw(w, self.noise, self.clock)
        return self.kind.apply(w, drawn)

    def right_inverse(self, w: Tensor) -> Tensor:
        return w


def with_dropout(
    module: nn.Module,
    dropout: float | Schedule | InputNoise,
    noise: Source = None,
    clock: Clock | None = None,
) -> nn.Module:
    """Disturb the first input of ``module`` while it trains, as DL4J's layers do.

    Args:
        module: any module that is called with its input by position; it is changed and
            returned, and its state dict stays as it is.
        dropout: the probability of **keeping** a value, in (0, 1], a schedule of it, or
            one of ``dl4py.config``'s: ``Dropout``, ``AlphaDropout``,
            ``GaussianDropout``, ``GaussianNoise``, ``SpatialDropout``, each with a
            number or a schedule.
        noise: where the draws come from: a ``dl4py.NativeRandom``, a generator of
            torch's, ``None`` for its default one.
        clock: what schedules go by; share it with :func:`regularize`, which counts.

    Example:
        >>> layer = with_dropout(nn.Linear(4, 2), 0.8)
        >>> layer(torch.zeros(1, 4)).shape
        torch.Size([1, 2])
    """
    kind = _kind("with_dropout(dropout=...)", dropout, Dropout, InputNoise)
    hook = _Disturbed(kind, Noise.of(noise), clock or Clock())
    module.register_forward_pre_hook(hook)
    return module


def with_weight_noise(
    module: nn.Module,
    weight_noise: float | Schedule | ParameterNoise,
    name: str = "weight",
    noise: Source = None,
    clock: Clock | None = None,
) -> nn.Module:
    """Disturb a parameter of ``module`` while it trains, as a parametrization of torch.

    Each reading of it draws anew; within ``torch.nn.utils.parametrize.cached()`` one
    draw serves all. ``parametrize.remove_parametrizations(module, name)`` takes it off.

    Args:
        module: any module; it is changed and returned.
        weight_noise: the probability of **keeping** a weight, in (0, 1], a schedule of
            it, or one of ``dl4py.config``'s: ``DropConnect``, ``WeightNoise``.
        name: of the parameter.
        noise, clock: as in :func:`with_dropout`.

    Example:
        >>> layer = with_weight_noise(nn.Linear(4, 2), 0.8).eval()
        >>> layer.weight is layer.parametrizations.weight.original
        True
    """
    kind = _kind(
        "with_weight_noise(weight_noise=...)", weight_noise, DropConnect, ParameterNoise
    )
    if not isinstance(getattr(module, name, None), Tensor):
        own = ", ".join(n for n, _ in module.named_parameters(recurse=False)) or "none"
        raise ValueError(
            f"with_weight_noise(name={name!r}): {type(module).__name__} has no such "
            f"parameter; it has {own}"
        )
    part = _NoisyParameter(kind, Noise.of(noise), clock or Clock())
    part.train(module.training)
    # unsafe: torch's check of shapes would draw
    parametrize.register_parametrization(module, name, part, unsafe=True)
    return module


class Rules:
    """What :func:`regularize` has laid around an optimizer.

    Attributes:
        clock: counts the steps; ``clock.epoch += 1`` is up to the training loop.
    """

    def __init__(
        self,
        layers: Sequence[list[tuple[nn.Module, str, Tensor]]],
        normalization: str | None,
        threshold: float,
        penalties: tuple[Sequence[Regularization], Sequence[Regularization]],
        constraints: Sequence[Constraint],
        clock: Clock,
    ) -> None:
        self.clock = clock
        self._layers, self._mode, self._threshold = layers, normalization, threshold
        self._penalties, self._constraints = penalties, constraints
        self._handles: list[Any] = []

    def penalty(self) -> Tensor:
        """What the penalties add to DL4J's score; without a gradient."""
        with torch.no_grad():
            terms = [r.score(p, self.clock) for p, rs in self._penalised() for r in rs]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def remove(self) -> None:
        """Leave the optimizer as it was."""
        for handle in self._handles:
            handle.remove()

    def _penalised(self) -> Iterator[tuple[Tensor, Sequence[Regularization]]]:
        weights, biases = self._penalties
        for layer in self._layers:
            for _, name, p in layer:
                yield p, biases if name.endswith("bias") else weights

    def before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """Prepare the gradients, or let a closure do so when it has made them."""
        me, *given = args
        closure = given[0] if given else kwargs.get("closure")
        if closure is None:
            self._prepare(optimizer)
            return None

        def prepared() -> Any:
            with torch.enable_grad():
                loss = closure()
            self._prepare(optimizer)
            return loss

        rest = {k: v for k, v in kwargs.items() if k != "closure"}
        return (me, prepared, *given[1:]), rest

    @torch.no_grad()
    def _prepare(self, optimizer: torch.optim.Optimizer) -> None:
        rates = {
            p: float(group.get("lr", 1.0))
            for group in optimizer.param_groups
            for p in group["params"]
        }
        for layer in self._layers if self._mode else ():
            given = [p for _, _, p in layer if p.grad is not None]
            grads = [p.grad for p in given if p.grad is not None]
            if grads:
                for p, grad in zip(
                    given,
                    normalised(grads, str(self._mode), self._threshold),
                    strict=True,
                ):
                    p.grad = grad
        for p, penalties in self._penalised():
            for r in penalties:
                if p.grad is None:
                    break
                if isinstance(r, WeightDecay):
                    p.mul_(1 - r.factor(p, rates[p], self.clock))
                else:
                    r.add(p.grad, p, self.clock, p.grad)

    @torch.no_grad()
    def after(self, *_: Any) -> None:
        """Count the step, and bring what it changed back to the constraints."""
        self.clock.iteration += 1
        for layer in self._layers:
            for module, name, p in layer:
                if name.endswith("bias"):
                    continue
                # DL4J's axes: its weight of a dense layer is [n_in, n_out]
                array = p.t() if isinstance(module, nn.Linear) else p
                for c in self._constraints:
                    c.apply_(array)


def regularize(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    *,
    gradient_normalization: str | None = None,
    gradient_normalization_threshold: float = 1.0,
    penalties: Iterable[Regularization] = (),
    bias_penalties: Iterable[Regularization] = (),
    constraints: Iterable[Constraint] = (),
    clock: Clock | None = None,
) -> Rules:
    """Let every step of ``optimizer`` go by DL4J's rules, as hooks of the optimizer.

    A step is, in DL4J's order: gradients are normalised layer by layer (a layer is a
    module with parameters of its own) → l1 and l2 go into them, weight decay takes its
    share of the weights → the optimizer's own step → the clock counts → constraints.
    It works in a plain loop and under a Trainer; do not give the optimizer a
    ``weight_decay`` of its own beside it.

    Args:
        optimizer: any that evaluates its closure once: not L-BFGS and the like, which
            need penalties in the loss.
        model: whose parameters the optimizer trains.
        gradient_normalization: one of DL4J's names, such as ``"ClipL2PerLayer"``.
        gradient_normalization_threshold: what the clipping ones clip at, > 0.
        penalties, bias_penalties: ``L1``, ``L2``, ``WeightDecay`` of ``dl4py.config``,
            on parameters whose names do not, or do, end in ``bias``.
        constraints: ``MaxNorm``, ``MinMaxNorm``, ``UnitNorm``, ``NonNegative``, on all
            but biases; their ``dimensions`` are DL4J's axes, of a ``Linear``'s weight
            those of ``[in, out]``.
        clock: what schedules go by, and those of :func:`with_dropout`.

    Returns:
        a handle with ``penalty()``, ``clock`` and ``remove()``.

    Example:
        >>> from dl4py.config import L2, MaxNorm
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> rules = regularize(optimizer, model, penalties=[L2(1e-4)],
        ...     gradient_normalization="ClipL2PerLayer", constraints=[MaxNorm(2.0)])
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> _ = optimizer.step()
        >>> rules.clock.iteration
        1
    """
    if isinstance(optimizer, (Solver, torch.optim.LBFGS)):
        raise ValueError(
            f"regularize(optimizer=...): {type(optimizer).__name__} evaluates its "
            "closure several times; add penalties to the loss that it returns"
        )
    if gradient_normalization not in (None, "None", *MODES):
        raise ValueError(
            "regularize(gradient_normalization=...): expected one of "
            f"{', '.join(MODES)}, got {gradient_normalization!r}"
        )
    if not gradient_normalization_threshold > 0:
        raise ValueError(
            "regularize(gradient_normalization_threshold=...): expected a number > 0, "
            f"got {gradient_normalization_threshold!r}"
        )
    known = {p for group in optimizer.param_groups for p in group["params"]}
    layers: list[list[tuple[nn.Module, str, Tensor]]] = [
        [(m, n, p) for n, p in m.named_parameters(recurse=False) if p in known]
        for m in model.modules()
    ]
    if not any(layers):
        raise ValueError(
            "regularize(optimizer, model): the optimizer has none of the model's "
            "parameters; make it with model.parameters()"
        )
    mode = None if gradient_normalization == "None" else gradient_normalization
    rules = Rules(
        [layer for layer in layers if layer],
        mode,
        gradient_normalization_threshold,
        (
            _all("penalties", penalties, Regularization),
            _all("bias_penalties", bias_penalties, Regularization),
        ),
        _all("constraints", constraints, Constraint),
        clock or Clock(),
    )
    before: Any = optimizer.register_step_pre_hook(rules.before)
    rules._handles += [before, optimizer.register_step_post_hook(rules.after)]
    return rules


def _all(name: str, given: Iterable[Any], kind: type[Any]) -> tuple[Any, ...]:
    found = tuple(given)
    for item in found:
        if not isinstance(item, kind):
            raise TypeError(
                f"regularize({name}=...): expected {kind.__name__}s of dl4py.config, "
                f"got {item!r}"
            )
    return found


def _kind(
    argument: str, given: Any, of_number: Callable[[Any], Any], kind: type[Any]
) -> Any:
    if isinstance(given, kind):
        return given
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if number or SCHEDULES.entry_of(type(given)) is not None:
        try:
            return of_number(given)
        except ValueError as error:
            raise ValueError(f"{argument}: {error}") from None
    raise TypeError(
        f"{argument}: expected a probability of keeping, a schedule of it, or one "
        f"of dl4py.config's "
        f"{kind.__name__}s, got {given!r}"
    )
