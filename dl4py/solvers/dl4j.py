"""DL4J's own solvers, faults included: what ``dl4j_exact=True`` runs.

One call is one line search along -d, where everything works on u, the gradient after
the updater, in place of the gradient:

- LINE_GRADIENT_DESCENT and CONJUGATE_GRADIENT both take d = u, since DL4J sets the
  conjugate direction back at the beginning of every call;
- LBFGS holds x·u for s·y and u·u for y·y, y = 0 from the second call on, and adds the
  α of one pair to the s of another;
- x is the solver's own: parameters that were set, or constrained, in between are
  forgotten;
- the updater advances twice a call.

DL4J: org.deeplearning4j.optimize.solvers, 1.0.0-M2.1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from dl4py.registry import canonical
from dl4py.solvers.problem import Problem, alike

EPS_THRESHOLD = 1e-5  # added to products that might be 0
MIN_V = 1e-12  # a move that counts as none
ALF, REL_TOLX, TENTH = (torch.tensor(c).item() for c in (1e-4, 1e-7, 0.1))  # floats
PAIRS = 4

# name → (sign, whether the step counts)
STEP_FUNCTIONS = {
    "negativedefault": (-1.0, True),
    "default": (1.0, True),
    "negativegradient": (-1.0, False),
    "gradient": (1.0, False),
}


class Model(Protocol):
    """What DL4J's solvers ask of a network."""

    def params(self) -> Tensor:
        """The parameters, flat."""

    def set_params(self, x: Tensor) -> None:
        """Replace them."""

    def score(self) -> float:
        """The score there."""

    def update(self) -> tuple[float, Tensor]:
        """(score, u) there; it advances the updater."""


class OfProblem:
    """The closure of a solver on its own: u = lr·g, as with DL4J's Sgd."""

    def __init__(self, problem: Problem, rate: Tensor | float) -> None:
        self.problem = problem
        self.rate = rate
        self.x = problem.x

    def params(self) -> Tensor:
        return self.x

    def set_params(self, x: Tensor) -> None:
        self.x = x

    def score(self) -> float:
        return self.problem.read(self.problem.value(self.x))[0]

    def update(self) -> tuple[float, Tensor]:
        if self.x is self.problem.x:  # evaluated before the step
            return self.problem.score, self.rate * self.problem.gradient
        loss, g = self.problem.evaluate(self.x)
        return self.problem.read(loss)[0], self.rate * g


def step_function(name: str | None = None) -> str:
    """The key of a step function in ``STEP_FUNCTIONS``; by DL4J's class or shorter.

    >>> step_function("NegativeDefaultStepFunction"), step_function(None)
    ('negativedefault', 'negativedefault')
    """
    if name is None:
        return "negativedefault"
    key = canonical(name.rpartition(".")[2]).removesuffix("stepfunction")
    if key not in STEP_FUNCTIONS:
        raise ValueError(
            f"step_function must be one of NegativeDefaultStepFunction, "
            "DefaultStepFunction, NegativeGradientStepFunction, GradientStepFunction, "
            f"got {name!r}"
        )
    return key


def optimize(
    model: Model,
    memory: dict[str, Any],
    algorithm: str,
    iterations: int = 5,
    step: str = "negativedefault",
) -> float:
    """One call of DL4J's solver; returns the score after it.

    Args:
        model: the network.
        memory: what the solver keeps; empty at first.
        algorithm: DL4J's name.
        iterations: trials of the line search.
        step: a key of ``STEP_FUNCTIONS``.
    """
    sign, counts = STEP_FUNCTIONS[step]
    if not counts:
        raise ValueError(
            f"step_function: DL4J's solvers throw with the {step} step function; use "
            "NegativeDefaultStepFunction, or dl4j_exact=False"
        )
    score, u = model.update()
    memory.update({name: alike(value, u) for name, value in memory.items()})
    first = "x" not in memory
    x = model.params() if first else memory["x"]
    d = memory.get("d", u) if algorithm == "LBFGS" else u

    def score_at(candidate: Tensor) -> float:
        model.set_params(candidate)
        return model.score()

    length, d = back_track(score_at, score, x, u, d, iterations, step)
    old = x
    if length:
        x = x + sign * length * d
    model.set_params(x)
    score, after = model.update()
    if algorithm == "LBFGS":
        # DL4J: after the first call both gradients are one array
        _learn(memory, old, x, u if first else after, after)
    memory["x"] = x
    return score


