"""Name → item: the only place where strings become objects.

An item registers itself with a decorator, and from then on every look-up (builder,
JSON, checkpoints, tests) knows it:

    @ACTIVATIONS.add("cube", java="ActivationCube")
    class Cube(Activation): ...

Names are DL4J's enum constants or class names, and torch's and Keras's names of exactly
the same; case, spaces, ``_``, ``-`` and a trailing ``Layer`` do not matter.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")
A = TypeVar("A")


@functools.lru_cache(4096)
def canonical(name: str) -> str:
    """The form under which names are compared.

    >>> canonical("Mean_Absolute-Error"), canonical("DenseLayer")
    ('meanabsoluteerror', 'dense')
    """
    short = re.sub(r"[\s_\-]", "", name).lower()
    return short.removesuffix("layer") or short


@functools.lru_cache(4096)
def camel(name: str) -> str:
    """DL4J's spelling of a snake_case name.

    >>> camel("softmax_clip_eps")
    'softmaxClipEps'
    """
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


@dataclasses.dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered item, its names, and the Java class it stands for."""

    item: T
    names: tuple[str, ...]
    java: str | None

    @property
    def key(self) -> str:
        """The first of its names."""
        return self.names[0]


class Registry(Generic[T]):
    """Items of one kind by name.

    Args:
        kind: the word used in error messages, e.g. ``"activation"``.
        package: the Java package of DL4J's own items; ``java=`` names of items are
            relative to it.
        torch: the module in which torch keeps items that may stand in a name's place.
        home: the part of dl4py whose import registers its own, before anything is
            looked up or added.

    Example:
        >>> colours = Registry("colour")
        >>> @colours.add("DARK_BLUE")
        ... def dark_blue(): ...
        >>> colours["dark blue"] is dark_blue
        True
    """

    def __init__(
        self, kind: str, package: str = "", torch: str = "", home: str = ""
    ) -> None:
        self.kind = kind
        self.package = package
        self.torch = torch
        self.home = home
        self._entries: dict[str, Entry[T]] = {}
        self._java: dict[str, Entry[T]] = {}
        self._near: dict[str, str] = {}
        self._filled = not home

    def _fill(self) -> None:
        if self._filled:
            return
        # import_module waits for another thread's import, not for this one's
        module = importlib.import_module(f"dl4py.{self.home}")
        self._filled = not getattr(module.__spec__, "_initializing", False)

    def add(
        self,
        *names: str,
        java: str | None = None,
        near: Mapping[str, str] | None = None,
    ) -> Callable[[A], A]:
        """Register the decorated class or function under ``names``.

        Args:
            names: DL4J's names of the item, ``_`` as in DL4J's enum, and those under
                which torch or Keras have exactly the same; the first is its key.
            java: DL4J's class, relative to the registry's package, or whole where it
                starts with ``org.``; a class of your own in Java is whole where it has
                a package. Needed only for items that DL4J's files know.
            near: names, with spaces between them, under which torch or Keras have
                almost the same → what differs, for the error.

        Example:
            >>> shapes = Registry("shape")
            >>> @shapes.add("square", near={"oblong": "sides differ"})
            ... def square(): ...
            >>> shapes["oblong"]
            Traceback (most recent call last):
            ValueError: unknown shape 'oblong': the nearest is 'square'; sides differ
        """
        if not names:
            raise ValueError(f"{self.kind}: add(...) needs at least one name")

        def register(item: A) -> A:
            ours = _qualname(item).startswith("dl4py.")
            whole = (
                java is None or java.startswith("org.") or ("." in java and not ours)
            )
            full = java if whole else f"{self.package}.{java}"
            entry: Entry[Any] = Entry(item, names, full)
            if not ours:  # ours are being imported
                self._fill()
            for name in names:
                known = self._entries.get(canonical(name))
                if known is not None and not _same(known.item, item):
                    raise ValueError(
                        f"{self.kind} {name!r} is already registered as "
                        f"{_qualname(known.item)}; choose another name"
                    )
                self._entries[canonical(name)] = entry
            for others, difference in (near or {}).items():
                hint = f"the nearest is {names[0]!r}; {difference}"
                self._near |= {canonical(other): hint for other in others.split()}
            simple = full.rpartition(".")[2] if full else names[0]
            self._java[simple.lower()] = entry
            return item

        return register

    def entry(self, name: str) -> Entry[T]:
        """The entry called ``name``, by DL4J's name or Java class name."""
        if not isinstance(name, str):
            raise TypeError(f"{self.kind} must be a name, got {name!r}")
        self._fill()
        found = self._entries.get(canonical(name))
        return found or self._java.get(name.lower()) or self._unknown(name)

    def __getitem__(self, name: str) -> T:
        return self.entry(name).item

    def __contains__(self, name: object) -> bool:
        self._fill()
        return isinstance(name, str) and (
            canonical(name) in self._entries or name.lower() in self._java
        )

    def __iter__(self) -> Iterator[str]:
        """Keys in the order of registration, aliases left out."""
        self._fill()
        return iter(dict.fromkeys(entry.key for entry in self._entries.values()))

    def entry_of(self, item: object) -> Entry[T] | None:
        """The entry of a registered class or function, ``None`` for anything else."""
        self._fill()
        return next((e for e in self._entries.values() if e.item is item), None)

    def by_java(self, name: str) -> Entry[T] | None:
        """The entry of a Java class; its package may be that of another release."""
        self._fill()
        simple = name.rpartition(".")[2]
        found = self._java.get(simple.lower())
        return found or self._entries.get(canonical(simple))

    def named(self, name: str | Named, /, **args: Any) -> Named:
        """Plain data for item ``name`` with ``args``, checked against its signature.

        >>> ACTIVATIONS = Registry("activation")
        >>> @ACTIVATIONS.add("leakyrelu")
        ... def leaky(x, alpha=0.01): ...
        >>> ACTIVATIONS.named("LEAKYRELU", alpha=0.2)
        Named('leakyrelu', alpha=0.2)
        """
        if isinstance(name, Named):
            args = {**dict(name.args), **args}
            name = name.name
        entry = self.entry(name)
        known = parameters(entry.item)
        for arg in args:
            if arg not in known:
                expected = f"expected one of {', '.join(known) or 'none'}"
                hint = suggest(arg, known) or expected
                raise ValueError(
                    f"{self.kind} {entry.key}: unknown argument {arg!r}: {hint}"
                )
        return Named(self.kind, entry.key, tuple(sorted(args.items())))

    def _unknown(self, name: str) -> NoReturn:
        names = {n.lower() for e in self._entries.values() for n in e.names}
        word = canonical(name)
        hint = (
            self._near.get(word)
            or self._near.get(word.removesuffix("loss"))
            or self._of_torch(word)
            or suggest(name.lower(), names)
            or f"known: {', '.join(sorted(names))}"
        )
        raise ValueError(f"unknown {self.kind} {name!r}: {hint}")

    def _of_torch(self, word: str) -> str:
        """What to pass where only torch has something of this name."""
        home = sys.modules.get(self.torch)
        near = (n for n in vars(home) if canonical(n) == word) if home else ()
        found = [n for n in near if callable(getattr(home, n))]
        if not found:
            return ""
        return f"DL4J has none; pass {self.torch}.{found[0]} in place of the name"


