"""Attention between the series of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.inputs import InputType, Recurrent
from dl4py.config.kinds import Choice, Integer, field, flag
from dl4py.config.layer import ConfigurationError
from dl4py.config.vertices import TrainedVertex, time_series
from dl4py.registry import VERTICES

# DL4J keeps the word of its enum here, which has no room for a distribution
_INITS = Choice(
    *("ZERO", "ONES", "IDENTITY", "NORMAL", "UNIFORM", "SIGMOID_UNIFORM"),
    *("XAVIER", "XAVIER_UNIFORM", "XAVIER_FAN_IN", "XAVIER_LEGACY"),
    *("RELU", "RELU_UNIFORM", "LECUN_NORMAL", "LECUN_UNIFORM"),
    *(
        f"VAR_SCALING_{shape}_FAN_{fan}"
        for shape in ("NORMAL", "UNIFORM")
        for fan in ("IN", "OUT", "AVG")
    ),
)


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
    weight_init: str = field("XAVIER", _INITS)

    least: ClassVar[int] = 3
    most: ClassVar[int | None] = 3
    roles: ClassVar[tuple[str, ...]] = ("queries", "keys", "values")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_size is None and self.n_out is not None:
            if self.n_out % self.n_heads:
                raise ConfigurationError(
                    f"head_size: must be given where n_out = {self.n_out} is no "
                    f"multiple of n_heads = {self.n_heads}"
                )
            object.__setattr__(self, "head_size", self.n_out // self.n_heads)

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