def back_track(
    score_at: Callable[[Tensor], float],
    score: float,
    x: Tensor,
    u: Tensor,
    d: Tensor,
    iterations: int,
    step: str = "negativedefault",
    step_max: float = math.inf,
) -> tuple[float, Tensor]:
    """DL4J's line search: (length of the step or 0, the direction it ended with).

    Args:
        score_at: the score of candidates.
        score: the score at ``x``.
        x, u, d: parameters, updated gradient, direction.
        iterations, step: as in :func:`optimize`.
        step_max: the direction is cut to this norm, while the slope keeps its value.
    """
    sign, counts = STEP_FUNCTIONS[step]
    up = 1.0 if step == "negativedefault" else -1.0  # DL4J: all others climb
    slope = -float(d @ u)
    norm = float(d.norm())
    if norm > step_max:
        d = d * (step_max / norm)
    test = float((u.abs() / x.abs().clamp(min=1)).max())
    least = REL_TOLX / test if test else math.inf
    t, last, last_score = 1.0, 0.0, score
    best, best_t = score, 1.0
    for _ in range(iterations):
        candidate = x + (sign * t if counts else sign) * d
        if t < least or bool(((candidate - x).abs() <= MIN_V).all()):
            return 0.0, d
        now = score_at(candidate)
        if up * now < up * best:
            best, best_t = now, t
        if up * now <= up * (score + ALF * t * slope):
            # uphill DL4J throws
            return (t if up * now <= up * score else 0.0), d
        rise, before = up * (now - score), up * (last_score - score)
        if not (math.isfinite(now) and math.isfinite(last_score)):
            proposed = 0.2 * t
        elif t == 1.0:
            proposed = _divided(-slope, 2 * (rise - slope))
        else:
            proposed = min(
                _cubic(t, rise - t * slope, last, before - last * slope, slope), 0.5 * t
            )
        last, last_score = t, now
        t = max(proposed, TENTH * t)
    return (best_t if up * best < up * score else 0.0), d


def _divided(a: float, b: float) -> float:
    """a / b as Java has it."""
    return a / b if b else math.copysign(math.inf, a) if a else math.nan


def _cubic(t: float, rhs: float, last: float, rhs2: float, slope: float) -> float:
    a = _divided(rhs / t**2 - rhs2 / last**2, t - last)
    b = _divided(-last * rhs / t**2 + t * rhs2 / last**2, t - last)
    if a == 0:
        return _divided(-slope, 2 * b)
    root = b * b - 3 * a * slope
    if root < 0:
        return 0.5 * t
    if b <= 0:
        return (-b + math.sqrt(root)) / (3 * a)
    return _divided(-slope, b + math.sqrt(root))


def _learn(
    memory: dict[str, Any], old: Tensor, x: Tensor, u: Tensor, after: Tensor
) -> None:
    """The next direction of DL4J's LBFGS."""
    old = memory.get("old", old)
    sy = float(old @ u) + EPS_THRESHOLD
    yy = float(u @ u) + EPS_THRESHOLD
    # the newest pair first
    s = [x - old, *memory.get("s", [])][:PAIRS]
    y = [after - u, *memory.get("y", [])][:PAIRS]
    rho = [1 / sy, *memory.get("rho", [])][:PAIRS]
    d = after.clone()
    alphas = []
    for si, yi, ri in zip(s, y, rho, strict=True):
        alphas.append(ri * float(si @ d))
        d -= alphas[-1] * yi
    d *= sy / yy
    # from the oldest pair, but the newest α
    for si, yi, ri, alpha in zip(s[::-1], y[::-1], rho[::-1], alphas, strict=True):
        d += (alpha - ri * float(yi @ d)) * si
    memory.update(old=x, s=s, y=y, rho=rho, d=d)
