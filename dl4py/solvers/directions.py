"""Directions: where to go from a gradient and from what earlier steps have shown.

In the formulas g is the gradient before a step and g₊ after it, on the same data;
d is the direction that was taken, s = x₊ - x, y = g₊ - g. A direction has the length of
the step that it expects, keeps what it has learnt in the solver's ``memory``, and reads
nothing from the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from dl4py.registry import DIRECTIONS

Memory = dict[str, Any]


@dataclass
class Taken:
    """A step that was taken.

    Attributes:
        direction: d as the direction gave it, before any learning rate.
        rate: what d was multiplied with; ``None``: not one number.
        step: the length t along rate·d.
        s, y: as above; y is ``None`` where no gradient was computed after the step.
        old, new: g and g₊; ``new`` is ``None`` where it was not computed.
        sy: s·y, a float.
        predicted: g·s, a float.
        square: ‖g‖², a float.
    """

    direction: Tensor
    rate: float | None
    step: float
    s: Tensor
    old: Tensor
    new: Tensor | None
    sy: float
    predicted: float
    square: float


def wide(device: torch.device) -> torch.dtype:
    """The widest type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


class Direction:
    """Base of all directions.

    Attributes:
        learns: whether it needs the gradient after the step.
        wide: entries of ``memory`` that are more precise than the parameters.
    """

    learns: ClassVar[bool] = False
    wide: ClassVar[tuple[str, ...]] = ()

    def at(self, g: Tensor, square: float, memory: Memory) -> Tensor:
        """The direction at a point with gradient ``g``, of squared norm ``square``."""
        raise NotImplementedError

    def learn(self, taken: Taken, memory: Memory) -> None:
        """Remember a step."""

    def forget(self, memory: Memory) -> bool:
        """Back to the steepest descent; whether that may help."""
        known = self.knows(memory)
        memory.clear()
        return known

    def knows(self, memory: Memory) -> bool:
        """Whether the direction is another than that of the steepest descent."""
        return False


@DIRECTIONS.add("steepest", "gradient")
class Steepest(Direction):
    """d = -a·g, where a is twice the step that was accepted last, 1 at first.

    Where a search found nothing, a becomes a thousandth, 1e-9 at least.
    """

    def __init__(self, adapts: bool = True) -> None:
        self.adapts = adapts

    def at(self, g: Tensor, square: float, memory: Memory) -> Tensor:
        length: float = memory.get("length", 1.0)
        return g * -length

    def learn(self, taken: Taken, memory: Memory) -> None:
        if self.adapts:
            memory["length"] = 2 * taken.step * memory.get("length", 1.0)

    def forget(self, memory: Memory) -> bool:
        memory["length"] = max(1e-3 * memory.get("length", 1.0), 1e-9)
        return self.adapts


