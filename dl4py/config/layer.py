"""What every layer's configuration has, and how it comes to its final form.

A layer is described by a frozen dataclass. While a network is being written down,
``None`` in an inheritable field means "as set for the whole network";
:meth:`Layer.resolved` fills these in, brings every value into its normal form and
checks it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.dropout import Dropout
from dl4py.config.inputs import (
    Convolutional,
    Convolutional3D,
    FeedForward,
    InputType,
    Recurrent,
    Shape,
    arrays,
)
from dl4py.config.kinds import (
    Choice,
    Data,
    Integer,
    Item,
    Loose,
    Many,
    Real,
    Text,
    field,
)
from dl4py.config.preprocessors import Preprocessor, between
from dl4py.config.regularization import L1, L2, Constraint, WeightDecay, combine
from dl4py.config.weight_noise import DropConnect
from dl4py.registry import (
    ACTIVATIONS,
    CONSTRAINTS,
    DISTRIBUTIONS,
    DROPOUTS,
    REGULARIZATIONS,
    UPDATERS,
    WEIGHT_INITS,
    WEIGHT_NOISES,
    canonical,
    suggest,
)

GRADIENT_NORMALIZATION = Choice(
    "None",
    "RenormalizeL2PerLayer",
    "RenormalizeL2PerParamType",
    "ClipElementWiseAbsoluteValue",
    "ClipL2PerLayer",
    "ClipL2PerParamType",
)


DEFAULTS: dict[str, Any] = {  # DL4J's, where a network sets nothing
    "activation": "sigmoid",
    "weight_init": "xavier",
    "updater": "sgd",
    "bias_init": 0.0,
    "gain_init": 1.0,
    "gradient_normalization": "None",
    "gradient_normalization_threshold": 1.0,
    "regularization": (),
    "regularization_bias": (),
    "convolution_mode": "Truncate",
}


class ConfigurationError(ValueError):
    """A configuration that cannot be built; names layer, field, expected and given."""


def _dropout_of(value: Any) -> Any:
    """DL4J's builder: a number is a retain probability, 0 means no dropout."""
    none = value == 0 and not isinstance(value, bool)
    return None if none else Data(DROPOUTS, Dropout)(value)


def _weight_init_of(value: Any) -> Any:
    """DL4J's builder: a distribution stands for drawing from it."""
    if DISTRIBUTIONS.entry_of(type(value)) is not None:
        return WEIGHT_INITS["distribution"](value)
    return Data(WEIGHT_INITS)(value)


def inner(value: Any) -> Any:
    """A layer's configuration inside another one's."""
    if isinstance(value, LayerBuilder):
        value = value.build()
    if not isinstance(value, Layer):
        raise ValueError(
            f"must be a layer configuration such as LSTM(n_out=3), got {value!r}"
        )
    return value


