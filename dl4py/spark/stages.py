"""A network as stages of a pipeline of ``pyspark.ml``."""

from __future__ import annotations

import io
from typing import Any

from pyspark.ml import Estimator, Model
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)

from dl4py.config.settings import NetworkConfiguration
from dl4py.network import Network
from dl4py.serializer import restore, save
from dl4py.spark.scoring import transform
from dl4py.spark.training import fit


class _Writer(MLWriter):
    """Params as PySpark writes them, and beside them the network as DL4J's zip."""

    def __init__(self, instance: Any) -> None:
        super().__init__()
        self.instance = instance

    def saveImpl(self, path: str) -> None:
        stage = self.instance
        exact = {"exact": stage.network.dl4j_exact}
        DefaultParamsWriter.saveMetadata(stage, path, self.sc, exact)
        file = io.BytesIO()
        save(stage.network, file, allow_difference=True)
        rows = [(bytearray(file.getvalue()),)]
        frame = self.sparkSession.createDataFrame(rows, "model binary")
        frame.coalesce(1).write.mode("overwrite").parquet(f"{path}/network")


class _Reader(MLReader[Any]):
    """What :class:`_Writer` wrote."""

    def __init__(self, cls: Any) -> None:
        super().__init__()
        self.cls = cls

    def load(self, path: str) -> Any:
        metadata = DefaultParamsReader.loadMetadata(path, self.sc)
        row = self.sparkSession.read.parquet(f"{path}/network").first()
        assert row is not None  # what a writer wrote has one
        file = io.BytesIO(bytes(row["model"]))
        stage = self.cls(restore(file, dl4j_exact=metadata["exact"]))
        stage._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(stage, metadata)
        return stage


class _Stage(Params, MLWritable, MLReadable[Any]):
    """What both stages have."""

    features: Any = Param(
        Params._dummy(), "features", "columns", TypeConverters.toListString
    )

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self._setDefault(features=["features"])

    def _get(self, name: str) -> Any:
        return self.getOrDefault(name)

    def write(self) -> Any:
        """What saves it."""
        return _Writer(self)

    @classmethod
    def read(cls) -> Any:
        """What loads it."""
        return _Reader(cls)


class NetworkModel(_Stage, Model):
    """A network that scores: :func:`dl4py.spark.transform` in a pipeline.

    Args:
        network: the network.
        params: ``features`` and ``output``, as of ``transform``.
    """

    output: Any = Param(
        Params._dummy(), "output", "column of predictions", TypeConverters.toString
    )

    def __init__(self, network: Network, **params: Any) -> None:
        super().__init__(network)
        self._setDefault(output="prediction")
        self._set(**_listed(params))

    def _transform(self, dataset: Any) -> Any:
        return transform(
            self.network,
            dataset,
            features=self._get("features"),
            output=self._get("output"),
        )


class NetworkEstimator(_Stage, Estimator[NetworkModel]):
    """A network that learns: :func:`dl4py.spark.fit` in a pipeline.

    Args:
        network: a network or a configuration; it stays as it is.
        params: what ``fit`` and ``transform`` take, by the same names.
    """

    labels: Any = Param(
        Params._dummy(), "labels", "columns", TypeConverters.toListString
    )
    output: Any = NetworkModel.output
    batch_size: Any = Param(
        Params._dummy(), "batch_size", "rows of a batch", TypeConverters.toInt
    )
    epochs: Any = Param(Params._dummy(), "epochs", "passes", TypeConverters.toInt)
    processes: Any = Param(
        Params._dummy(), "processes", "how many fit together", TypeConverters.toInt
    )
    averaging_frequency: Any = Param(
        Params._dummy(),
        "averaging_frequency",
        "batches between averages; 0: gradients",
        TypeConverters.toInt,
    )
    folder: Any = Param(
        Params._dummy(),
        "folder",
        "shared by all; '': temporary",
        TypeConverters.toString,
    )

    def __init__(self, network: Network | NetworkConfiguration, **params: Any) -> None:
        super().__init__(network if isinstance(network, Network) else network.module())
        self._setDefault(
            labels=["label"],
            output="prediction",
            batch_size=32,
            epochs=1,
            processes=2,
            averaging_frequency=0,
            folder="",
        )
        self._set(**_listed(params))

    def _fit(self, dataset: Any) -> NetworkModel:
        words = ("features", "labels", "batch_size", "epochs", "processes")
        found = fit(
            self.network,
            dataset,
            averaging_frequency=self._get("averaging_frequency") or None,
            folder=self._get("folder") or None,
            **{word: self._get(word) for word in words},
        )
        model = NetworkModel(
            found, features=self._get("features"), output=self._get("output")
        )
        return model


def _listed(params: dict[str, Any]) -> dict[str, Any]:
    """Names of columns as lists, which is what a ``Param`` holds."""
    several = ("features", "labels")
    return {
        k: [v] if k in several and isinstance(v, str) else v
        for k, v in params.items()
        if v is not None
    }
