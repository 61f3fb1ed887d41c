"""ND4J's CPU generator, bit for bit."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from dl4py.noise.base import Like, Noise
from dl4py.noise.shuffles import permutation
from dl4py.ops.native import DTYPES, bits_at, draw, native_draw_op, unit_at
from dl4py.ops.register import uncompiled

F = TypeVar("F", bound=Callable[..., Any])
_compiling = torch.compiler.is_compiling
_HALF, _WORD = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_NEVER = 0xDEADBEEF  # an advance by it leaves the new node as it is
_STATE = "int64 tensor [root, node, bits] of get_state()"


def _eager(method: F) -> F:
    """``method`` as it is also under ``torch.compile``, which goes on around it."""
    apart = uncompiled(method)

    @functools.wraps(method)
    def either(*args: Any, **kwargs: Any) -> Any:
        return (apart if _compiling() else method)(*args, **kwargs)

    return either  # type: ignore[return-value]


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


class NativeRandom(Noise):
    """ND4J's CPU generator: after ``Nd4j.getRandom().setSeed(seed)`` DL4J's numbers.

    A number is a function of state and place, so that neither size nor threads change
    it; every op that draws advances the state once. Uniforms have 23 bits, also in
    float64. Arrays are filled in the order of ND4J's memory: a tensor whose memory is
    column by column (``empty(..., order="f")``, ``t.t()`` of a new one) that way, any
    other row by row. Draws on any device are the same; ``torch.compile`` leaves them as
    they are, and a CUDA graph would replay the same ones.

    Without a C++ compiler float32 normals may differ from ND4J's by 2 ulp, and its
    ``log``, ``sin`` and ``cos`` are those of the C library, glibc.

    Args:
        seed: a whole number of 64 bits; ND4J takes 0 for the present time, which is
            refused.
        bits: 23, or 32 for what DL4J's snapshots of April 2020 drew.

    Attributes:
        root, node: ND4J's ``rootState()`` and ``nodeState()``.

    Example:
        >>> random = NativeRandom(42)
        >>> random.uniform(3), random.normal((2, 2)).shape
        (tensor([0.1991, 0.3783, 0.9340]), torch.Size([2, 2]))

    DL4J: org.nd4j.linalg.cpu.nativecpu.rng.CpuNativeRandom
    """

    native = True

    def __init__(self, seed: int, bits: int = 23) -> None:
        super().__init__()
        if bits not in (23, 32) or isinstance(bits, bool):
            raise ValueError(
                f"NativeRandom(bits=...): expected 23, or 32 for files of April 2020, "
                f"got {bits!r}"
            )
        self.order = "c"
        self._state = {"bits": bits}
        self._sine: list[float] = []  # what next_gaussian has left
        self.set_seed(seed)

    def set_seed(self, seed: int) -> None:
        """Start anew: ND4J's ``setSeed``."""
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(
                f"NativeRandom(seed=...): expected a whole number, got {seed!r}"
            )
        if not seed or not -(1 << 63) <= seed < 1 << 64:
            why = "0 is the present time in ND4J" if not seed else "64 bits at most"
            raise ValueError(
                f"NativeRandom(seed=...): {why}, got {seed}; take another number"
            )
        node = (seed ^ 0xFFFFFFFFDEADBEEF) & _WORD or 1298567341
        self._state.update(root=seed & _WORD, node=node)
        self._sine.clear()

    @property
    def bits(self) -> int:
        """Of every uniform."""
        return self._state["bits"]

    @property
    def root(self) -> int:
        """ND4J's ``rootState()``: the seed."""
        return _signed(self._state["root"])

    @property
    def node(self) -> int:
        """ND4J's ``nodeState()``: changes with every draw."""
        return _signed(self._state["node"])

    def get_state(self) -> Tensor:
        """The state, an int64 tensor for :meth:`set_state` and checkpoints."""
        sine = torch.tensor(self._sine, dtype=torch.float64).view(torch.int64)
        return torch.cat([torch.tensor([self.root, self.node, self.bits]), sine])

    def set_state(self, state: Tensor) -> None:
        """Go on from where :meth:`get_state` was asked."""
        known = isinstance(state, Tensor) and state.dtype == torch.int64
        if not known or state.shape not in ((3,), (4,)) or state[2] not in (23, 32):
            raise ValueError(
                f"NativeRandom.set_state(state): expected the {_STATE}, got {state!r}"
            )
        root, node, bits = map(int, state[:3])
        self._state.update(root=root & _WORD, node=node & _WORD, bits=bits)
        self._sine[:] = state[3:].cpu().view(torch.float64).tolist()

    @classmethod
    def from_state(cls, state: Tensor) -> NativeRandom:
        """A generator that goes on from the state of another."""
        made = cls(1)
        made.set_state(state)
        return made

    def __repr__(self) -> str:
        return f"NativeRandom({self.root}, bits={self.bits}), node={self.node}"

    @property
    def source(self) -> NativeRandom:
        """Itself."""
        return self

    def torchs(self) -> torch.Generator:
        """A new generator of torch's, seeded by :meth:`next_long`."""
        return torch.Generator().manual_seed(self.next_long())

    def ordered(self, order: str) -> NativeRandom:
        """The same generator, for arrays that ND4J holds in ``order``, "c" or "f"."""
        if order == self.order:
            return self
        other = NativeRandom.__new__(NativeRandom)
        vars(other).update(vars(self), order=order)  # one state for both
        return other

    def advance(self, n: int) -> None:
        """What every op over ``n`` elements does to the state in its end."""
        node = self._state["node"]
        low, high = node & _HALF, node >> 32
        high ^= low
        first = _rotated(low, 26) ^ high ^ (high << 9 & _HALF)
        self._state["node"] = (first | _rotated(high, 13) << 32) ^ (n ^ _NEVER) & _WORD

    def empty(self, like: Like, order: str | None = None) -> Tensor:
        """Room for draws in shape, dtype and device of ``like``, or of a shape."""
        if not isinstance(like, Tensor):
            like = torch.empty(like, device="meta")
            made = torch.empty(like.shape)
        else:
            made = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        if (order or self.order) == "c" or made.dim() < 2:
            return made
        return made.reshape(made.shape[::-1]).permute(*reversed(range(made.dim())))

    def _fill(self, t: Tensor, kind: str, a: float, b: float = 0.0) -> Tensor:
        n, flat = t.numel(), _flat(t)
        if not n:
            return t
        x = torch.empty(n, dtype=t.dtype, device=t.device) if flat is None else flat
        fill = native_draw_op if t.dtype in DTYPES else draw  # half types: the formula
        fill(x, self.root, self.node, self.bits, kind, a, b)
        if flat is None:
            _write(t, x)
        self.advance(n)
        return t

    @_eager
    def uniform_(self, t: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        """low + u·(high - low)."""
        return self._fill(t, "uniform", low, high)

    @_eager
    def normal_(self, t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Box and Muller's: √(-2·ln r₀)·cos(2π·r₁), the second half with sin."""
        return self._fill(t, "normal", mean, std)

    @_eager
    def truncated_normal_(
        self, t: Tensor, mean: float = 0.0, std: float = 1.0
    ) -> Tensor:
        """Normal; what lies beyond 2·std is drawn once more, and then the mean."""
        return self._fill(t, "truncated", mean, std)

    @_eager
    def log_normal_(self, t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """exp of a normal."""
        return self._fill(t, "log_normal", mean, std)

    @_eager
    def keep_(self, t: Tensor, p: float) -> Tensor:
        """1 where u < p, else 0."""
        return self._fill(t, "keep", p)

    @_eager
    def bernoulli_(self, t: Tensor, p: float) -> Tensor:
        """1 where u <= p, else 0."""
        return self._fill(t, "bernoulli", p)

    @_eager
    def binomial_(self, t: Tensor, trials: int, p: float) -> Tensor:
        """How often u < p, for u at places k, 2k, 3k, …, k up to ``trials``.

        The places of different elements meet: they are not independent in ND4J.
        """
        n, dtype = t.numel(), torch.promote_types(t.dtype, torch.float32)
        place = torch.arange(1, n + 1, device=t.device)
        least = float(torch.tensor(p, dtype=dtype))
        total = torch.zeros(n, dtype=dtype, device=t.device)
        for k in range(1, trials + 1):
            total += unit_at(place * k, self.root, self.node, self.bits, dtype) < least
        _write(t, total)
        if n and trials:
            self.advance(n)
        return t

    @_eager
    def orthogonal_(self, t: Tensor, gain: float = 1.0) -> Tensor:
        """Left vectors of a normal matrix, or leading rows of the right ones if wide.

        Their signs are those of the linear algebra at hand, in ND4J too.
        """
        wide = torch.promote_types(t.dtype, torch.float32)
        z = self.normal_(torch.empty(t.shape, dtype=wide, device=t.device))
        u, _, vh = torch.linalg.svd(z, full_matrices=True)
        rows, columns = t.shape
        q = u[:, :columns] if rows >= columns else vh.t()[:rows]
        return t.copy_(gain * q)

    def orthogonal(self, shape: Like, gain: float = 1.0) -> Tensor:
        """:meth:`orthogonal_` in a new tensor of two axes."""
        return self.orthogonal_(self.empty(shape, "c"), gain)

    def choice(self, values: Tensor, probabilities: Tensor, like: Like) -> Tensor:
        """Of ``values`` the first whose cumulative probability reaches u.

        Args:
            values, probabilities: ``[k]`` each.
            like: shape of what is drawn.
        """
        if values.dim() != 1 or values.shape != probabilities.shape:
            raise ValueError(
                "NativeRandom.choice(values, probabilities): expected one probability "
                f"for each of [k] values, got shapes {tuple(values.shape)} and "
                f"{tuple(probabilities.shape)}"
            )
        sums = probabilities.cumsum(0)
        u = self.uniform(like).to(sums)
        place = torch.searchsorted(sums, u).clamp(max=values.numel() - 1)
        return values[place]

    def permutation(self, n: int) -> Tensor:
        """The rows of :func:`permutation` for this seed; the state stays as it is."""
        return permutation(n, self.root)

    def seed(self, like: Tensor) -> Tensor:
        """A 0-d int64 seed for a random op of torch: :meth:`next_long`."""
        return torch.tensor(self.next_long(), device=like.device)

    def _bits(self, place: int) -> int:
        return int(bits_at(torch.tensor(place), self.root, self.node))

    def next_int(self, low: int | None = None, high: int | None = None) -> int:
        """``nextInt()``, ``nextInt(high)`` or ``nextInt(low, high)``."""
        drawn = self._bits(1)
        drawn = drawn if drawn < 1 << 31 else drawn % ((1 << 31) - 1)
        self.advance(_NEVER)
        if low is None:
            return drawn
        return drawn % low if high is None else low + drawn % (high - low)

    def next_boolean(self) -> bool:
        """``nextBoolean()``."""
        return self.next_int() % 2 == 0

    def next_long(self) -> int:
        """``nextLong()``."""
        drawn = (self._bits(1) << 32) + self._bits(1 << 32)
        self.advance(_NEVER)
        return drawn if drawn < 1 << 63 else drawn % ((1 << 63) - 1)

    def next_float(self) -> float:
        """``nextFloat()`` and ``nextDouble()``."""
        place = torch.tensor(1)
        u = unit_at(place, self.root, self.node, self.bits, torch.float64)
        self.advance(_NEVER)
        return float(u)

    def next_gaussian(self) -> float:
        """``nextGaussian()``: of a pair first the cosine, the sine in the next call."""
        if not self._sine:
            u, v = self.next_float(), self.next_float()
            r, angle = math.sqrt(-2 * math.log(u)), 2 * math.pi * v
            self._sine.append(r * math.sin(angle))
            return r * math.cos(angle)
        return self._sine.pop()


def _rotated(x: int, by: int) -> int:
    return (x << by | x >> 32 - by) & _HALF


def _flat(t: Tensor) -> Tensor | None:
    """The memory of ``t`` in its own order, where it has no gaps and is c or f."""
    if t.is_contiguous():
        return t.view(-1)
    turned = t.permute(*reversed(range(t.dim())))
    return turned.view(-1) if turned.is_contiguous() else None


def _write(t: Tensor, drawn: Tensor) -> None:
    """``drawn``, flat, into ``t`` in the order of its memory."""
    flat = _flat(t)
    if flat is None:
        t.copy_(drawn.view(t.shape))
    else:
        flat.copy_(drawn)
