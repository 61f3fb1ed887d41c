"""Networks made of trained ones: frozen, resized, shortened, extended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dl4py.config import (
    BatchNormalization,
    ComputationGraphConfiguration,
    FeedForwardLayer,
    Frozen,
    MultiLayerConfiguration,
    NeuralNetConfiguration,
)
from dl4py.config.codec import replace
from dl4py.config.feedforward import HasLoss
from dl4py.config.inputs import FeedForward, InputType, Recurrent
from dl4py.config.layer import DEFAULTS, ConfigurationError, Layer
from dl4py.config.regularization import WeightDecay
from dl4py.config.settings import NetworkConfiguration
from dl4py.config.vertex import TrainedVertex, Vertex
from dl4py.config.vertices import FrozenVertex, MergeVertex
from dl4py.config.words import Settings, Words, built, fitted
from dl4py.config.wrappers import Wrapper
from dl4py.network import Network
from dl4py.noise import Source

_LISTS = {  # what is given by name, and the field where it ends
    **dict.fromkeys(("l1", "l2", "weight_decay"), "regularization"),
    **dict.fromkeys(("l1_bias", "l2_bias", "weight_decay_bias"), "regularization_bias"),
}


@dataclass
class _Part:
    """A layer or vertex on its way into the new network.

    Args:
        conf: its configuration.
        reads: names of what it reads; of chains none.
        before: its preprocessor.
        source: the step of the old network that it is; ``None``: it is new.
        drawn: whether its parameters are drawn anew.
    """

    conf: Any
    reads: tuple[str, ...] = ()
    before: Any = None
    source: str | None = None
    drawn: bool = False


class Transfer:
    """Steps from a trained network to a new one; :func:`transfer` begins them.

    The old network stays as it is. What is kept has its parameters, everything else is
    drawn from the seed; updaters begin anew, and so do iterations and epochs. In exact
    mode weight decay given to :meth:`fine_tune` acts twice, and a chain forgets
    truncated back-propagation, as in DL4J.

    DL4J: org.deeplearning4j.nn.transferlearning.TransferLearning.Builder and
        TransferLearning.GraphBuilder
    """

    def __init__(self, network: Network) -> None:
        conf = network.conf
        self._network, self._conf = network, conf
        self._graph = isinstance(conf, ComputationGraphConfiguration)
        self._words: Words = NeuralNetConfiguration.builder()
        self._frozen: tuple[str, ...] = ()
        self._outputs = network.plan.outputs
        steps = {step.name: step for step in network.plan.steps}
        order = conf.vertices if self._graph else steps  # type: ignore[attr-defined]
        self._parts = {
            name: _Part(
                steps[name].conf, steps[name].inputs, steps[name].preprocessor, name
            )
            for name in order
        }

    def fine_tune(self, words: Words | None = None, **settings: Any) -> Transfer:
        """Settings for what is kept, which win there, and defaults for what is new.

        Args:
            words: ``NeuralNetConfiguration.builder()`` with settings and no layers.
            settings: the same by name, one value each: ``updater="adam"``, ``l2=0.1``.
        """
        self._words = self._words if words is None else words
        for name, value in settings.items():
            getattr(self._words, name)(value)
        return self

    def freeze_until(self, *layers: int | str) -> Transfer:
        """Freeze layers, by name or place, and all that they depend on."""
        self._frozen = tuple(self._name("freeze_until", layer) for layer in layers)
        return self

    def n_out_replace(
        self,
        layer: int | str,
        n_out: int,
        weight_init: Any = None,
        next_weight_init: Any = None,
    ) -> Transfer:
        """Give a layer another number of outputs; it and its readers are drawn anew.

        Args:
            layer: its name or place.
            n_out: >= 1.
            weight_init: for it; ``next_weight_init``: for what reads it, by default as
                ``weight_init``; without both: as they were.
        """
        name = self._name("n_out_replace", layer)
        part, before = self._parts[name], self._size("n_out_replace", name, "n_out")
        part.conf = _changed(part.conf, n_out=n_out, **_init(weight_init))
        part.drawn = True
        after = next_weight_init if next_weight_init is not None else weight_init
        self._resize(name, part.conf.n_out - before, after)
        return self

    def n_in_replace(
        self, layer: int | str, n_in: int, weight_init: Any = None
    ) -> Transfer:
        """Give a layer another number of inputs; it is drawn anew."""
        name = self._name("n_in_replace", layer)
        self._size("n_in_replace", name, "n_in")
        part = self._parts[name]
        part.conf = _changed(part.conf, n_in=n_in, **_init(weight_init))
        part.drawn = True
        return self

    def _resize(self, name: str, more: int, weight_init: Any) -> None:
        """Let what reads a step take ``more`` features than before."""
        for other, part in self._readers(name):
            conf, factor = part.conf, 1
            channels: int | None = getattr(part.before, "channels", None)
            if channels:
                factor = conf.n_in // channels
                part.before = replace(part.before, channels=channels + more)
            size = getattr(conf, "n_in", None)
            if size is None:  # it has what comes in
                self._resize(other, more, weight_init)
                continue
            sizes = {"n_in": size + factor * more}
            if isinstance(conf, BatchNormalization):
                sizes["n_out"] = sizes["n_in"]
                self._resize(other, more, weight_init)
            part.conf = _changed(conf, **sizes, **_init(weight_init))
            part.drawn = True

    def _readers(self, name: str) -> list[tuple[str, _Part]]:
        return [(n, p) for n, p in self._parts.items() if name in p.reads]

    def remove(self, what: int | str = 1, keep_connections: bool = False) -> Transfer:
        """Take layers away.

        Args:
            what: of a chain how many, from the output; of a graph the name of a vertex.
            keep_connections: of a graph, whether what read it will read what is added
                under the same name; else they lose that input.
        """
        if not self._graph:
            count = len(self._parts)
            if not isinstance(what, int) or not 1 <= what <= count:
                raise ValueError(
                    f"remove: expected a number of layers from 1 to {count}, got "
                    f"{what!r}"
                )
            for name in list(self._parts)[count - what :]:
                del self._parts[name]
            return self
        name = self._name("remove", what)
        del self._parts[name]
        if not keep_connections:
            for part in self._parts.values():
                part.reads = tuple(n for n in part.reads if n != name)
            self._outputs = tuple(n for n in self._outputs if n != name)
        return self

    def add(self, *values: Any, preprocessor: Any = None) -> Transfer:
        """Add a layer behind a chain: ``add(layer)``; or to a graph: ``add(name, layer
        or vertex, inputs…)``, several of which are merged before a layer.

        Args:
            preprocessor: what stands before it.
        """
        if not self._graph:
            if len(values) != 1:
                raise ValueError(f"add(layer): got {len(values)} values")
            name = f"layer{len(self._parts)}"
            while name in self._parts:
                name += "_"
            last = tuple(list(self._parts)[-1:]) or self._network.plan.inputs
            conf = self._new(built(values[0], "add"), name, last, preprocessor)
            self._parts[name] = _Part(conf, last, preprocessor)
            return self
        if len(values) < 3:
            raise ValueError(
                f"add(name, layer or vertex, inputs...): got {len(values)} values"
            )
        name, item, *inputs = values
        if name in self._parts or name in self._network.plan.inputs:
            raise ValueError(f"add: the name {name!r} is taken; remove it first")
        reads = tuple(inputs)
        if not isinstance(item, Vertex):
            item = built(item, "add")
            if len(reads) > 1:
                self._parts[f"{name}-merge"] = _Part(MergeVertex(), reads)
                reads = (f"{name}-merge",)
            item = self._new(item, name, reads, preprocessor)
        self._parts[name] = _Part(item, reads, preprocessor)
        return self

    def set_outputs(self, *names: str) -> Transfer:
        """Name the outputs of a graph."""
        self._outputs = names
        return self

    # DL4J's words
    set_feature_extractor = freeze_until
    remove_vertex = remove
    add_layer = add_vertex = add

    def _new(self, layer: Layer, name: str, reads: Sequence[str], before: Any) -> Layer:
        """A new layer with its settings and sizes."""
        resolved = layer.resolved(self._words._for_layers()).named(name)
        if getattr(resolved, "n_in", 0) is not None or before is not None:
            return resolved  # type: ignore[no-any-return]
        given = self._type(reads)
        try:
            return fitted(resolved, given, None)[0]  # type: ignore[no-any-return]
        except ValueError as error:
            raise ConfigurationError(
                f"{name!r} ({type(layer).__name__}): {error}"
            ) from error

    def _type(self, reads: Sequence[str]) -> InputType | None:
        """What leaves a step, as far as sizes say."""
        if len(reads) != 1 or reads[0] not in self._parts:
            return None
        part = self._parts[reads[0]]
        if isinstance(part.conf, MergeVertex):
            found = [self._type([name]) for name in part.reads]
            known = tuple(given for given in found if given is not None)
            return part.conf.output(known) if len(known) == len(found) else None
        size = getattr(part.conf, "n_out", None)
        if size is None:
            return self._type(part.reads)
        if getattr(part.conf, "family", "ff") == "rnn":
            return Recurrent(size, None, getattr(part.conf, "format", None) or "NCW")
        return FeedForward(size)

    def _name(self, call: str, layer: int | str) -> str:
        """The name of a layer that is given by name or place."""
        names = list(self._parts)
        if isinstance(layer, int) and -len(names) <= layer < len(names):
            return names[layer]
        if layer not in self._parts:
            raise ValueError(
                f"{call}: expected one of {', '.join(names)}, got {layer!r}"
            )
        return str(layer)

    def _size(self, call: str, name: str, field: str) -> int:
        conf = self._parts[name].conf
        found = getattr(conf, field, None)
        if not isinstance(found, int):
            raise ValueError(
                f"{call}: {name!r} ({type(conf).__name__}) has no {field} of its own"
            )
        return found

    def _tuned(self, conf: Any) -> Any:
        """A kept layer with the settings that fine-tuning gives it."""
        if isinstance(conf, Wrapper):
            changed = conf.each(self._tuned)
            inside = changed.inside
            names = ("gradient_normalization", "gradient_normalization_threshold")
            rule = {n: getattr(inside, n) for n in names if hasattr(inside, n)}
            return replace(changed, **rule)
        given = self._words._settings
        if not given or not isinstance(conf, Layer):
            return conf
        if not conf.parameters and not isinstance(conf, HasLoss):
            return conf  # DL4J: also of what every layer has, as dropout
        whole = Settings(**given).resolved(DEFAULTS)
        changes = {_LISTS.get(n, n): getattr(whole, _LISTS.get(n, n)) for n in given}
        known = {f.name for f in dataclasses.fields(conf)}
        if "weight_decay" in given and self._network.dl4j_exact:
            terms = changes["regularization"]  # DL4J has it twice
            twice = tuple(r for r in terms if isinstance(r, WeightDecay))
            changes["regularization"] = (*terms, *twice)
        if "constraints" in changes:
            changes["constraints"] = tuple(conf._constrained(given["constraints"]))
        return replace(conf, **{n: v for n, v in changes.items() if n in known})

    def _held(self) -> set[str]:
        """Names of what is frozen: those that were named and all before them."""
        found: set[str] = set()
        waiting = list(self._frozen)
        while waiting:
            name = waiting.pop()
            if name in self._parts and name not in found:
                found.add(name)
                waiting += self._parts[name].reads
        outputs = self._outputs if self._graph else list(self._parts)[-1:]
        for name in outputs:
            if name in found:
                raise ValueError(
                    f"freeze_until: {name!r} is an output, and behind a frozen output "
                    "nothing is trained; freeze until a layer before it"
                )
        return found

    def configuration(self) -> NetworkConfiguration:
        """The configuration of the new network."""
        return self._made()[0]

    def _made(self) -> tuple[NetworkConfiguration, dict[str, _Part]]:
        held, exact = self._held(), self._network.dl4j_exact
        for name in self._frozen:
            self._name("freeze_until", name)  # it may have been removed
        parts = {}
        for name, part in self._parts.items():
            conf = part.conf if part.source is None else self._tuned(part.conf)
            if name in held:
                conf = _frozen(conf, name)
            parts[name] = dataclasses.replace(part, conf=conf)
        names = {f.name for f in dataclasses.fields(NetworkConfiguration)}
        values = {n: getattr(self._conf, n) for n in names}
        given = self._words._for_network()
        if exact and not self._graph:  # DL4J forgets how a chain was trained
            for f in dataclasses.fields(NetworkConfiguration):
                if f.name in ("backprop_type", "tbptt_fwd_length", "tbptt_back_length"):
                    values[f.name] = f.default
        values.update({n: given[n] for n in self._words._network})
        values.update(iteration_count=0, epoch_count=0)
        own = values["data_type"]
        # DL4J's builder writes its default type beside what is new, or for a graph
        wrote = given.get("data_type", "FLOAT") if exact else own
        if self._graph and exact:
            values["data_type"] = wrote
        beside = self._beside(parts, own, wrote)
        extra = {k: v for k, v in values.pop("extra").items() if k != "confs"}
        if any(beside.values()):
            extra["confs"] = beside if self._graph else tuple(beside.values())
        if self._graph:
            graph = ComputationGraphConfiguration(
                vertices={n: p.conf for n, p in parts.items()},
                vertex_inputs={n: p.reads for n, p in parts.items()},
                network_inputs=self._network.plan.inputs,
                network_outputs=self._outputs,
                preprocessors={
                    n: p.before for n, p in parts.items() if p.before is not None
                },
                extra=extra,
                **values,
            )
            return graph, parts
        if not parts:
            raise ValueError("transfer: no layer is left; add some")
        every = list(parts.values())
        chain = MultiLayerConfiguration(
            layers=tuple(p.conf for p in every),
            preprocessors={
                i: p.before for i, p in enumerate(every) if p.before is not None
            },
            extra=extra,
            **values,
        )
        return chain, parts

    def _beside(
        self, parts: dict[str, _Part], own: str, wrote: str
    ) -> dict[str, dict[str, Any]]:
        """What stands around layers beside the network's settings."""
        before = self._conf.extra.get("confs", {})
        steps = [step.name for step in self._network.plan.steps]
        if not isinstance(before, dict):
            before = dict(zip(steps, before, strict=False))
        found = {}
        for name, part in parts.items():
            if not isinstance(part.conf, Layer):
                continue
            now = dict(before.get(part.source, {})) if part.source else {}
            kind = wrote if part.source is None else own
            if kind != (wrote if self._graph else own):
                now["dataType"] = kind
            if now or not self._graph:
                found[name] = now
        return found

    def build(self, noise: Source = None) -> Network:
        """The new network, in exact mode if the old one is.

        Args:
            noise: where random numbers come from, as in ``conf.module(noise=...)``. A
                ``dl4py.NativeRandom`` gives DL4J's own parameters: for graphs one of
                the seed, for chains the one that the old network was drawn from, which
                DL4J goes on with.

        Raises:
            ValueError: where an output would be frozen, or where sizes do not fit.
        """
        conf, parts = self._made()
        network = conf.module(self._network.dl4j_exact)
        steps = network.plan.steps
        nodes = {node.name: node for node in network.nodes}
        names = {step.name: step.name for step in steps}
        if not self._graph:
            names = dict(zip(parts, (step.name for step in steps), strict=True))
        if noise is not None:
            if self._graph:
                network.reset_parameters(noise)
            network.set_noise(noise)
        for name, part in parts.items():
            if part.source is None or part.drawn:
                if noise is not None and not self._graph:
                    nodes[names[name]].layer.draw(network.noise)
                continue
            theirs = _views(self._network, part.source)
            for view, old in zip(_views(network, names[name]), theirs, strict=True):
                with torch.no_grad():
                    view.fill(old.flat())
        return network