@dataclasses.dataclass(frozen=True, repr=False)
class Named:
    """A registered item with its arguments, as a configuration stores it: plain data.

    Args:
        kind: the registry's word, e.g. ``"activation"``.
        name: the item's key there.
        args: (name, value) pairs in the order of the names.
    """

    kind: str
    name: str
    args: tuple[tuple[str, Any], ...] = ()

    def __repr__(self) -> str:
        args = "".join(f", {k}={v!r}" for k, v in self.args)
        return f"Named({self.name!r}{args})"

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments by name."""
        return dict(self.args)

    @property
    def entry(self) -> Entry[Any]:
        """The item's entry in its registry."""
        return REGISTRIES[self.kind].entry(self.name)


def suggest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    """``did you mean 'x'?``, or the empty string when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


_NOT_ARGUMENTS = {"self", "params", "dl4j_exact", "activation", "x"}


def parameters(item: Any) -> dict[str, Any]:
    """Name → default of the arguments that describe an item.

    What only an instance needs (``params`` of an optimizer, ``dl4j_exact``, the input)
    is left out; a missing default is ``inspect.Parameter.empty``.
    """
    return dict(_arguments(item))


@functools.lru_cache(1024)  # a network asks for every layer
def _arguments(item: Any) -> tuple[tuple[str, Any], ...]:
    stated = hasattr(item, "__signature__")  # a module's, from its configuration
    target = item.__init__ if inspect.isclass(item) and not stated else item
    return tuple(
        (p.name, p.default)
        for p in inspect.signature(target).parameters.values()
        if p.name not in _NOT_ARGUMENTS
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    )


def option(
    default: Any = dataclasses.MISSING, *, json: str | None = None, **facts: Any
) -> Any:
    """A dataclass field that carries facts for whoever reads the declaration.

    Args:
        default: as in :func:`dataclasses.field`; a type makes a fresh value for every
            instance (``default=dict``).
        json: the key in DL4J's JSON where it is not the camelCase of the name.
        facts: anything else (kinds, units, ranges …).
    """
    metadata = {**({"json": json} if json else {}), **facts}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@functools.lru_cache(4096)  # networks ask for it layer by layer
def json_key(field: dataclasses.Field[Any]) -> str:
    """The key of a dataclass field in DL4J's JSON."""
    return str(field.metadata.get("json") or camel(field.name))


