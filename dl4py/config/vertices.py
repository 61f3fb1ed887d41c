"""What stands between the layers of a graph: DL4J's vertices as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.inputs import (
    Convolutional,
    FeedForward,
    InputType,
    Recurrent,
)
from dl4py.config.kinds import (
    Choice,
    Data,
    Integer,
    Many,
    Real,
    Text,
    field,
    flag,
)
from dl4py.config.layer import (
    ConfigurationError,
)
from dl4py.config.preprocessors import Preprocessor
from dl4py.config.vertex import (
    Vertex,
    as_rows,
    axes_of,
    channels_first,
    few,
    same_kind,
    time_series,
    width_of,
)
from dl4py.registry import PREPROCESSORS, VERTICES


@VERTICES.add("merge_vertex", "merge", java="MergeVertex")
@dataclass(frozen=True)
class MergeVertex(Vertex):
    """Concatenates along features or channels; masks are joined by "or".

    Args:
        merge_axis: the axis; it follows from the input types (1, or the last one for
            channels last).
        modified: whether ``merge_axis`` is meant, whatever the input types.

    DL4J: org.deeplearning4j.nn.conf.graph.MergeVertex
    """

    merge_axis: int = field(1, Integer(0))
    modified: bool = field(False, flag)

    most: ClassVar[int | None] = None

    def with_inputs(self, given: tuple[InputType, ...]) -> MergeVertex:
        format = getattr(given[0], "format", "")
        last = format in ("NWC", "NHWC", "NDHWC")
        if self.modified or not last or self.merge_axis != 1:
            return self
        return replace(self, merge_axis=len(format) - 1)  # type: ignore[no-any-return]

    def output(self, given: tuple[InputType, ...]) -> InputType:
        given = as_rows(given)
        same_kind(given)
        first, axes = given[0], axes_of(given[0])
        if not 1 <= self.merge_axis <= len(axes):
            raise ConfigurationError(
                f"merge_axis: expected 1 to {len(axes)} for {first}, got "
                f"{self.merge_axis}"
            )
        along = axes[self.merge_axis - 1]
        sizes = [getattr(g, along) for g in given]
        found = {along: None if None in sizes else sum(sizes)}
        for name in axes:
            known = {getattr(g, name) for g in given} - {None}
            if name != along and len(known) > 1:
                raise ConfigurationError(
                    f"inputs: expected one {name} to merge along {along}, got "
                    f"{few(given)}"
                )
            if name != along:
                found[name] = next(iter(known), None)
        return replace(first, **found)  # type: ignore[no-any-return]


@VERTICES.add("element_wise_vertex", "element_wise", java="ElementWiseVertex")
@dataclass(frozen=True)
class ElementWiseVertex(Vertex):
    """Adds, subtracts, multiplies, averages its inputs or takes their maximum.

    Args:
        op: ``"Add"``, ``"Subtract"`` (exactly two inputs), ``"Product"``,
            ``"Average"`` or ``"Max"``; sizes of 1 are stretched.

    DL4J: org.deeplearning4j.nn.conf.graph.ElementWiseVertex
    """

    op: str = field(kind=Choice("Add", "Subtract", "Product", "Average", "Max"))

    least: ClassVar[int] = 2
    most: ClassVar[int | None] = None

    def output(self, given: tuple[InputType, ...]) -> InputType:
        given = as_rows(given)
        same_kind(given)
        if self.op == "Subtract" and len(given) != 2:
            raise ConfigurationError(
                f"inputs: Subtract needs exactly two inputs, got {len(given)}"
            )
        found = {}
        for name in axes_of(given[0]):
            sizes = [getattr(g, name) for g in given]
            known = set(sizes) - {1, None}
            if len(known) > 1:
                raise ConfigurationError(
                    f"inputs: expected equal sizes, or 1, got {few(given)}"
                )
            found[name] = known.pop() if known else sizes[0]
        return replace(given[0], **found)  # type: ignore[no-any-return]


@VERTICES.add("subset_vertex", "subset", java="SubsetVertex")
@dataclass(frozen=True)
class SubsetVertex(Vertex):
    """Entries ``first`` to ``last`` of axis 1, both included.

    Args:
        first, last: DL4J's ``from`` and ``to``, 0 <= first <= last.

    DL4J: org.deeplearning4j.nn.conf.graph.SubsetVertex
    """

    first: int = field(kind=Integer(0), json="from")
    last: int = field(kind=Integer(0), json="to")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last < self.first:
            raise ValueError(
                f"SubsetVertex(last=...) must be >= first = {self.first}, "
                f"got {self.last}"
            )

    def output(self, given: tuple[InputType, ...]) -> InputType:
        g = channels_first(given[0])
        size, width = self.last - self.first + 1, width_of(g)
        if self.last >= width:
            raise ConfigurationError(
                f"last: the input has {width} features or channels, 0 to {width - 1}, "
                f"got {self.last}"
            )
        return g.resized(g.spatial, size) if g.spatial else FeedForward(size)


@VERTICES.add("stack_vertex", "stack", java="StackVertex")
@dataclass(frozen=True)
class StackVertex(Vertex):
    """Puts the examples of its inputs below each other.

    Series that are shorter than others are filled up with 0, and so are their masks.

    DL4J: org.deeplearning4j.nn.conf.graph.StackVertex
    """

    most: ClassVar[int | None] = None

    def output(self, given: tuple[InputType, ...]) -> InputType:
        first = given[0]
        if isinstance(first, Recurrent):
            same_kind(given)
            lengths = [g.length for g in given]  # type: ignore[attr-defined]
            longest = None if None in lengths else max(lengths)
            given = tuple(replace(g, length=longest) for g in given)
        if len(set(given)) > 1:
            raise ConfigurationError(f"inputs: expected equal shapes, got {few(given)}")
        return given[0]


@VERTICES.add("unstack_vertex", "unstack", java="UnstackVertex")
@dataclass(frozen=True)
class UnstackVertex(Vertex):
    """One of the blocks of examples that a :class:`StackVertex` put together.

    Args:
        index: which block, DL4J's ``from``, in 0 to ``stack_size - 1``.
        stack_size: how many there are, >= 1.

    DL4J: org.deeplearning4j.nn.conf.graph.UnstackVertex
    """

    index: int = field(kind=Integer(0), json="from")
    stack_size: int = field(kind=Integer(1))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.index >= self.stack_size:
            raise ValueError(
                f"UnstackVertex(index=...) must be below stack_size = "
                f"{self.stack_size}, got {self.index}"
            )


@VERTICES.add("scale_vertex", "scale", java="ScaleVertex")
@dataclass(frozen=True)
class ScaleVertex(Vertex):
    """x · scale_factor.

    DL4J: org.deeplearning4j.nn.conf.graph.ScaleVertex
    """

    scale_factor: float = field(kind=Real())


@VERTICES.add("shift_vertex", "shift", java="ShiftVertex")
@dataclass(frozen=True)
class ShiftVertex(Vertex):
    """x + shift_factor.

    DL4J: org.deeplearning4j.nn.conf.graph.ShiftVertex
    """

    shift_factor: float = field(kind=Real())


@VERTICES.add("l2_vertex", java="L2Vertex")
@dataclass(frozen=True)
class L2Vertex(Vertex):
    """Euclidean distance of two inputs, one number per example: ``[n, 1]``.

    The gradient where the distance is 0 is 0.

    DL4J: org.deeplearning4j.nn.conf.graph.L2Vertex
    """

    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    def output(self, given: tuple[InputType, ...]) -> InputType:
        if given[0].features != given[1].features:
            raise ConfigurationError(
                f"inputs: expected equal sizes, got {', '.join(map(str, given))}"
            )
        return FeedForward(1)


@VERTICES.add("l2_normalize_vertex", "l2_normalize", java="L2NormalizeVertex")
@dataclass(frozen=True)
class L2NormalizeVertex(Vertex):
    """x / max(‖x‖₂, ε), the norm over all axes but the first.

    Args:
        dimension: the axes of the norm, where they are not all but the first.
        eps: ε >= 0.

    DL4J: org.deeplearning4j.nn.conf.graph.L2NormalizeVertex
    """

    dimension: tuple[int, ...] | None = field(None, Many(Integer(1), least=1))
    eps: float = field(1e-8, Real(0.0))


@VERTICES.add("reshape_vertex", "reshape", java="ReshapeVertex")
@dataclass(frozen=True)
class ReshapeVertex(Vertex):
    """Another shape for the same numbers.

    Args:
        new_shape: the shape, the examples' axis included; -1 follows from the rest. A
            fixed number of examples stands for as many as come in.
        mask_shape: the same for a mask. By default a mask of rows or steps becomes one
            of as many steps or rows, or goes on as it is.
        reshape_order: ``"c"``.

    DL4J: org.deeplearning4j.nn.conf.graph.ReshapeVertex
    """

    new_shape: tuple[int, ...] = field(kind=Many(Integer(-1), least=1))
    mask_shape: tuple[int, ...] | None = field(None, Many(Integer(-1), least=1))
    reshape_order: str = field("c", Choice("c"))

    def output(self, given: tuple[InputType, ...]) -> InputType:
        g, sizes = given[0], self.new_shape[1:]
        length = g.length or 0 if isinstance(g, Recurrent) else 1  # 0: it varies
        count = g.features * length
        known = math.prod(s for s in sizes if s > 0)
        free = count // known if -1 in sizes else 1
        held = known * free
        # with a free number of examples one may become several, or several one
        several = self.new_shape[0] == -1 and (count % held == 0 or held % count == 0)
        if count and held != count and not (several and -1 not in sizes):
            raise ConfigurationError(
                f"new_shape: {self.new_shape} does not hold the {count} numbers of an "
                "example"
            )
        full = [free if s == -1 else s for s in sizes]
        if len(full) == 1:
            return FeedForward(full[0])
        if len(full) == 2:
            return Recurrent(full[0], full[1])
        if len(full) == 3:
            return Convolutional(full[1], full[2], full[0])
        raise ConfigurationError(
            f"new_shape: expected 2 to 4 axes, got {self.new_shape}"
        )


@VERTICES.add("preprocessor_vertex", "preprocessor", java="PreprocessorVertex")
@dataclass(frozen=True)
class PreprocessorVertex(Vertex):
    """A preprocessor in a place of its own.

    Args:
        preprocessor: one of ``dl4py.config``'s.

    DL4J: org.deeplearning4j.nn.conf.graph.PreprocessorVertex
    """

    preprocessor: Preprocessor = field(kind=Data(PREPROCESSORS), json="preProcessor")

    def output(self, given: tuple[InputType, ...]) -> InputType:
        return self.preprocessor.output(given[0])


@VERTICES.add("pool_helper_vertex", "pool_helper", java="PoolHelperVertex")
@dataclass(frozen=True)
class PoolHelperVertex(Vertex):
    """Images ``[n, c, h, w]`` without their first row and column.

    DL4J: org.deeplearning4j.nn.conf.graph.PoolHelperVertex
    """

    def output(self, given: tuple[InputType, ...]) -> InputType:
        g = channels_first(given[0])
        if not isinstance(g, Convolutional) or min(g.height, g.width) < 2:
            raise ConfigurationError(
                f"inputs: expected images of 2×2 and more, got {g}"
            )
        return Convolutional(g.height - 1, g.width - 1, g.channels, g.format)


@VERTICES.add("last_time_step_vertex", java="rnn.LastTimeStepVertex")
@dataclass(frozen=True)
class LastTimeStepVertex(Vertex):
    """The last step that is not masked: ``[n, size, time]`` → ``[n, size]``.

    Args:
        mask_input: the network input whose mask counts; without one it is the last
            step of all.

    DL4J: org.deeplearning4j.nn.conf.graph.rnn.LastTimeStepVertex
    """

    mask_input: str | None = field(None, Text(), json="maskArrayInputName")

    reads: ClassVar[tuple[str, ...]] = ("mask_input",)
    pieces: ClassVar[str] = "steps"

    def output(self, given: tuple[InputType, ...]) -> InputType:
        return FeedForward(time_series(given[0]).size)


@VERTICES.add("duplicate_to_time_series_vertex", java="rnn.DuplicateToTimeSeriesVertex")
@dataclass(frozen=True)
class DuplicateToTimeSeriesVertex(Vertex):
    """Rows at every step: ``[n, size]`` → ``[n, size, time]``.

    Args:
        input: the network input that gives the number of steps, and their mask.

    DL4J: org.deeplearning4j.nn.conf.graph.rnn.DuplicateToTimeSeriesVertex
    """

    input: str = field(kind=Text(), json="inputName")

    reads: ClassVar[tuple[str, ...]] = ("input",)

    def output(self, given: tuple[InputType, ...]) -> InputType:
        (g,) = given
        if not isinstance(g, FeedForward):
            raise ConfigurationError(f"inputs: expected rows of numbers, got {g}")
        return Recurrent(g.size)


@VERTICES.add("reverse_time_series_vertex", java="rnn.ReverseTimeSeriesVertex")
@dataclass(frozen=True)
class ReverseTimeSeriesVertex(Vertex):
    """The steps of a series from last to first.

    Args:
        mask_input: the network input whose mask counts: steps that are not masked go in
            reverse order to the places of such steps, the others become 0. Without one
            the whole series is turned round.

    DL4J: org.deeplearning4j.nn.conf.graph.rnn.ReverseTimeSeriesVertex
    """

    mask_input: str | None = field(None, Text(), json="maskArrayInputName")

    reads: ClassVar[tuple[str, ...]] = ("mask_input",)

    def output(self, given: tuple[InputType, ...]) -> InputType:
        return time_series(given[0])


@VERTICES.add("frozen_vertex", java="FrozenVertex")
@dataclass(frozen=True)
class FrozenVertex(Vertex):
    """A vertex whose parameters are not trained.

    Args:
        underlying: the vertex.

    DL4J: org.deeplearning4j.nn.conf.graph.FrozenVertex
    """

    underlying: Any = field(kind=Data(VERTICES))

    def resolved(self, settings: Mapping[str, Any]) -> FrozenVertex:
        return FrozenVertex(self.underlying.resolved(settings))

    def with_inputs(self, given: tuple[InputType, ...]) -> FrozenVertex:
        return FrozenVertex(self.underlying.with_inputs(given))

    def check(self) -> None:
        self.underlying.check()

    def to_dict(self, name: str, data_type: str, path: str) -> dict[str, Any]:
        content = super().to_dict(name, data_type, path)
        inner = self.underlying.to_dict(name, data_type, f"{path}.underlying")
        return {**content, "underlying": inner}

    def output(self, given: tuple[InputType, ...]) -> InputType:
        found: InputType = self.underlying.output(given)
        return found

    @property
    def named_inputs(self) -> tuple[str, ...]:
        names: tuple[str, ...] = self.underlying.named_inputs
        return names

    @property
    def least(self) -> int:  # type: ignore[override]
        return int(self.underlying.least)

    @property
    def most(self) -> int | None:  # type: ignore[override]
        found: int | None = self.underlying.most
        return found
