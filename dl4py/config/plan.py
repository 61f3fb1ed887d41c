"""A network as a list of steps: what chains and graphs have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dl4py.config.inputs import Shape
from dl4py.config.layer import ConfigurationError
from dl4py.config.preprocessors import Preprocessor

INPUT = "input"  # what the input of a chain is called


def unique(name: str, taken: dict[str, int]) -> str:
    """``name``, or the first of ``name_1``, ``name_2`` … that is free.

    ``taken`` holds every name with the last number that was tried for it, so that
    thousands of layers with one name take no longer than as many names.

    >>> taken = {}
    >>> [unique(name, taken) for name in ("a", "a_1", "a", "a")]
    ['a', 'a_1', 'a_2', 'a_3']
    """
    own = name
    while own in taken:
        taken[name] += 1
        own = f"{name}_{taken[name]}"
    taken[own] = 0
    return own


@dataclass(frozen=True)
class Step:
    """One layer or vertex.

    Args:
        name: its name, unique in the network.
        conf: the configuration of a layer or vertex.
        inputs: names of the steps or network inputs that it reads.
        preprocessor: what stands before a layer.

    Attributes:
        shapes: the arrays that go into the preprocessor, and those that go into the
            layer; none: any.
    """

    name: str
    conf: Any
    inputs: tuple[str, ...]
    preprocessor: Preprocessor | None = None

    shapes: tuple[tuple[Shape, ...], tuple[Shape, ...]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        own = getattr(self.conf, "shapes", ())
        before = own if self.preprocessor is None else self.preprocessor.shapes
        object.__setattr__(self, "shapes", (before, own))


@dataclass(frozen=True)
class Plan:
    """The steps of a network in the order of evaluation, which is DL4J's.

    Args:
        steps: the layers and vertices.
        inputs: names of the network's inputs.
        outputs: names of the steps whose activations are the network's.
    """

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def check_pieces(self, call: str, allowed: tuple[str, ...]) -> None:
        """Refuse steps that need a series whole.

        Args:
            call: what gives them pieces.
            allowed: what ``pieces`` of their configurations may be.
        """
        for step in self.steps:
            if step.conf.pieces not in allowed:
                raise ConfigurationError(
                    f"{call}: {step.name!r} ({type(step.conf).__name__}) reads a "
                    "series whole, and this gives it pieces; use output and "
                    "backprop_type('Standard') for such a network"
                )

    def check_truncation(self) -> None:
        """Refuse steps that truncated back-propagation cannot train, as DL4J does."""
        self.check_pieces("backprop_type TruncatedBPTT", ("all",))
