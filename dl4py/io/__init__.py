"""DL4J's files: ND4J arrays and model zips, as NumPy arrays and configurations."""

from dl4py.io.arrays import read_ndarray, write_ndarray

__all__ = ["read_ndarray", "write_ndarray"]
