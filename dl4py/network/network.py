"""The network: nodes in order, and everything DL4J's networks do, written once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dl4py.activations import gradient_of
from dl4py.clock import Clock
from dl4py.config.network import SGD
from dl4py.layers import Layer, Scored
from dl4py.layers.base import View
from dl4py.network.optimizer import NetworkOptimizer, penalties
from dl4py.noise import Noise
from dl4py.ops.head import head
from dl4py.registry import UPDATERS, Named

if TYPE_CHECKING:
    from dl4py.config import MultiLayerConfiguration
    from dl4py.config.preprocessors import Preprocessor


@dataclass(frozen=True)
class Node:
    """One step of a network: a layer, what it reads, and what stands before it."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    preprocessor: Preprocessor | None = None
    conf: Any = None


@dataclass
class Flow:
    """What goes from node to node: values, their mask, the number of examples."""

    x: Tensor
    mask: Tensor | None
    n: int


INPUT = "input"


class Network(nn.Module):
    """A network of DL4J's layers as a ``torch.nn.Module``.

    ``conf.module()`` makes one. Calling it gives the output layer's activations
    (probabilities, not logits). Arrays have DL4J's shapes:
    ``[n, features]``, ``[n, features, time]``, ``[n, channels, height, width]``.

    Args:
        conf: the configuration.
        nodes: the layers in order of evaluation, each with what it reads.
        dl4j_exact: whether DL4J's faults are reproduced too.

    Every call on data takes ``features_mask``, which goes through the layers with the
    input, and ``labels_mask``, which multiplies the output layer's activations and
    weighs the labels.

    Example:
        >>> from dl4py.config import Dense, NeuralNetConfiguration, Output
        >>> chain = NeuralNetConfiguration.builder().layer(Dense(n_in=4, n_out=5))
        >>> net = chain.layer(Output(n_out=3)).build().module()
        >>> net.output(torch.zeros(2, 4)).shape
        torch.Size([2, 3])

    DL4J: org.deeplearning4j.nn.multilayer.MultiLayerNetwork
    """

    def __init__(
        self,
        conf: MultiLayerConfiguration,
        nodes: Iterable[Node],
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__()
        self.conf = conf
        self.dl4j_exact = dl4j_exact
        self.nodes = tuple(nodes)
        self.layers = nn.ModuleDict({node.name: node.layer for node in self.nodes})
        self.clock = Clock(conf.iteration_count, conf.epoch_count, dl4j_exact)
        self.noise = Noise()
        for module in self.modules():
            if isinstance(module, Layer):
                module.clock = self.clock
            if module is not self and hasattr(module, "noise"):
                # by name: layers and activations draw, and share no base that says so
                setattr(module, "noise", self.noise)  # noqa: B010
        self.normalizer: bytes | None = None  # that stood beside it in a zip: kept
        self._optimizer: NetworkOptimizer | None = None

    def forward(
        self,
        x: Tensor,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
    ) -> Tensor:
        """Activations of the output layer, in the current mode, with their graph."""
        *_, last = self._activations(x, features_mask, labels_mask)
        return last

    def _activations(
        self, x: Tensor, features_mask: Tensor | None, labels_mask: Tensor | None
    ) -> Iterator[Tensor]:
        flow = self._start(x, features_mask)
        for node in self.nodes[:-1]:
            flow = self._step(node, flow)
            yield flow.x
        flow = self._before(self.nodes[-1], flow)
        if isinstance(self.nodes[-1].layer, Scored):
            flow.mask = labels_mask  # DL4J: the features mask ends before a loss
        yield self._run(self.nodes[-1], flow).x

    def _start(self, x: Tensor, mask: Tensor | None) -> Flow:
        first = next(self.parameters(), None)
        if first is not None and x.is_floating_point() and x.dtype != first.dtype:
            if not torch.is_autocast_enabled(x.device.type):
                raise ValueError(
                    f"input: the network computes in {first.dtype}, got {x.dtype}; "
                    f"convert with x.to({first.dtype}) or build with data_type(...)"
                )
        if first is not None and x.device != first.device:
            raise ValueError(
                f"input: the network is on {first.device}, got a tensor on {x.device}; "
                "move one of them with .to(...)"
            )
        if x.dim() == 0:
            raise ValueError("input: expected a batch [n, ...], got a single number")
        return Flow(x, mask, x.shape[0])

    def _step(self, node: Node, flow: Flow) -> Flow:
        return self._run(node, self._before(node, flow))

    def _before(self, node: Node, flow: Flow) -> Flow:
        if node.preprocessor is None:
            return flow
        mask = flow.mask
        if mask is not None:
            mask = node.preprocessor.feed_mask(mask, flow.n)
        return Flow(node.preprocessor.apply(flow.x, flow.n), mask, flow.n)

    def _run(self, node: Node, flow: Flow) -> Flow:
        y = node.layer(flow.x, flow.mask)
        if node.layer.recurrent:
            y, _ = y
        return Flow(y, node.layer.feed_mask(flow.mask, flow.x.shape), flow.n)

    def output(
        self,
        x: Tensor,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
    ) -> Tensor:
        """:meth:`forward` in test mode without gradient; flags are restored."""
        with self._mode(False), torch.no_grad():
            return self(x, features_mask, labels_mask)  # type: ignore[no-any-return]

    def feed_forward(
        self,
        x: Tensor,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
    ) -> list[Tensor]:
        """Every layer's activations in test mode without gradient, input excluded."""
        with self._mode(False), torch.no_grad():
            return list(self._activations(x, features_mask, labels_mask))

    @contextlib.contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Everything in one mode, and afterwards each module in its own again."""
        flags = [(module, module.training) for module in self.modules()]
        self.train(training)
        try:
            yield
        finally:
            for module, flag in flags:
                module.training = flag

    @property
    def scored(self) -> Scored:
        """The last layer, which must have a loss."""
        last = self.nodes[-1].layer
        if not isinstance(last, Scored):
            raise ValueError(
                f"the last layer, {type(last).__name__}, has no loss: end the network "
                "with Output, RnnOutput or LossLayer to train it"
            )
        return last

    def divisor(self, n: int) -> int:
        """What sums over ``n`` examples are divided by."""
        last = self.scored
        if not last.criterion.additive and not self.dl4j_exact:
            return 1  # one number of the whole batch; DL4J divides it again
        return n if self.conf.mini_batch or last.always_divides else 1

    def _score_sum(
        self,
        x: Tensor,
        labels: Tensor,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, int]:
        """(pre-activations, score summed over examples without penalties, n)."""
        last = self.scored
        flow = self._start(x, features_mask)
        for node in self.nodes[:-1]:
            flow = self._step(node, flow)
        flow = self._before(self.nodes[-1], flow)
        z = last.pre_output(flow.x)
        return z, last.score_sum(z, labels, labels_mask), flow.n

    def loss(
        self,
        x: Tensor,
        labels: Tensor,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
    ) -> Tensor:
        """The score without penalties, in the current mode, with its graph."""
        _, total, n = self._score_sum(x, labels, features_mask, labels_mask)
        loss = total / self.divisor(n)
        if self.dl4j_exact and self._undivided:  # the value, with the sum's gradient
            loss = gradient_of(total, loss)
        return loss

    @property
    def _undivided(self) -> bool:
        """Whether DL4J divides the score by the number of examples, but no gradient."""
        last = self.nodes[-1].layer
        divides = isinstance(last, Scored) and last.always_divides
        return divides and not self.conf.mini_batch

    def objective(
        self,
        x: Tensor,
        labels: Tensor,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
    ) -> Tensor:
        """What ``backward()`` is called on: :meth:`loss`, with a solver the score.

        The optimizer adds the penalties' gradients after gradient normalisation; a
        solver needs them in what it minimises.
        """
        loss = self.loss(x, labels, features_mask, labels_mask)
        return loss + self.penalty() if self.solved else loss

    @property
    def solved(self) -> bool:
        """Whether a solver trains the network, other than DL4J's own."""
        exact = self.dl4j_exact and self.conf.optimization_algo != "HESSIAN_FREE"
        return self.conf.optimization_algo != SGD and not exact

    def penalty(self) -> Tensor:
        """What l1, l2 and weight decay add to the score."""
        terms = [
            head(r.score, w.view_as(w), self.clock)  # not w, which is in the outputs
            for w, rs in self.penalised()
            for r in rs
        ]
        first = next(self.parameters(), None)
        zero = torch.zeros(()) if first is None else first.new_zeros(())
        return torch.stack(terms).sum() if terms else zero

    def penalised(self) -> Iterator[tuple[Tensor, tuple[Any, ...]]]:
        """(parameter, its penalties) wherever there are any."""
        for node, view in self.views():
            found = penalties(node.conf, view)
            if found:
                yield getattr(node.layer, view.tensor), found

    def score(
        self,
        x: Tensor,
        labels: Tensor,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
        training: bool = False,
    ) -> float:
        """DL4J's score, (Σ over examples) / n plus penalties; it changes nothing.

        Args:
            training: whether noise and batch statistics are on.
        """
        with self._kept(), self._mode(training), torch.no_grad():
            loss = self.loss(x, labels, features_mask, labels_mask)
            return float(loss + self.penalty())

    def gradient_and_score(
        self,
        x: Tensor,
        labels: Tensor,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
    ) -> tuple[Tensor, float]:
        """DL4J's ``gradient()`` and ``score()`` of a batch, without a step.

        Returns:
            the flat gradient, **summed** over examples, before division by n,
            normalisation and penalties, batch-norm pseudo-gradients included; and the
            training-mode score. Flags, gradients and statistics stay as they were.
        """
        with self._kept(), self._mode(True), torch.enable_grad():
            _, total, n = self._score_sum(x, labels, features_mask, labels_mask)
            tensors = [getattr(node.layer, view.tensor) for node, view in self.views()]
            free = [t for t in tensors if t.requires_grad]
            grads = torch.autograd.grad(total, free, allow_unused=True) if free else ()
            found = iter(grads)
            parts = []
            for (node, view), t in zip(self.views(), tensors, strict=True):
                pending = node.layer.pending
                g = next(found) if t.requires_grad else pending.get(view.tensor)
                parts.append(view.flat(torch.zeros_like(t) if g is None else g))
            score = float((total / self.divisor(n) + self.penalty()).detach())
        return torch.cat(parts) if parts else total.new_zeros(0), score

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Pending statistics are afterwards what they were before."""
        kept = [(node.layer, dict(node.layer.pending)) for node in self.nodes]
        try:
            yield
        finally:
            for layer, pending in kept:
                layer.pending = pending

    def views(self) -> Iterator[tuple[Node, View]]:
        """Every parameter and statistic in the order of DL4J's flat vector."""
        for node in self.nodes:
            for view in node.layer.dl4j_views():
                yield node, view

    def params(self) -> Tensor:
        """All parameters and statistics as one flat vector in DL4J's order, a copy."""
        parts = [v.flat(getattr(n.layer, v.tensor).detach()) for n, v in self.views()]
        return torch.cat(parts) if parts else torch.zeros(0)

    def num_params(self) -> int:
        """Length of :meth:`params`."""
        return sum(getattr(n.layer, v.tensor).numel() for n, v in self.views())

    def set_params(self, values: Tensor) -> None:
        """Write a flat vector in DL4J's order into the parameters."""
        expected = self.num_params()
        if values.dim() != 1 or values.numel() != expected:
            raise ValueError(
                f"set_params(values): expected a vector of {expected} numbers, got "
                f"shape {tuple(values.shape)}"
            )
        start = 0
        with torch.no_grad():
            for node, view in self.views():
                t = getattr(node.layer, view.tensor)
                view.fill(t, values[start : start + t.numel()])
                start += t.numel()

    def configure_optimizer(self) -> NetworkOptimizer:
        """A new optimizer for this network, as its configuration says."""
        return NetworkOptimizer(self)

    @property
    def optimizer(self) -> NetworkOptimizer:
        """The optimizer of :meth:`fit`, made at first use."""
        if self._optimizer is None:
            self._optimizer = self.configure_optimizer()
        return self._optimizer

    def renew_optimizer(self) -> NetworkOptimizer:
        """A new optimizer in place of the present one, going on from its state.

        The state is then where the parameters are: these may have moved.
        """
        before, optimizer = self._optimizer, self.configure_optimizer()
        if before is not None:
            optimizer.load_state_dict(before.state_dict())
        self._optimizer = optimizer
        return optimizer

    def updater_state(self) -> Tensor:
        """The updaters' state as one flat vector in DL4J's block order, a copy."""
        return self.optimizer.flat_state()

    def fit(
        self,
        x: Any,
        labels: Tensor | None = None,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
        epochs: int = 1,
    ) -> float:
        """Train as DL4J's ``fit``: one step on a batch, or epochs over a loader.

        ``fit(x, labels)`` is one iteration. ``fit(loader, epochs=1)`` goes that often
        over batches ``(x, labels)`` or ``(x, labels, features_mask, labels_mask)``, and
        only this form counts epochs.

        Returns:
            the score of the last batch before its step; with one of DL4J's own solvers
            after it, as DL4J's ``score()``.
        """
        if labels is not None:
            return self._fit_batch(x, labels, features_mask, labels_mask)
        if isinstance(x, Tensor):
            raise ValueError("fit(x, labels): labels are missing")
        score = float("nan")
        for _ in range(epochs):
            for batch in x:
                score = self._fit_batch(*batch)
            self.clock.epoch += 1
        return score

    def _fit_batch(
        self,
        x: Tensor,
        labels: Tensor,
        features_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
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
                loss = closure()
                with torch.no_grad():
                    score = float(loss + self.penalty())
                optimizer.step()
            optimizer.zero_grad()
        return score

    def lightning(self, package: str | None = None) -> Any:
        """This network for a ``Trainer``: the same object, not a copy."""
        from dl4py.network.build import wrap  # it stands beside the network

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
            for name in ("updater", "bias_updater"):
                updater = getattr(node.conf, name, None)
                if isinstance(updater, Named):
                    found.append(updater.entry.item.difference(updater.kwargs))
            lines += [f"{node.name}: {line}" for line in found if line]
        if self.conf.optimization_algo in UPDATERS:
            solver = UPDATERS[self.conf.optimization_algo]
            if line := getattr(solver, "fault", None):
                lines.append(f"optimization_algo {self.conf.optimization_algo}: {line}")
        if self._undivided:
            last = type(self.nodes[-1].layer).__name__
            lines.append(f"mini_batch=False: DL4J divides {last}'s score, no gradient")
        if not self.conf.minimize:
            lines.append("minimize=False: DL4J goes downhill all the same")
        return list(dict.fromkeys(lines))