def _qualname(item: object) -> str:
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', item)}"


def _same(a: object, b: object) -> bool:
    return a is b or _qualname(a) == _qualname(b)  # a re-run notebook cell or a reload


ACTIVATIONS: Registry[Any] = Registry(
    "activation", "org.nd4j.linalg.activations.impl", "torch.nn", home="activations"
)
LOSSES: Registry[Any] = Registry(
    "loss", "org.nd4j.linalg.lossfunctions.impl", "torch.nn", home="losses"
)
UPDATERS: Registry[Any] = Registry(
    "updater", "org.nd4j.linalg.learning.config", "torch.optim", home="solvers"
)
SCHEDULES: Registry[Any] = Registry(
    "schedule", "org.nd4j.linalg.schedule", home="schedules"
)
WEIGHT_INITS: Registry[Any] = Registry(
    "weight init", "org.deeplearning4j.nn.weights", "torch.nn.init", home="weight_init"
)
DISTRIBUTIONS: Registry[Any] = Registry(
    "distribution", "org.deeplearning4j.nn.conf.distribution", home="weight_init"
)
DROPOUTS: Registry[Any] = Registry(
    "dropout", "org.deeplearning4j.nn.conf.dropout", home="config"
)
WEIGHT_NOISES: Registry[Any] = Registry(
    "weight noise", "org.deeplearning4j.nn.conf.weightnoise", home="config"
)
CONSTRAINTS: Registry[Any] = Registry(
    "constraint", "org.deeplearning4j.nn.conf.constraint", home="config"
)
REGULARIZATIONS: Registry[Any] = Registry(
    "regularization", "org.nd4j.linalg.learning.regularization", home="config"
)
PREPROCESSORS: Registry[Any] = Registry(
    "preprocessor", "org.deeplearning4j.nn.conf.preprocessor", home="config"
)
RECONSTRUCTIONS: Registry[Any] = Registry(
    "reconstruction distribution",
    "org.deeplearning4j.nn.conf.layers.variational",
    home="config",
)
LAYERS: Registry[Any] = Registry(
    "layer", "org.deeplearning4j.nn.conf.layers", home="config"
)
VERTICES: Registry[Any] = Registry(
    "vertex", "org.deeplearning4j.nn.conf.graph", home="config"
)
NORMALIZERS: Registry[Any] = Registry(
    "normalizer", "org.nd4j.linalg.dataset.api.preprocessor", home="normalizers"
)
MODULES: Registry[Any] = Registry("module", home="layers")
DIRECTIONS: Registry[Any] = Registry("direction", home="solvers")
SEARCHES: Registry[Any] = Registry("line search", home="solvers")

REGISTRIES: dict[str, Registry[Any]] = {
    registry.kind: registry
    for registry in list(globals().values())
    if isinstance(registry, Registry)
}
