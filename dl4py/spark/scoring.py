"""Predictions of a network for the rows of a DataFrame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from dl4py.extras import need
from dl4py.network import Network
from dl4py.spark.columns import Names, array, incomplete
from dl4py.spark.executors import same_python


def transform(
    model: Network,
    dataframe: Any,
    *,
    features: Names = "features",
    output: str = "prediction",
) -> Any:
    """The DataFrame with a column of predictions, arrays of doubles.

    Each executor gets the network once, with its normalizer, which is applied.

    Args:
        model: a network of one input and one output.
        dataframe: of PySpark's.
        features: a column of numbers, arrays or vectors, or several of numbers.
        output: name of the new column, null where a feature is.

    Raises:
        ValueError, TypeError: where a column is missing or has other content.
    """
    from pyspark.sql import functions

    pandas = need("pandas", "dl4py.spark.transform hands rows on")
    if len(model.plan.inputs) > 1 or len(model.plan.outputs) > 1:
        raise ValueError(
            "transform(model, ...): expected one input and one output, got "
            f"{', '.join(model.plan.inputs)} and {', '.join(model.plan.outputs)}"
        )
    column = array(dataframe, "transform(features=...)", features)
    same_python(dataframe.sparkSession)
    sent = dataframe.sparkSession.sparkContext.broadcast(model)

    def predicted(parts: Any) -> Iterator[Any]:
        net = sent.value
        dtype = next(net.parameters(), torch.zeros(0)).dtype
        for part in parts:
            rows = part.to_list()
            known = [i for i, row in enumerate(rows) if row is not None]
            found: list[Any] = [None] * len(rows)
            if known:
                x = torch.from_numpy(np.stack([rows[i] for i in known])).to(dtype)
                for i, y in zip(known, net.predict(x).double().numpy(), strict=True):
                    found[i] = y
            yield pandas.Series(found, dtype=object)

    # PySpark reads from annotations how it is called; in this file they are text
    iterator: Any = Iterator
    series = iterator[pandas.Series]
    predicted.__annotations__ = {"parts": series, "return": series}
    made: Any = functions.pandas_udf(predicted, "array<double>")  # type: ignore
    whole = functions.when(~incomplete(column), column)
    return dataframe.withColumn(output, made(whole))