DROPOUT = Loose(_dropout_of, Data(DROPOUTS))
WEIGHT_INIT = Loose(_weight_init_of, Data(WEIGHT_INITS))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Base of all layer configurations.

    Args:
        name: a name for summaries and messages.
        dropout: noise on the layer's input while training; a number, or a
            schedule of it, is the probability of **keeping** a value.
        constraints: conditions met after every step.
        gradient_normalization: one of DL4J's five rules, or ``"None"``.
        gradient_normalization_threshold: the threshold of the clipping rules, >= 0.
    """

    name: str | None = field(None, Text(), json="layerName", training=True)
    dropout: Any = field(None, DROPOUT, json="idropout", inherit=True)
    constraints: tuple[Constraint, ...] | None = field(
        None, Many(Data(CONSTRAINTS)), inherit=True, training=True
    )
    gradient_normalization: str = field("None", GRADIENT_NORMALIZATION, training=True)
    gradient_normalization_threshold: float = field(0.0, Real(0.0), training=True)

    positional: ClassVar[tuple[str, ...]] = ()  # what DL4J's Builder(...) takes
    leading: ClassVar[tuple[str, ...]] = ()  # what its module takes by position
    alone: ClassVar[Mapping[str, Any]] = {}  # defaults of a module used alone
    family: ClassVar[str] = (
        "any"  # the input it needs: "ff", "rnn", "cnn", "cnn3d", "any"
    )
    weights: ClassVar[tuple[str, ...]] = ()  # DL4J's names of its weights …
    biases: ClassVar[tuple[str, ...]] = ()  # … and biases
    pieces: ClassVar[str] = "all"  # of a series: its calls; "steps": not training; "no"

    @classmethod
    def builder(cls, *values: Any) -> LayerBuilder:
        """DL4J's ``new X.Builder(values)``; see :class:`LayerBuilder`."""
        return LayerBuilder(cls, values)

    @property
    def variables(self) -> tuple[str, ...]:
        """DL4J's list of parameter names."""
        return self.weights + self.biases

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The arrays that the layer takes, any one of them; none: all."""
        n_in, format = getattr(self, "n_in", None), getattr(self, "format", None)
        return arrays(self.family, n_in, format)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of all parameters and statistics inside."""
        return self.variables

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        """A small layer of this kind and an input for it, as tests and tables use."""
        inputs: dict[str, InputType] = {
            "ff": FeedForward(3),
            "rnn": Recurrent(3, 5),
            "cnn": Convolutional(6, 5, 3),
            "cnn3d": Convolutional3D(3, 5, 4, 3),
        }
        names = {f.name for f in dataclasses.fields(cls)}
        sizes: dict[str, Any] = {"n_in": 3, "n_out": 2} if "n_in" in names else {}
        return cls(**sizes), inputs.get(cls.family, FeedForward(3))

    def named(self, name: str) -> Any:
        """This layer with ``name``, if it has none."""
        return replace(self, name=self.name or name)

    def takes(self, given: InputType) -> Preprocessor | None:
        """The preprocessor DL4J puts between ``given`` and this layer."""
        return between(given, self.family)

    def with_input(self, given: InputType) -> Layer:
        """This layer with the sizes that follow from its input."""
        return self

    def output(self, given: InputType) -> InputType:
        """What leaves the layer."""
        return given

    def check(self) -> None:
        """Conditions between fields; raises ``ValueError("field: …")``."""

    def resolved(self, settings: Mapping[str, Any]) -> Any:
        """The final form: inherited values filled in, everything normal and checked."""
        result = filled(self, settings)
        constraints = tuple(result._constrained(result.constraints or ()))
        result = replace(result, constraints=constraints or None)
        try:
            result.check()
        except ConfigurationError:
            raise
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        return result

    def _constrained(self, constraints: tuple[Any, ...]) -> Iterator[Any]:
        kinds = {"all": self.variables, "weights": self.weights, "biases": self.biases}
        for order in ("all", "weights", "biases", None):
            for c in constraints:
                (target,) = c.params if c.params and len(c.params) == 1 else (None,)
                target = target if target in kinds else None
                if target != order:
                    continue
                if target is None:
                    yield c if c.params else replace(c, params=self.weights)
                elif kinds[target]:
                    yield replace(c, params=kinds[target])


