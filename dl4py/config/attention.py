"""Attention: between the series of a graph, and of a series on itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.inputs import InputType, Recurrent
from dl4py.config.kinds import Integer, field, flag
from dl4py.config.layer import ConfigurationError
from dl4py.config.samediff import ACTIVATIONS, INITS, SameDiff
from dl4py.config.vertex import TrainedVertex, time_series
from dl4py.registry import LAYERS, VERTICES


def _share_out(conf: Any) -> None:
    """Fill in the size of a head where it follows from ``n_out`` and ``n_heads``."""
    sizes = conf.n_out, conf.n_heads
    if conf.head_size is not None or not all(isinstance(s, int) and s for s in sizes):
        return  # fields are checked where all are known
    if conf.n_out % conf.n_heads:
        raise ConfigurationError(
            f"head_size: must be given where n_out = {conf.n_out} is no multiple "
            f"of n_heads = {conf.n_heads}"
        )
    object.__setattr__(conf, "head_size", conf.n_out // conf.n_heads)


@VERTICES.add("attention_vertex", "attention", java="AttentionVertex")
@dataclass(frozen=True, kw_only=True)
class AttentionVertex(TrainedVertex):
    """Dot-product attention of queries on keys and values, with several heads.

    softmax(q·kᵀ/√d)·v for every head, where q, k and v are the three inputs times Wq,
    Wk and Wv and d is ``head_size``; the heads beside each other times Wo. Without
    ``project_input`` q, k and v are the inputs themselves.

    The inputs are queries, keys and values, in this order. A key or value that is
    masked counts as 1e9 less before the softmax; the outputs of masked queries are 0,
    and the mask of the queries goes on.

    Args:
        n_in_queries, n_in_keys, n_in_values: sizes of the inputs; they follow from the
            input types.
        n_out: size of the output, >= 1.
        n_heads: heads, >= 1.
        head_size: size of a head, >= 1; default: ``n_out / n_heads``.
        project_input: whether there are weights; without them all sizes are equal and
            ``n_heads`` is 1.
        weight_init: DL4J's word for it.

    Reference: Vaswani et al., Attention Is All You Need, 2017.
    DL4J: org.deeplearning4j.nn.conf.graph.AttentionVertex
    """

    n_in_queries: int | None = field(None, Integer(1, bits=63), json="ninQueries")
    n_in_keys: int | None = field(None, Integer(1, bits=63), json="ninKeys")
    n_in_values: int | None = field(None, Integer(1, bits=63), json="ninValues")
    n_out: int | None = field(None, Integer(1, bits=63), json="nout")
    n_heads: int = field(1, Integer(1), json="nheads")
    head_size: int | None = field(None, Integer(1))
    project_input: bool = field(False, flag)
    weight_init: str = field("XAVIER", INITS)

    least: ClassVar[int] = 3
    most: ClassVar[int | None] = 3
    roles: ClassVar[tuple[str, ...]] = ("queries", "keys", "values")

    def __post_init__(self) -> None:
        super().__post_init__()
        _share_out(self)

    def with_inputs(self, given: tuple[InputType, ...]) -> AttentionVertex:
        sizes = {}
        for role, g in zip(self.roles, given, strict=True):
            own, size = getattr(self, f"n_in_{role}"), time_series(g).size
            if own not in (None, size):
                raise ConfigurationError(
                    f"n_in_{role}: the input has size {size}, got {own}; leave it out "
                    "to have it inferred"
                )
            sizes[f"n_in_{role}"] = size
        return replace(self, **sizes)  # type: ignore[no-any-return]

    def check(self) -> None:
        names = [*(f"n_in_{role}" for role in self.roles), "n_out"]
        sizes = [getattr(self, name) for name in names]
        for name, size in zip(names, sizes, strict=True):
            if size is None:
                hint = "" if name == "n_out" else " or set_input_types(...)"
                raise ConfigurationError(
                    f"{name}: expected a whole number >= 1, got nothing; give it{hint}"
                )
        if not self.project_input and (len(set(sizes)) > 1 or self.n_heads > 1):
            raise ConfigurationError(
                "project_input: without it n_heads must be 1 and all sizes equal, got "
                f"n_heads = {self.n_heads} and {sizes}; use project_input=True"
            )

    def output(self, given: tuple[InputType, ...]) -> InputType:
        length = time_series(given[0]).length
        assert self.n_out is not None
        known = {time_series(g).length for g in given[1:]} - {None}
        if len(known) > 1:
            raise ConfigurationError(
                "inputs: keys and values must be equally long, got "
                f"{given[1]} and {given[2]}"
            )
        return Recurrent(self.n_out, length)

    def shapes(self) -> dict[str, list[Any]]:
        """DL4J's shapes of the weights."""
        if not self.project_input:
            return {}
        heads, size = self.n_heads, self.head_size
        assert size is not None
        return {
            "Wq": [heads, size, self.n_in_queries],
            "Wk": [heads, size, self.n_in_keys],
            "Wv": [heads, size, self.n_in_values],
            "Wo": [heads * size, self.n_out],
        }

    def around(self) -> dict[str, Any]:
        inputs = list(self.roles)
        return {
            "vertexParams": {
                "biasParams": {},
                "inputs": inputs,
                "weightParams": self.shapes(),
            }
        }


