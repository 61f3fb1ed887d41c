"""What a LightningModule of a network does, the same for both Lightning packages."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from dl4py.config import NeuralNetConfiguration
from dl4py.config.settings import NetworkConfiguration
from dl4py.network import Network, NetworkOptimizer, classes
from dl4py.network.batch import unpacked
from dl4py.network.scores import check_score
from dl4py.normalizers import Normalizer, read_normalizer, write_normalizer
from dl4py.normalizers.files import is_custom

if TYPE_CHECKING:
    from lightning import LightningModule as _Base
else:
    _Base = object


STEPS_BY_ITSELF = (  # what a Trainer does around a step, and what it is told instead
    (
        "gradient_clip_val",
        (None, 0),
        "let the configuration clip: gradient_normalization('ClipL2PerLayer')",
    ),
    ("accumulate_grad_batches", (1,), "let the loader give larger batches"),
)


class NetworkMixin(_Base):
    """A network under a ``Trainer``: ``conf.lightning()`` or ``net.lightning()``.

    Batches are ``(x, labels)`` or ``(x, labels, features_mask, labels_mask)``, or dicts
    with these keys; several inputs, labels or masks are a tuple, or a dict by name.
    Logged are ``train_loss``, ``val_loss`` and ``test_loss``: DL4J's score, penalties
    included; for rows of several classes without masks ``val_accuracy`` and
    ``test_accuracy`` too. With several loaders Lightning adds ``/dataloader_idx_0`` and
    so on to these names. The parameters after training equal those of ``Network.fit``
    on the same batches.

    Args:
        conf: the configuration as DL4J's JSON in plain Python types, as a checkpoint
            holds it.
        dl4j_exact: whether DL4J's faults are reproduced too; a network given as
            ``config`` has decided that already.
        extra: what DL4J has no word for; nothing so far.
        config: a configuration or a network, where it is not given as ``conf``.

    Attributes:
        network: the :class:`~dl4py.network.Network`.
        last_score: DL4J's score of the last training batch, penalties included.
    """

    last_score: Tensor | None = None

    def __init__(
        self,
        conf: Mapping[str, Any] | None = None,
        dl4j_exact: bool = False,
        extra: Mapping[str, Any] | None = None,
        config: NetworkConfiguration | Network | None = None,
    ) -> None:
        super().__init__()
        if config is None:
            if conf is None:
                raise ValueError(
                    "this checkpoint's configuration holds functions or classes "
                    "without a registered name and could not be saved; give it: "
                    "load_from_checkpoint(path, config=...)"
                )
            config = NeuralNetConfiguration.from_dict(conf)
        self.network = (
            config if isinstance(config, Network) else config.module(dl4j_exact)
        )
        self.automatic_optimization = not self.network.conf.truncated
        try:
            plain: dict[str, Any] | None = self.network.conf.to_dict()
        except TypeError:  # it trains, but only its user can describe it
            plain = None
        self.save_hyperparameters(
            {
                "conf": plain,
                "dl4j_exact": self.network.dl4j_exact,
                "extra": dict(extra or {}),
            }
        )

    def forward(self, *batch: Any) -> Any:
        """The network's output, in the current mode."""
        return self.network(*batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = self.network.normalizer
        if isinstance(found, Normalizer):
            found = write_normalizer(found)
        if found is not None:  # as numbers, which load with weights_only=True
            checkpoint["normalizer"] = torch.frombuffer(
                bytearray(found), dtype=torch.uint8
            )

        if self.network.classes:
            checkpoint["classes"] = classes.written(self.network.classes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = checkpoint.get("normalizer")
        if isinstance(data, Tensor):
            found = bytes(data.cpu().numpy())
            custom = is_custom(found)
            self.network.normalizer = found if custom else read_normalizer(found)
        if "classes" in checkpoint:
            self.network.classes = classes.names(checkpoint["classes"], "classes")

    def configure_optimizers(self) -> NetworkOptimizer:
        """The network's optimizer, with the state so far; schedules are inside it."""
        self.network.train()  # a restored network comes in eval mode
        return self.network.renew_optimizer()

    @property
    def lr(self) -> float:
        """The first layer's rate; setting it, as ``lr_find`` does, sets all layers'."""
        return float(self.network.optimizer.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.network.optimizer.param_groups:
            group["lr"] = value

    def configure_callbacks(self) -> Any:
        trainer = self.trainer
        if self.network.conf.truncated and trainer.state.fn == "fit":
            for name, neutral, instead in STEPS_BY_ITSELF:
                if getattr(trainer, name) not in neutral:
                    raise ValueError(
                        f"Trainer({name}={getattr(trainer, name)}): with backprop_type "
                        "TruncatedBPTT every window of a batch is a step of its own; "
                        f"{instead}"
                    )
        return super().configure_callbacks()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.network.conf.truncated:
            return self._windows_step(batch)
        loss = self.network.objective(*unpacked(batch))
        self._check(loss)
        penalised = not self.network.solved  # else they are in it
        self._log("train_loss", loss.detach(), batch, penalised)
        return loss

    def _check(self, loss: Tensor) -> None:
        """Refuse to step on a score that is no number, where looking waits for nothing.

        On other devices :meth:`on_train_epoch_end` does. A solver's trials may be
        anything, and early stopping judges scores by itself.
        """
        judged = any(hasattr(c, "judges") for c in self.trainer.callbacks)  # type: ignore[attr-defined]
        if loss.is_cpu and not self.network.optimizer.is_trial and not judged:
            check_score(float(loss.detach()), self.network.clock.iteration)

    def _windows_step(self, batch: Any) -> Tensor:
        """A step for every window of truncated back-propagation; the last one's score.

        A score that is no number ends training before its step.
        """
        network, optimizer = self.network, cast(Any, self.optimizers())
        scores = [network.params().new_zeros(())]  # where DL4J trains nothing
        with contextlib.closing(network.windows(*unpacked(batch))) as pieces:
            for piece in pieces:
                scores = []

                def closure(piece: Any = piece, scores: Any = scores) -> Tensor:
                    optimizer.zero_grad()
                    loss = network.objective(*piece)
                    with torch.no_grad():
                        score = loss.detach()
                        if not network.solved:  # else they are in it
                            score = score + network.penalty()
                    scores.append(score)
                    if len(scores) == 1:  # a solver may try what is no number
                        check_score(float(score), network.clock.iteration)
                    self.manual_backward(loss)
                    return loss.detach()

                optimizer.step(closure)
        self._log("train_loss", scores[0], batch, penalised=False)
        return scores[0]

    def on_train_epoch_end(self) -> None:
        self.network.end_epoch()
        score = self.last_score
        if score is not None and not score.is_cpu and not score.isfinite():
            raise FloatingPointError(
                f"the score is {float(score)} at the end of epoch "
                f"{self.network.clock.epoch - 1}: take the parameters from a "
                "checkpoint, look for values in the data that are not finite, lower "
                "the learning rate or set gradient_normalization(...)"
            )

    def validation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("test", batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        x: Any = batch
        masks: Any = ()
        names = self.network.plan.inputs
        if isinstance(batch, Mapping) and not set(batch) <= set(names):
            x, _, *masks = unpacked(batch, labels=False)
        elif isinstance(batch, (list, tuple)) and not (
            len(names) > 1 and isinstance(batch[0], Tensor)  # the inputs alone
        ):
            x, _, *masks = unpacked(batch) if len(batch) > 1 else (*batch, None)
        return self.network.output(x, *masks)

    def _evaluate(self, stage: str, batch: Any) -> None:
        x, labels, *masks = unpacked(batch)
        self._log(f"{stage}_loss", self.network.loss(x, labels, *masks), batch)
        if not isinstance(labels, Tensor):
            return  # of several outputs
        if labels.dim() == 2 and labels.shape[1] > 1 and not masks:
            hit = self.network.output(x).argmax(1) == labels.argmax(1)
            self._log(f"{stage}_accuracy", hit.float().mean(), batch, penalised=False)

    def _log(
        self, name: str, value: Tensor, batch: Any, penalised: bool = True
    ) -> None:
        if self.network.optimizer.is_trial:
            return
        if penalised:
            with torch.no_grad():
                value = value + self.network.penalty()
        if name == "train_loss":
            self.last_score = value.detach()
        self.log(
            name,
            value,
            prog_bar=True,
            batch_size=examples(unpacked(batch)[0]),
            sync_dist=not name.startswith("train"),  # of all ranks' examples
        )


def examples(x: Any) -> int:
    """The number of examples at the first of a network's inputs."""
    while not isinstance(x, Tensor):
        x = next(iter(x.values() if isinstance(x, Mapping) else x))
    return x.shape[0]
