"""Trains on a table of wines with Spark, and scores it there.

178 wines of three growers, scikit-learn's, are written as Parquet, which is where data
for Spark usually lies; a pipeline reads its columns, scales them and fits a network on
two processes.

    pip install "dl4py[examples,spark]"     # and Java
    python examples/spark_wine.py
    python examples/spark_wine.py --epochs 60
"""

import argparse
import tempfile
from collections.abc import Sequence
from typing import Any

from pyspark.ml import Pipeline
from pyspark.ml.feature import StandardScaler, VectorAssembler
from pyspark.sql import SparkSession
from sklearn.datasets import load_wine

from dl4py import NeuralNetConfiguration
from dl4py.config import Dense, Output
from dl4py.spark import NetworkEstimator

LABEL = "target"


def session() -> SparkSession:
    """Spark on two of this machine's cores."""
    builder: Any = SparkSession.builder
    builder = builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.host", "127.0.0.1")
    made: SparkSession = builder.config(
        "spark.sql.shuffle.partitions", "2"
    ).getOrCreate()
    return made


def pipeline(columns: list[str], epochs: int) -> Pipeline:
    """Columns → a vector → of deviation 1 and mean 0 → a network."""
    chain = NeuralNetConfiguration.builder().seed(1).updater("adam", lr=0.02)
    chain = chain.layer(Dense(n_in=len(columns), n_out=8, activation="tanh"))
    network = chain.layer(Output(n_out=3)).build()
    return Pipeline(
        stages=[
            VectorAssembler(inputCols=columns, outputCol="raw"),
            StandardScaler(inputCol="raw", outputCol="scaled", withMean=True),
            NetworkEstimator(
                network, features="scaled", labels=LABEL, batch_size=16, epochs=epochs
            ),
        ]
    )


def main(argv: Sequence[str] | None = None) -> float:
    """Fit, score, and give the share of wines whose grower is found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args(argv)

    spark = session()
    with tempfile.TemporaryDirectory() as folder:
        load_wine(as_frame=True).frame.to_parquet(f"{folder}/wine.parquet")
        table = spark.read.parquet(f"{folder}/wine.parquet")
        columns = [name for name in table.columns if name != LABEL]
        model = pipeline(columns, options.epochs).fit(table)
        best = "array_position(prediction, array_max(prediction)) - 1"
        hits = model.transform(table).selectExpr(f"avg(int({best} = {LABEL}))")
        (share,) = hits.first() or (0.0,)
    print(f"the grower is found for {share:.1%} of the wines")
    return float(share)


if __name__ == "__main__":
    main()