@dataclass(frozen=True, kw_only=True)
class _Attention(SameDiff):
    """Base of attention of a series on itself.

    Args:
        n_in: features coming in; ``None`` follows from the layer before.
        n_out: features going out, >= 1.
        n_heads: heads, >= 1.
        head_size: size of a head, >= 1; default: ``n_out / n_heads``.
        project_input: whether there are weights.
    """

    n_in: int | None = field(None, Integer(1, bits=63), json="nin")
    n_out: int | None = field(None, Integer(1, bits=63), json="nout")
    n_heads: int = field(1, Integer(1), json="nheads")
    head_size: int | None = field(None, Integer(1))
    project_input: bool = field(True, flag)

    family: ClassVar[str] = "rnn"
    leading: ClassVar[tuple[str, ...]] = ("n_in", "n_out", "n_heads")

    def __post_init__(self) -> None:
        _share_out(self)

    def with_input(self, given: InputType) -> Any:
        size = self.series(given).size
        if self.n_in not in (None, size):
            raise ConfigurationError(
                f"n_in: the layer before gives {size}, got {self.n_in}; leave n_in out "
                "to have it inferred"
            )
        sized = replace(self, n_in=size)
        sized.check()
        return sized

    def series(self, given: InputType) -> Recurrent:
        """``given`` as the series that comes in; DL4J has no other format here."""
        if not isinstance(given, Recurrent):
            return Recurrent(given.features)
        if given.format != "NCW":
            raise ConfigurationError(
                "input: expected [n, size, time], format NCW, got NWC; attention knows "
                "no other format"
            )
        return given

    def output(self, given: InputType) -> InputType:
        assert self.n_out is not None
        return Recurrent(self.n_out, self.series(given).length)

    def check(self) -> None:
        if self.n_out is None:
            raise ValueError("n_out: expected a whole number >= 1, got nothing")
        alike = self.n_in in (None, self.n_out) and self.head_size == self.n_out
        if not self.project_input and (self.n_heads > 1 or not alike):
            raise ValueError(
                "project_input: without it n_heads must be 1 and n_in, n_out and "
                f"head_size equal, got n_heads = {self.n_heads} and {self.n_in}, "
                f"{self.n_out}, {self.head_size}; use project_input=True"
            )

    def weight_shapes(self) -> dict[str, list[Any]]:
        if not self.project_input:
            return {}
        heads, size = self.n_heads, self.head_size or 0  # 0: not known yet
        return {
            **{name: [heads, size, self.n_in] for name in ("Wq", "Wk", "Wv")},
            "Wo": [heads * size, self.n_out],
        }