@dataclass(frozen=True, kw_only=True)
class BaseLayer(Layer):
    """Base of layers with parameters or an activation.

    Args:
        activation: a name, a torch module or a function.
        weight_init: a name, a distribution, or a function
            ``init(tensor, fan_in, fan_out)`` or ``init(tensor)``.
        updater, bias_updater: a name, or a torch optimizer class; biases follow
            ``updater`` unless they have their own.
        regularization, regularization_bias: penalties on weights and on biases.
        l1, l2, weight_decay, l1_bias, l2_bias, weight_decay_bias: the same by name;
            numbers or schedules.
        bias_init: first value of biases.
        gain_init: first value of layer-norm gains.
        weight_noise: noise on the parameters while training; a number, or a
            schedule of it, is the probability of **keeping** a weight.
    """

    activation: Any = field(None, Item(ACTIVATIONS), json="activationFn", inherit=True)
    weight_init: Any = field(None, WEIGHT_INIT, json="weightInitFn", inherit=True)
    updater: Any = field(
        None, Item(UPDATERS), json="iupdater", inherit=True, training=True
    )
    bias_updater: Any = field(None, Item(UPDATERS), inherit=True, training=True)
    regularization: Any = field(
        None, Many(Data(REGULARIZATIONS)), inherit=True, training=True
    )
    regularization_bias: Any = field(
        None, Many(Data(REGULARIZATIONS)), inherit=True, training=True
    )
    bias_init: float | None = field(None, Real(), inherit=True)
    gain_init: float | None = field(None, Real(), inherit=True)
    weight_noise: Any = field(None, Data(WEIGHT_NOISES, DropConnect), inherit=True)
    gradient_normalization: Any = field(
        None, GRADIENT_NORMALIZATION, inherit=True, training=True
    )
    gradient_normalization_threshold: Any = field(
        None, Real(0.0), inherit=True, training=True
    )
    l1: InitVar[Any] = None
    l2: InitVar[Any] = None
    weight_decay: InitVar[Any] = None
    l1_bias: InitVar[Any] = None
    l2_bias: InitVar[Any] = None
    weight_decay_bias: InitVar[Any] = None

    def __post_init__(
        self,
        l1: Any,
        l2: Any,
        weight_decay: Any,
        l1_bias: Any,
        l2_bias: Any,
        weight_decay_bias: Any,
    ) -> None:
        for name, terms in (
            ("regularization", ((L1, l1), (L2, l2), (WeightDecay, weight_decay))),
            (
                "regularization_bias",
                ((L1, l1_bias), (L2, l2_bias), (WeightDecay, weight_decay_bias)),
            ),
        ):
            for kind, value in terms:
                if value is not None:
                    term = value if isinstance(value, kind) else kind(value)
                    now = combine(getattr(self, name) or (), term)
                    object.__setattr__(self, name, now)


@dataclass(frozen=True, kw_only=True)
class FeedForwardLayer(BaseLayer):
    """Base of layers with a number of inputs and a number of outputs.

    Args:
        n_in: features (or channels) coming in; ``None`` follows from the layer before.
        n_out: features (or channels) going out.
    """

    n_in: int | None = field(None, Integer(1, bits=63), json="nin")
    n_out: int | None = field(None, Integer(1, bits=63), json="nout")

    leading: ClassVar[tuple[str, ...]] = ("n_in", "n_out", "activation")

    time_distributed_format: str | None = field(None, Choice("NCW", "NWC"))

    def with_input(self, given: InputType) -> Any:
        return self.sized(given.features)

    def sized(self, features: int) -> Any:
        """This layer with ``n_in`` filled in, or an error if another one was given."""
        if self.n_in is not None and self.n_in != features:
            raise ConfigurationError(
                f"n_in: the layer before gives {features}, got {self.n_in}; "
                "leave n_in out to have it inferred"
            )
        return replace(self, n_in=features)

    def output(self, given: InputType) -> InputType:
        assert self.n_out is not None
        return FeedForward(self.n_out)

    def check(self) -> None:
        if self.n_out is None:
            raise ValueError("n_out: expected a whole number >= 1, got nothing")


def filled(conf: Any, settings: Mapping[str, Any]) -> Any:
    """``conf`` with what it inherits from ``settings``, every value in normal form."""
    changes: dict[str, Any] = {}
    for f in dataclasses.fields(conf):
        value, kind = getattr(conf, f.name), f.metadata.get("kind")
        if f.metadata.get("inherit"):
            value = _inherited(f.name, value, settings.get(f.name))
        if value is not None and kind is not None:
            try:
                value = kind(value)
                if isinstance(value, Layer):
                    value = value.resolved(settings)
            except (ValueError, TypeError) as error:
                raise ConfigurationError(f"{f.name}: {error}") from error
        changes[f.name] = value
    return replace(conf, **changes)


def _inherited(name: str, own: Any, given: Any) -> Any:
    """DL4J's rule: one's own value wins, but penalties of other classes are added."""
    if own is None or not name.startswith("regularization"):
        return given if own is None else own
    classes = {type(r) for r in own}
    return (*own, *(r for r in given or () if type(r) not in classes))


