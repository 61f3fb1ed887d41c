"""The network: everything DL4J's networks do, written once for chains and graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dl4py.clock import Clock
from dl4py.config import ComputationGraphConfiguration
from dl4py.config.codec import printable
from dl4py.config.plan import unique
from dl4py.config.settings import NetworkConfiguration
from dl4py.layers import Flow, Layer, Part, Scored, Vertex
from dl4py.losses.misfit import MaskMisfit
from dl4py.network import drawing
from dl4py.network.batch import Batch, Given, unpacked
from dl4py.network.door import Door
from dl4py.network.memory import Memory, TimeSteps
from dl4py.network.optimizer import NetworkOptimizer
from dl4py.network.pretraining import LayerWise
from dl4py.network.scores import Scores, check_score
from dl4py.network.walk import Node, nodes_of, walk
from dl4py.noise import Noise, Source
from dl4py.registry import UPDATERS, Named


class Network(TimeSteps, LayerWise, Scores):
    """A network of DL4J's layers as a ``torch.nn.Module``.

    ``conf.module()`` makes one, of a chain of layers or of a graph. Calling it gives
    the output layer's activations (probabilities, not logits). Arrays have DL4J's
    shapes: ``[n, features]``, ``[n, features, time]``,
    ``[n, channels, height, width]``.

    Args:
        conf: the configuration.
        modules: the modules of ``conf.plan()``'s steps.
        dl4j_exact: whether DL4J's faults are reproduced too.

    Every call on data takes ``features_mask``, which goes through the layers with the
    input, and ``labels_mask``, which multiplies the output layer's activations and
    weighs the labels. Several inputs, labels or masks are a tuple, or a dict by name;
    results of several outputs are a tuple.

    What a mask hides contributes exactly nothing to values, gradients and statistics,
    whatever stands there, NaN and infinities included. Masked examples still count in
    the mean, and labels count unless ``labels_mask`` hides them. Features that are not
    finite at an example without any label are masked with it. In exact mode masks act
    as far as DL4J heeds them, and what is not finite behind one counts as 0.

    Attributes:
        normalizer: what :meth:`predict` scales raw features with, or ``None``.
        classes: the names of the classes, in the outputs' order, or ``None``; they go
            into files and are what data gives a network that a Trainer fits.

    Example:
        >>> from dl4py.config import Dense, NeuralNetConfiguration, Output
        >>> chain = NeuralNetConfiguration.builder().layer(Dense(n_in=4, n_out=5))
        >>> net = chain.layer(Output(n_out=3)).build().module()
        >>> net.output(torch.zeros(2, 4)).shape
        torch.Size([2, 3])

    DL4J: org.deeplearning4j.nn.multilayer.MultiLayerNetwork,
        org.deeplearning4j.nn.graph.ComputationGraph
    """

    def __init__(
        self,
        conf: NetworkConfiguration,
        modules: Sequence[Layer | Vertex],
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__()
        self.conf = conf
        self.dl4j_exact = dl4j_exact
        self.plan = conf.plan()
        self.nodes = nodes_of(self.plan, modules)
        self.layers = nn.ModuleDict(_keys(self.nodes))
        self.door = Door(self.plan, modules, dl4j_exact)
        self.clock = Clock(conf.iteration_count, conf.epoch_count, dl4j_exact)
        self.memory = Memory()
        graph = isinstance(conf, ComputationGraphConfiguration)
        for module in self.modules():
            if isinstance(module, Part):
                module.clock = self.clock
            if isinstance(module, Scored):
                module.in_graph, module.mini_batch = graph, conf.mini_batch
        self._views = tuple(
            view.renamed(view.name, node=node.name, behind=node.behind)
            for node in self.nodes
            for view in node.layer.views()
        )
        behind = any(view.behind and view.exact for view in self._views)
        self._counts = behind and conf.mini_batch
        self.normalizer: Any = None
        self.classes: tuple[str, ...] | None = None
        self._optimizer: NetworkOptimizer | None = None
        self.set_noise(None)
        drawing.keep(self)

    def set_noise(self, noise: Source) -> None:
        """Take every later draw from ``noise``: DL4J's ``setSeed``.

        With a ``dl4py.NativeRandom`` dropout and whatever else is random is what DL4J
        draws after ``Nd4j.getRandom().setSeed(seed)``, in its order. Its state is then
        part of ``state_dict()``, so that a checkpoint goes on as if never left.

        Args:
            noise: a ``dl4py.NativeRandom``, a generator of torch's, or ``None`` for
                torch's default ones.
        """
        self.noise = Noise() if noise is None else Noise.of(noise)
        drawing.share(self, self.noise)

    def reset_parameters(self, generator: Source = None) -> None:
        """Draw all parameters anew, in DL4J's order.

        Args:
            generator: torch's, or a ``dl4py.NativeRandom`` of the configuration's seed
                for DL4J's own parameters; default: a new one of torch's, seeded by the
                configuration.
        """
        if generator is None:
            generator = torch.Generator().manual_seed(self.conf.seed)
        layers = {node.name: node.layer for node in self.nodes}
        vertices = getattr(self.conf, "vertices", {})
        drawing.draw(layers, vertices, Noise.of(generator))

    def _batch(
        self,
        x: Given,
        labels: Given = None,
        features_mask: Given = None,
        labels_mask: Given = None,
        scored: bool = False,
    ) -> Batch:
        """What a caller gave, checked."""
        batch = Batch.of(
            self.plan.inputs,
            self.plan.outputs,
            x,
            labels,
            features_mask,
            labels_mask,
            scored,
        )
        return self.door.checked(batch, next(self.parameters(), None), scored)

    def _walk(self, batch: Batch) -> Iterator[tuple[str, Flow]]:
        flows = walk(self.plan, self.nodes, batch, self.memory.given)
        return self.memory.watched(flows)

    def _results(self, batch: Batch) -> Any:
        """The activations of the outputs: a tensor, of several outputs a tuple."""
        eager = self.training and not torch.compiler.is_compiling()
        with self._untouched() if eager else contextlib.nullcontext():
            found = {
                name: flow.x
                for name, flow in self._walk(batch)
                if name in self.plan.outputs
            }
        results = tuple(found[name] for name in self.plan.outputs)
        return results if len(results) > 1 else results[0]

    def forward(
        self,
        x: Given,
        features_mask: Given = None,
        labels_mask: Given = None,
        labels: Given = None,
    ) -> Any:
        """Activations of the output layer, in the current mode, with their graph.

        With ``labels`` it is :meth:`loss`, which goes this way: whatever torch lays
        around a module's call (FSDP, DDP, hooks) is around training too.
        """
        if labels is None:
            return self._results(self._batch(x, None, features_mask, labels_mask))
        batch = self._batch(x, labels, features_mask, labels_mask, scored=True)
        return self._loss(self._scores(batch))

    def output(
        self, x: Given, features_mask: Given = None, labels_mask: Given = None
    ) -> Any:
        """:meth:`forward` in test mode without gradient; flags are restored."""
        with self._mode(False), torch.no_grad():
            return self(x, features_mask, labels_mask)

    def predict(
        self, x: Given, features_mask: Given = None, labels_mask: Given = None
    ) -> Any:
        """:meth:`output` of raw features: scaled by ``normalizer``, if there is one.

        If it scales labels too, the predictions come back in their units.
        """
        normalizer = self.normalizer
        if normalizer is None:
            return self.output(x, features_mask, labels_mask)
        if isinstance(normalizer, bytes):
            raise TypeError(
                "predict: the normalizer beside this network is a Java class of "
                "somebody's own; set net.normalizer to one of dl4py.normalizers, or "
                "scale the features yourself and call output"
            )
        with torch.no_grad():
            x = normalizer.transform(x, features_mask)
            found = self.output(x, features_mask, labels_mask)
            return normalizer.revert_labels(found, labels_mask)

    def evaluate(self, data: Any, metric: Any = None) -> Any:
        """A metric over batches, in test mode: DL4J's ``evaluate(iterator)``.

        Args:
            data: a batch as a tuple ``(x, labels)``, with or without both masks, or an
                iterable of such batches, e.g. a ``DataLoader``.
            metric: anything with ``update(predictions, labels[, mask])``, e.g. a
                ``RegressionEvaluation`` or ``ROCMultiClass``; of several outputs a dict
                by name. Default: an ``Evaluation``.

        Returns:
            the metric, which has counted the batches.
        """
        if metric is None:
            from dl4py.evaluation import Evaluation  # torchmetrics, above this floor

            metric = Evaluation()
        names = self.plan.outputs
        many = metric if isinstance(metric, Mapping) else {names[0]: metric}
        if not set(many) <= set(names) or (len(names) > 1 and metric is not many):
            raise ValueError(
                f"evaluate(metric=...): expected a dict by the names of the outputs "
                f"({', '.join(names)}), got {metric!r}"
            )
        batch = None
        for batch in [data] if isinstance(data, tuple) else data:
            x, labels, *masks = unpacked(batch)
            found, masks = self.output(x, *masks), (*masks, None, None)[1]
            for name, counts in many.items():
                i = names.index(name)
                p, y, mask = (_part(v, i, name) for v in (found, labels, masks))
                try:
                    counts.update(p, y, *(() if mask is None else (mask,)))
                except MaskMisfit as error:
                    raise error.named("labels_mask") from error
        if batch is None:
            raise ValueError("evaluate(data): expected at least one batch, got none")
        return metric

    def summary(self) -> str:
        """A table of layers, sizes, parameters and updaters: DL4J's ``summary()``."""
        from dl4py.network.summary import table  # which builds a network to compare

        return str(table(self))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "normalizer":  # beside the network, in no state dict of it
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def feed_forward(
        self, x: Given, features_mask: Given = None, labels_mask: Given = None
    ) -> Any:
        """Every step's activations in test mode without gradient, input excluded.

        Returns:
            a list of a chain's; a dict by name of a graph's.
        """
        batch = self._batch(x, None, features_mask, labels_mask)
        with self._mode(False), torch.no_grad():
            found = {name: flow.x for name, flow in self._walk(batch)}
        graph = isinstance(self.conf, ComputationGraphConfiguration)
        return found if graph else list(found.values())

    @contextlib.contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Everything in one mode, and afterwards each module in its own again."""
        modules = list(self.modules())
        flags = [(m, m.training) for m in modules if m.training != training]
        for module, _ in flags:  # as train(), which walks the modules once more
            vars(module)["training"] = training
        for module in modules if flags else ():
            if type(module).train is not nn.Module.train:
                module.train(training)  # a frozen layer's inside stays as it was
        try:
            yield
        finally:
            for module, flag in flags:
                vars(module)["training"] = flag

    @contextlib.contextmanager
    def _untouched(self) -> Iterator[None]:
        """Pending statistics are what they were before, if something fails."""
        owners = [view.owner for view in self._views if view.kind == "statistic"]
        kept = [dict(owner.pending) for owner in owners]
        try:
            yield
        except BaseException:
            for owner, pending in zip(owners, kept, strict=True):
                owner.pending = pending
            raise

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Pending statistics are afterwards what they were before."""
        parts = [part for part in self.modules() if isinstance(part, Part)]
        kept = [(part, dict(part.pending)) for part in parts]
        try:
            yield
        finally:
            for part, pending in kept:
                part.pending = pending

    def configure_optimizer(self) -> NetworkOptimizer:
        """A new optimizer for this network, as its configuration says."""
        return NetworkOptimizer(self._views, self.conf, self.clock)

    @property
    def optimizer(self) -> NetworkOptimizer:
        """The optimizer of :meth:`fit`, made at first use."""
        if self._optimizer is None:
            self._optimizer = self.configure_optimizer()
        return self.renew_optimizer() if self._optimizer.stale else self._optimizer

    def renew_optimizer(self) -> NetworkOptimizer:
        """A new optimizer in place of the present one, going on from its state.

        The state is then where the parameters are: these may have moved.
        """
        before, optimizer = self._optimizer, self.configure_optimizer()
        if before is not None:
            if before.stale:
                optimizer.go_on_from(before)
            else:
                optimizer.load_state_dict(before.state_dict())
            optimizer.listeners = before.listeners
        self._optimizer = optimizer
        return optimizer

    def updater_state(self) -> Tensor:
        """The updaters' state as one flat vector in DL4J's block order, a copy."""
        return self.optimizer.flat_state()

    def fit(
        self,
        x: Any,
        labels: Given = None,
        features_mask: Given = None,
        labels_mask: Given = None,
        epochs: int = 1,
    ) -> float:
        """Train as DL4J's ``fit``: one step on a batch, or epochs over a loader.

        ``fit(x, labels)`` is one iteration. ``fit(loader, epochs=1)`` goes that often
        over batches ``(x, labels)`` or ``(x, labels, features_mask, labels_mask)``, or
        dicts with these keys, and only this form counts epochs.

        Returns:
            the score of the last batch before its step; with one of DL4J's own solvers
            after it, as DL4J's ``score()``.
        """
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(
                f"fit(loader, epochs=...) must be a whole number >= 1, got {epochs!r}"
            )
        if labels is not None:
            if epochs > 1:
                raise ValueError(
                    f"fit(x, labels, epochs={epochs}): a batch is one iteration of no "
                    "epoch; write fit([(x, labels)], epochs=...), or a loop"
                )
            return self._fit_batch(x, labels, features_mask, labels_mask)
        if isinstance(x, (Tensor, Mapping)) or not isinstance(x, Iterable):
            raise ValueError("fit(x, labels): labels are missing")
        if features_mask is not None or labels_mask is not None:
            raise ValueError(
                "fit(loader): masks come with the batches of a loader, as (x, labels, "
                "features_mask, labels_mask)"
            )
        score = 0.0
        for epoch in range(epochs):
            before = self.clock.iteration
            for batch in x:
                score = self._fit_batch(*unpacked(batch))
            if self.clock.iteration == before:
                once = "; a generator gives them once, a list or DataLoader every time"
                raise ValueError(
                    f"fit(loader): expected at least one batch, got none in epoch "
                    f"{epoch}{once if epoch else ''}"
                )
            self.end_epoch()
        return score

    def end_epoch(self) -> None:
        """Count an epoch, for schedules and whoever reads the next step's rates."""
        self.clock.epoch += 1
        if self._optimizer is not None:
            self._optimizer.preview()

    def _fit_batch(self, *batch: Given) -> float:
        if not self.conf.truncated:
            return self._fit_step(*batch)
        with contextlib.closing(self.windows(*batch)) as pieces:
            scores = [self._fit_step(*piece) for piece in pieces]
        return scores[-1] if scores else 0.0  # DL4J's before any step

    def _fit_step(
        self,
        x: Given,
        labels: Given,
        features_mask: Given = None,
        labels_mask: Given = None,
    ) -> float:
        optimizer = self.optimizer

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.objective(x, labels, features_mask, labels_mask)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        with self._mode(True):
            if optimizer.solution is not None:
                score = float(optimizer.step(closure))  # type: ignore[arg-type]
            else:
                with self._untouched():
                    loss = closure()
                    with torch.no_grad():
                        score = float(loss + self.penalty())
                    check_score(score, self.clock.iteration)
                with optimizer.spending():
                    optimizer.step()
            optimizer.zero_grad()
        return score

    def lightning(self, package: str | None = None) -> Any:
        """This network for a ``Trainer``: the same object, not a copy."""
        from dl4py.network.build import wrap  # it makes networks

        return wrap(self, package)

    def differs(self) -> list[str]:
        """One line per way in which ``dl4j_exact`` changes what is computed."""
        first = next(self.parameters(), None)
        dtype = torch.float64 if first is None else first.dtype
        lines = []
        for node in self.nodes:
            found = node.layer.differs(dtype)
            constraints = getattr(node.conf, "constraints", None) or ()
            found += [constraint.differs() for constraint in constraints]
            if node.behind and any(v.penalties for v in node.layer.views()):
                found.append("DL4J's penalties act behind a frozen layer, too")
            for name in ("updater", "bias_updater"):
                updater = getattr(node.conf, name, None)
                if isinstance(updater, Named):
                    found.append(updater.entry.item.difference(updater.kwargs))
            if node.output is not None and self._undivided(node.layer):
                last = type(node.layer).__name__
                rule = f"mini_batch=False: DL4J divides {last}'s score, no gradient"
                lines.append(rule)
            lines += [f"{node.name}: {line}" for line in found if line]
        if self.conf.optimization_algo in UPDATERS:
            solver = UPDATERS[self.conf.optimization_algo]
            if line := getattr(solver, "fault", None):
                lines.append(f"optimization_algo {self.conf.optimization_algo}: {line}")
        if self.conf.truncated:
            lines.append(
                "TruncatedBPTT: DL4J's errors go back through every window as if its "
                "state began at 0, and do not heed tbptt_back_length"
            )
            steps = self.plan.steps
            if any(getattr(s.conf, "format", None) == "NWC" for s in steps):
                lines.append(
                    "TruncatedBPTT: DL4J takes the features of NWC series for time; it "
                    "trains in one window, or where sizes differ not at all"
                )
        if not self.conf.minimize:
            lines.append("minimize=False: DL4J goes downhill all the same")
        return list(dict.fromkeys(lines))


def _part(value: Any, i: int, name: str) -> Any:
    """What belongs to an output, of a value for all of them."""
    if isinstance(value, Mapping):
        return value.get(name)
    return value[i] if isinstance(value, (tuple, list)) else value


def _keys(nodes: Sequence[Node]) -> dict[str, nn.Module]:
    """The modules by names that a ``ModuleDict`` takes."""
    found: dict[str, nn.Module] = {}
    taken: dict[str, int] = {}
    for node in nodes:
        key = printable(node.name).replace(".", "_") or "_"
        if hasattr(nn.ModuleDict, key):
            key += "_"
        found[unique(key, taken)] = node.layer
    return found