def transfer(network: Network) -> Transfer:
    """Begin a network that goes on from a trained one.

    Args:
        network: a chain or a graph, which stays as it is.

    Example:
        >>> from dl4py.config import Dense, NeuralNetConfiguration, Output
        >>> chain = NeuralNetConfiguration.builder().layer(Dense(n_in=4, n_out=5))
        >>> trained = chain.layer(Output(n_out=3)).build().module()
        >>> new = transfer(trained).fine_tune(updater="adam").freeze_until(0)
        >>> new = new.remove().add(Output(n_out=2)).build()
        >>> [type(layer).__name__ for layer in new.layers.values()]
        ['Frozen', 'Output']
        >>> bool((new.params()[:25] == trained.params()[:25]).all())
        True

    DL4J: org.deeplearning4j.nn.transferlearning.TransferLearning
    """
    if not isinstance(network, Network):
        network = getattr(network, "network", network)  # of a LightningModule
    if not isinstance(network, Network):
        raise TypeError(
            f"transfer(network): expected a dl4py.Network, got {type(network).__name__}"
        )
    return Transfer(network)


def _views(network: Network, node: str) -> Iterator[Any]:
    return (view for view in network.views() if view.node == node)


def _init(weight_init: Any) -> dict[str, Any]:
    """A weight initialisation as a change, if there is one."""
    if weight_init is None:
        return {}
    return {"weight_init": FeedForwardLayer(weight_init=weight_init, n_out=1)
            .resolved(DEFAULTS).weight_init}  # fmt: skip


def _changed(conf: Any, **changes: Any) -> Any:
    """A layer, or what is inside a wrapper, with other sizes."""
    if isinstance(conf, Wrapper):
        change: Callable[[Any], Any] = lambda layer: _changed(layer, **changes)  # noqa: E731
        return conf.each(change)
    known = {f.name for f in dataclasses.fields(conf)}
    found = replace(conf, **{n: v for n, v in changes.items() if n in known})
    return found.resolved(DEFAULTS)


def _frozen(conf: Any, name: str) -> Any:
    """A layer, or a vertex with parameters, that is not trained."""
    if isinstance(conf, TrainedVertex):
        return FrozenVertex(conf)
    if not isinstance(conf, Layer) or isinstance(conf, Frozen):
        return conf
    return Frozen(underlying=conf).resolved(DEFAULTS).named(conf.name or name)