@LAYERS.add("self_attention", java="SelfAttentionLayer")
@dataclass(frozen=True, kw_only=True)
class SelfAttention(_Attention):
    """Dot-product attention of a series on itself, with several heads.

    softmax(q·kᵀ/√d)·v for every head, where q, k and v are the input times Wq, Wk and
    Wv and d is ``head_size``; the heads beside each other times Wo. Without
    ``project_input`` q, k and v are the input itself. Steps that are masked count as
    1e9 less before the softmax; their own outputs are not 0, and the mask goes on.

    Args:
        n_in: features coming in; ``None`` follows from the layer before.
        n_out: features going out, >= 1.
        n_heads: heads, >= 1; without ``project_input`` 1.
        head_size: size of a head, >= 1; default: ``n_out / n_heads``.
        project_input: whether there are weights; without them ``n_out`` is ``n_in``.
        weight_init: DL4J's word for it.

    Reference: Vaswani et al., Attention Is All You Need, 2017.
    DL4J: org.deeplearning4j.nn.conf.layers.SelfAttentionLayer
    """

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_in=3, n_out=4, n_heads=2), Recurrent(3, 5)


@LAYERS.add("learned_self_attention", java="LearnedSelfAttentionLayer")
@dataclass(frozen=True, kw_only=True)
class LearnedSelfAttention(_Attention):
    """Dot-product attention of learned queries on a series: a series of fixed length.

    As :class:`SelfAttention`, but q is made of ``n_queries`` vectors of size ``n_in``
    that are parameters, the same for every example. The output has one step for each of
    them, and no mask goes on. DL4J itself cannot run this layer.

    Args:
        n_queries: the number of queries, >= 1.
        n_in, n_out, n_heads, head_size, project_input, weight_init: as in
            :class:`SelfAttention`.

    DL4J: org.deeplearning4j.nn.conf.layers.LearnedSelfAttentionLayer
    """

    n_queries: int = field(1, Integer(1), json="nqueries")

    leading: ClassVar[tuple[str, ...]] = ("n_in", "n_out", "n_queries", "n_heads")

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_in=3, n_out=4, n_heads=2, n_queries=2), Recurrent(3, 5)

    def output(self, given: InputType) -> InputType:
        assert self.n_out is not None
        return Recurrent(self.n_out, self.n_queries)

    def weight_shapes(self) -> dict[str, list[Any]]:
        return {"Q": [1, self.n_in, self.n_queries], **super().weight_shapes()}


@LAYERS.add("recurrent_attention", java="RecurrentAttentionLayer")
@dataclass(frozen=True, kw_only=True)
class RecurrentAttention(_Attention):
    """A recurrent layer that looks at the whole series at every step.

    h = act(x·W + a·R + b), where a is the dot-product attention of h₋₁ as the query on
    all of the input; the first step has no a. Masked steps are not looked at. No mask
    goes on.

    Args:
        activation: DL4J's word for it.
        has_bias: whether there is a b.
        n_in, n_out, n_heads, head_size, project_input, weight_init: as in
            :class:`SelfAttention`.
        time_steps: kept for DL4J's files; it changes nothing.

    DL4J: org.deeplearning4j.nn.conf.layers.RecurrentAttentionLayer
    """

    activation: str = field("TANH", ACTIVATIONS)
    has_bias: bool = field(True, flag)
    time_steps: int = field(0, Integer(0))

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_in=3, n_out=4, n_heads=2), Recurrent(3, 5)

    def weight_shapes(self) -> dict[str, list[Any]]:
        shapes = super().weight_shapes()
        if shapes:
            shapes["Wq"] = [self.n_heads, self.head_size, self.n_out]
        own = {"W": [self.n_in, self.n_out], "RW": [self.n_out, self.n_out]}
        return {**own, **shapes}

    def bias_shapes(self) -> dict[str, list[Any]]:
        return {"b": [self.n_out]} if self.has_bias else {}