@DIRECTIONS.add("conjugate", "conjugate_gradient")
class Conjugate(Direction):
    """d₊ = -P·g₊ + β·d, non-linear conjugate gradients.

    =========== ==================================================
    beta        β
    =========== ==================================================
    pr          max(0, g₊·Py / g·Pg), Polak and Ribière
    fr          g₊·Pg₊ / g·Pg, Fletcher and Reeves
    hs          max(0, g₊·Py / d·y), Hestenes and Stiefel
    dy          g₊·Pg₊ / d·y, Dai and Yuan
    hz          max(η, (Py - 2·d·(y·Py)/(d·y))·g₊ / d·y), Hager and Zhang, with
                η = 0.4·(g·d)/(d·P⁻¹d)
    =========== ==================================================

    P is 1, or with ``preconditioner="rms"`` the diagonal 1 / (√v + 0.001·mean(√v)), v a
    running mean of squared gradients: v ← decay·v + (1 - decay)·g₊², as RmsProp scales
    with. Layers of a network whose gradients differ by orders of magnitude then learn
    at one pace. P changes from step to step, so that a quadratic of n dimensions takes
    more than n steps.

    β is 0 where |g₊·Pg| >= powell·g₊·Pg₊ (Powell's restart; with ``hz`` never), where
    d₊·g₊ > -0.01·g₊·Pg₊, and every ``restart`` steps. The first step expected is
    t·(g·d)/(g₊·d₊), the one before scaled by the ratio of slopes, and goes at most
    twice as far as that went.

    Args:
        beta: a name of the table.
        powell: ν, 0.2 by Powell; infinite: never.
        restart: a number of steps, or ``None`` for the number of parameters.
        preconditioner: ``"rms"`` or ``None``.
        decay: in [0, 1), how slowly v changes.

    Reference: Nocedal and Wright, Numerical Optimization, 2006, section 5.2; Hager and
        Zhang, A survey of nonlinear conjugate gradient methods, 2006, and The limited
        memory conjugate gradient method, 2013 (η).
    """

    learns = True
    betas = ("pr", "fr", "hs", "dy", "hz")
    preconditioners = ("rms", None)

    def __init__(
        self,
        beta: str = "pr",
        powell: float = 0.2,
        restart: int | None = None,
        preconditioner: str | None = None,
        decay: float = 0.9,
    ) -> None:
        for name, value, known in (
            ("beta", beta, self.betas),
            ("preconditioner", preconditioner, self.preconditioners),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay!r}")
        self.beta = beta
        self.powell = powell
        self.restart = restart
        self.preconditioner = preconditioner
        self.decay = decay

    def at(self, g: Tensor, square: float, memory: Memory) -> Tensor:
        if "d" not in memory:
            expected = g.new_tensor(1.0 / max(1.0, math.sqrt(square)))
            memory["expected"] = expected
            return g * -expected
        d: Tensor = memory["d"]
        beta: Tensor = memory["beta"]
        p = self._p(memory)
        pg = g if p is None else p * g
        gg, gd = g.dot(pg), g.dot(d)
        descends = beta * gd - gg <= -0.01 * gg
        beta = torch.where(descends & beta.isfinite(), beta, 0.0)
        now = d * beta - pg
        slope = beta * gd - gg
        length: Tensor = memory["slope"] / slope * memory["length"]
        # never more than twice as far as the last step went
        length = length.minimum(2.0 * memory["length"] * d.norm() / now.norm())
        memory["expected"] = length
        return now * length

    def knows(self, memory: Memory) -> bool:
        return "d" in memory

    def learn(self, taken: Taken, memory: Memory) -> None:
        g, new = taken.old, taken.new
        assert new is not None
        expected = memory.pop("expected")
        d = taken.direction / expected
        if self.preconditioner is not None:
            self._rescale(new, memory)
        count = memory.get("count", 0) + 1
        if count >= (self.restart or len(g)):
            beta, count = g.new_zeros(()), 0
        else:
            beta = self._beta(g, new, d, self._p(memory))
        length = expected * taken.step
        memory.update(d=d, beta=beta, count=count, length=length, slope=g.dot(d))

    def _p(self, memory: Memory) -> Tensor | None:
        """P, or ``None`` where it is 1, as after a checkpoint written without it."""
        return None if self.preconditioner is None else memory.get("p")

    def _rescale(self, new: Tensor, memory: Memory) -> None:
        """P from v, v from the gradient after a step."""
        squares = new * new
        if "squares" in memory:
            squares = squares.lerp_(memory["squares"], self.decay)
        root = squares.sqrt()
        floor = 1e-3 * root.mean() + torch.finfo(root.dtype).tiny
        memory.update(squares=squares, p=root.add_(floor).reciprocal_())

    def _beta(self, g: Tensor, new: Tensor, d: Tensor, p: Tensor | None) -> Tensor:
        y = new - g
        py, pn = (y, new) if p is None else (p * y, p * new)
        dy, square = d.dot(y), new.dot(pn)
        if self.beta == "hz":
            beta = (py.dot(new) - 2 * y.dot(py) / dy * d.dot(new)) / dy
            return beta.maximum(0.4 * g.dot(d) / d.dot(d if p is None else d / p))
        mixed = g.dot(pn)
        if self.beta in ("pr", "fr"):
            below = g.dot(pn - py)
        else:
            below = dy
        above = square if self.beta in ("fr", "dy") else (square - mixed)
        beta = above / below
        if self.beta in ("pr", "hs"):
            beta = beta.clamp(min=0)
        if self.powell < math.inf:
            beta = torch.where(mixed.abs() < self.powell * square, beta, 0.0)
        return beta


