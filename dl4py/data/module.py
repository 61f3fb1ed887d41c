"""Files as a ``LightningDataModule``, the same for both Lightning packages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dl4py.data.examples import Examples
from dl4py.data.options import Reading
from dl4py.data.reading import read
from dl4py.network.classes import check_order
from dl4py.normalizers import Normalizer
from dl4py.registry import NORMALIZERS

if TYPE_CHECKING:
    from lightning import LightningDataModule as _Base
else:
    _Base = object

PLAIN = Reading()


class DataMixin(_Base):
    """Files for a ``Trainer``: training, validation and test examples.

    The normalizer learns from the training part alone. It scales every batch and is
    given to the network, so that it travels in checkpoints and model zips.

    Args:
        train: a file or folder, as for :func:`dl4py.data.read`.
        validation, test: another one, or the share of ``train`` that is kept for it,
            the same from each class; 0 for none.
        predict: what ``trainer.predict`` reads.
        read: what of the files becomes what.
        normalizer: one of :mod:`dl4py.normalizers`, or its name; default: the one that
            the network brings. Without ``train`` one with a name is the network's too.
        batch_size: examples in each batch but the last.
        shuffle: whether each epoch has an order of its own.
        seed: of that order and of the shares.
        workers: processes that prepare batches.

    Attributes:
        parts: the examples by stage, once they are read.
    """

    def __init__(
        self,
        train: str = "",
        validation: float | str = 0.0,
        test: float | str = 0.0,
        predict: str = "",
        read: Reading = PLAIN,
        normalizer: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(
                f"batch_size must be a whole number >= 1, got {batch_size}"
            )
        self._named = isinstance(normalizer, str)
        if isinstance(normalizer, str):
            normalizer = NORMALIZERS[normalizer]()
        self.sources: dict[str, float | str] = {
            "train": train,
            "validation": validation,
            "test": test,
            "predict": predict,
        }
        self.reading = read
        self.normalizer: Normalizer | None = normalizer
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.workers = workers
        self.parts: dict[str, Examples] = {}
        self._fitted = False
        for name, hook in (
            ("validation", "val_dataloader"),
            ("test", "test_dataloader"),
        ):
            if not self.sources[name]:  # for Lightning, as if nobody had written it
                setattr(self, hook, None)

    def setup(self, stage: str | None = None) -> None:
        """Read what there is, and let the normalizer learn; the second call is free."""
        self.read()
        classes = self.parts["train"].classes if "train" in self.parts else None
        model = getattr(self.trainer, "lightning_module", None)
        network = getattr(model, "network", None)
        if network is not None and classes:
            check_order(classes, getattr(network, "classes", None), "the network")
            network.classes = tuple(classes)  # as the normalizer, for files
        if self.normalizer is not None and "train" in self.parts and not self._fitted:
            # in the order of the examples: what is learned depends on no seed
            self.normalizer.fit(self.parts["train"].loader(self.batch_size))
            self._fitted = True
        known = getattr(network, "normalizer", None)
        if self.normalizer is None or (self._named and not self._fitted):
            if self._named and known is None:
                raise ValueError(
                    "normalizer: has nothing to learn from, since train names no file, "
                    "and the network brings none"
                )
            self.normalizer = known
        if network is not None and self.normalizer is not None:
            network.normalizer = self.normalizer

    def read(self) -> None:
        """Read what there is; the second call is free."""
        self.parts = self.parts or self._read()

    def _read(self) -> dict[str, Examples]:
        files = {k: v for k, v in self.sources.items() if isinstance(v, str) and v}
        shares = {
            k: float(v) for k, v in self.sources.items() if not isinstance(v, str) and v
        }
        if shares and "train" not in files:
            raise ValueError(
                f"{', '.join(shares)}: a share of train, but train names no file"
            )
        found: dict[str, Examples] = {}
        for name, source in files.items():
            found[name] = read(source, self._known(found))
        if shares:
            rest, *parts = found["train"].split(*shares.values(), seed=self.seed)
            found.update(zip(shares, parts, strict=True))
            found["train"] = rest
        for name, part in found.items():
            if not len(part):
                raise ValueError(f"{name}: no examples are left for it")
        return found

    def _known(self, found: dict[str, Examples]) -> Reading:
        """The classes of the training data hold for the others."""
        classes = found["train"].classes if "train" in found else None
        if classes is None or self.reading.classes is not None:
            return self.reading
        return replace(self.reading, classes=list(classes))

    def _loader(self, name: str, shuffle: bool = False) -> Any:
        return self.parts[name].loader(
            self.batch_size, shuffle, self.seed, self.normalizer, self.workers
        )

    def train_dataloader(self) -> Any:
        if "train" not in self.parts:
            raise ValueError("train: expected a file or folder to train on, got none")
        return self._loader("train", self.shuffle)

    def val_dataloader(self) -> Any:
        return self._loader("validation")

    def test_dataloader(self) -> Any:
        return self._loader("test")

    def predict_dataloader(self) -> Any:
        if not self.sources["predict"] and not self.sources["test"]:
            raise ValueError("predict: expected a file or folder to predict, got none")
        return self._loader("predict" if "predict" in self.parts else "test")