class LayerBuilder:
    """DL4J's chained form of a layer's configuration.

    One method per field, in snake_case or DL4J's camelCase; items take their arguments
    along: ``.updater("adam", lr=0.01)``.

    Example:
        >>> from dl4py.config import Dense
        >>> Dense.builder().nIn(4).n_out(3).activation("tanh").build().n_out
        3
    """

    def __init__(self, cls: type[Any], values: tuple[Any, ...] = ()) -> None:
        self._cls = cls
        self._values: dict[str, Any] = {}
        if len(values) > 1 and len(cls.positional) == 1:  # Builder(5, 5): a kernel size
            values = (values,)
        if len(values) > len(cls.positional):
            raise TypeError(
                f"{cls.__name__}.builder() takes {len(cls.positional)} values "
                f"{cls.positional}, got {values!r}"
            )
        self._values.update(zip(cls.positional, values, strict=False))

    def build(self) -> Any:
        """The frozen configuration."""
        return self._cls(**self._values)

    def __getattr__(self, name: str) -> Callable[..., LayerBuilder]:
        if name.startswith("__"):
            raise AttributeError(name)
        setter = setter_of(self._cls, name, self._values)

        def call(*args: Any, **kwargs: Any) -> LayerBuilder:
            setter(*args, **kwargs)
            return self

        return call


def _settings(cls: type[Any]) -> dict[str, tuple[str, Any]]:
    """canonical name → (field name, its kind) for everything a builder may set."""
    known = {
        canonical(f.name): (f.name, f.metadata.get("kind"))
        for f in dataclasses.fields(cls)
        if f.init
    }
    for name, annotation in _annotations(cls).items():
        if "InitVar" in str(annotation):
            known[canonical(name)] = (name, None)
    return known


def _annotations(cls: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(base.__dict__.get("__annotations__", {}))
    return found


_JAVA_WORDS = {"dist": "weight_init", "loss_function": "loss", "drop_out": "dropout"}
_TARGETS = {
    "constrainweights": "weights",
    "constrainbias": "biases",
    "constrainallparameters": "all",
}


def setter_of(cls: type[Any], name: str, values: dict[str, Any]) -> Callable[..., None]:
    """What ``.name(...)`` of a builder for ``cls`` does to ``values``."""
    known = _settings(cls)
    word = canonical(name)
    for java, ours in _JAVA_WORDS.items():
        word = canonical(ours) if word == canonical(java) else word
    if word in _TARGETS and "constraints" in known:
        target = _TARGETS[word]

        def constrain(*constraints: Any) -> None:
            made = tuple(
                replace(Data(CONSTRAINTS)(c), params=(target,)) for c in constraints
            )
            values["constraints"] = (*values.get("constraints", ()), *made)

        return constrain
    if word not in known:
        names = {known_name for known_name, _ in known.values()}
        raise AttributeError(
            f"{cls.__name__}.builder() has no {name!r}: "
            f"{suggest(name, names) or 'known: ' + ', '.join(sorted(names))}"
        )
    field_name, kind = known[word]

    def put(*args: Any, **kwargs: Any) -> None:
        decay = field_name.startswith("weight_decay")
        if not args and not (decay and kwargs) or len(args) > 1 and kwargs:
            given = [*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())]
            raise TypeError(
                f"{cls.__name__}.builder().{name}(value): expected one value, and the "
                f"arguments of a name after it, got {', '.join(given) or 'nothing'}"
            )
        if kwargs and isinstance(kind, Item):
            (item,) = args
            if isinstance(item, str):
                values[field_name] = kind.registry.named(item, **kwargs)
            else:  # a torch optimizer class or the like, with its arguments
                values[field_name] = functools.partial(item, **kwargs)
        elif kwargs and field_name == "weight_init":
            values[field_name] = WEIGHT_INITS[args[0]](**kwargs)
        elif decay:
            values[field_name] = WeightDecay(*args, **kwargs)
        elif kwargs:
            raise TypeError(f"{cls.__name__}.builder().{name}(): unexpected {kwargs}")
        else:
            values[field_name] = args[0] if len(args) == 1 else args

    return put
