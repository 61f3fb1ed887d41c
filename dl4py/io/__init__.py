"""DL4J's files: arrays, data sets, model zips, as NumPy arrays and configurations."""

from dl4py.io.arrays import read_ndarray, write_ndarray
from dl4py.io.datasets import DataSet, read_dataset, write_dataset

__all__ = ["DataSet", "read_dataset", "read_ndarray", "write_dataset", "write_ndarray"]
