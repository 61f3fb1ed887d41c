"""Training and scoring on Spark: :func:`fit`, :func:`transform`, and pipeline stages.

PySpark's ``TorchDistributor`` starts the processes; rows reach them through Parquet
files and never the driver. DL4J's words for it are in a table of ``SERVING.md``.
"""

from dl4py.extras import needed

with needed("pyspark", "dl4py.spark trains on Spark"):
    from dl4py.spark.scoring import transform
    from dl4py.spark.stages import NetworkEstimator, NetworkModel
    from dl4py.spark.training import fit

__all__ = ["NetworkEstimator", "NetworkModel", "fit", "transform"]