@DIRECTIONS.add("lbfgs")
class LimitedMemory(Direction):
    """d = -H·g, with H from the last pairs (s, y) by the BFGS formula, compact form.

    H = γI + [S, γY]·[[R⁻ᵀ(D + γYᵀY)R⁻¹, -R⁻ᵀ], [-R⁻¹, 0]]·[Sᵀ; γYᵀ], where R is the
    upper triangle of SᵀY, D its diagonal, γ = s·y / y·y of the newest pair: two
    matrix-vector products in place of a loop over pairs. Without pairs
    d = -g / max(1, ‖g‖).

    A pair must have s·y > 1e-8·sᵀBs, B = H⁻¹. With ``damping`` y is replaced by
    θ·y + (1-θ)·B·s with the largest θ <= 1 for which s·y >= damping·sᵀBs (Powell), so
    that noise or negative curvature cost no pair.

    Args:
        history_size: the number of pairs, >= 1; None: see :meth:`held`.
        damping: in [0, 1); 0 keeps every y as it is.

    Reference: Byrd, Nocedal and Schnabel, Representations of quasi-Newton matrices,
        1994; Powell, Algorithms for nonlinear constraints, 1978.
    """

    learns = True
    wide = ("sy", "yy")  # small, their entries differ by many orders of magnitude

    def __init__(self, history_size: int | None = None, damping: float = 0.2) -> None:
        self.history_size = history_size
        self.damping = damping

    def held(self, size: int) -> int:
        """How many pairs of vectors of ``size`` are kept at most.

        By default 100, where they are small beside what a gradient takes, and fewer
        from 167,772 numbers on, where 2²⁴ in all s are the limit, but not below 20.

        >>> [LimitedMemory().held(n) for n in (500, 400_000, 10**9)]
        [100, 41, 20]
        """
        return self.history_size or max(20, min(100, 2**24 // size))

    def at(self, g: Tensor, square: float, memory: Memory) -> Tensor:
        kept = memory.get("kept", 0)
        if not kept:
            return g * (-1.0 / max(1.0, math.sqrt(square)))
        k = min(kept, self.held(len(g)))  # fewer than a checkpoint may bring
        end = memory["first"] + kept
        window = slice(end - k, end)  # the oldest pair first
        rows = memory["pairs"][window].view(2 * k, -1)
        sy = memory["sy"][window, window].triu()
        yy = memory["yy"][window, window]
        dots = (rows @ g).view(k, 2).to(sy.dtype)
        gamma = sy[-1, -1] / yy[-1, -1]
        v = torch.linalg.solve_triangular(sy, dots[:, :1], upper=True)
        right = sy.diagonal().unsqueeze(1) * v + gamma * (yy @ v - dots[:, 1:])
        first = torch.linalg.solve_triangular(sy.T, right, upper=False)
        factors = torch.cat([first, -gamma * v], 1).to(g.dtype)
        d = torch.addmv(g * gamma.to(g.dtype), rows.T, factors.view(-1))
        return d.neg_()

    def knows(self, memory: Memory) -> bool:
        return bool(memory.get("kept", 0))

    def learn(self, taken: Taken, memory: Memory) -> None:
        assert taken.new is not None
        s, y, sy = taken.s, taken.new - taken.old, taken.sy
        # B·s = -t·rate·g, since d = -H·g
        scale = -taken.step * taken.rate if taken.rate is not None else math.nan
        curvature = scale * taken.predicted
        if self.knows(memory) and curvature > 0 and sy < self.damping * curvature:
            theta = (1 - self.damping) * curvature / (curvature - sy)
            y = theta * y + ((1 - theta) * scale) * taken.old
            sy = self.damping * curvature
        if math.isnan(curvature):
            curvature = 0.0
        if not (math.isfinite(sy) and sy > 1e-8 * curvature and sy > 0):
            return
        self._store(s, y, memory)

    def _store(self, s: Tensor, y: Tensor, memory: Memory) -> None:
        m = self.held(len(s))
        capacity = m + max(1, m // 4)  # so that pairs move seldom, and stay in order
        if "pairs" not in memory:
            size = min(8, capacity)
            memory["pairs"] = s.new_zeros(size, 2, len(s))
            for name in self.wide:
                memory[name] = s.new_zeros(size, size, dtype=wide(s.device))
            memory["first"] = 0
        kept, first = memory.get("kept", 0), memory["first"]
        k = min(kept, m - 1)
        first += kept - k
        new = first + k
        if new == len(memory["pairs"]):
            if new < capacity:
                self._grow(min(2 * new, capacity), memory)
            else:
                for i in range(k):
                    memory["pairs"][i].copy_(memory["pairs"][first + i])
                for small in (memory["sy"], memory["yy"]):
                    small[:k, :k] = small[first:new, first:new].clone()
                first, new = 0, k
        pairs, sy, yy = memory["pairs"], memory["sy"], memory["yy"]
        pairs[new, 0].copy_(s)
        pairs[new, 1].copy_(y)
        window = slice(first, new + 1)
        column = (pairs[window].view(2 * (k + 1), -1) @ y).view(k + 1, 2).to(sy.dtype)
        sy[window, new] = column[:, 0]
        yy[window, new] = yy[new, window] = column[:, 1]
        memory["first"], memory["kept"] = first, k + 1
        memory["count"] = memory.get("count", 0) + 1  # of all that were ever stored

    @staticmethod
    def _grow(size: int, memory: Memory) -> None:
        """Room for ``size`` pairs: those that there are not yet take no memory."""
        extra = size - len(memory["pairs"])
        memory["pairs"] = pad(memory["pairs"], (0, 0, 0, 0, 0, extra))
        for name in ("sy", "yy"):
            memory[name] = pad(memory[name], (0, extra, 0, extra))
