"""Data for networks: files in, examples with labels and masks out.

:func:`read` gives a torch ``Dataset`` of a file or folder, :func:`stream` the same in
pieces, ``dl4py.lightning.DataModule`` a ``LightningDataModule`` over it; all take the
words of :class:`Reading`. The README has a table of DL4J's readers and iterators.
"""

from dl4py.data import stored, tables
from dl4py.data.bundled import IRIS_CLASSES, IRIS_FEATURES, iris, train_test_split
from dl4py.data.examples import Arrays, Examples
from dl4py.data.images import Images
from dl4py.data.options import READERS, Reading
from dl4py.data.reading import read, stream

__all__ = [
    "IRIS_CLASSES",
    "IRIS_FEATURES",
    "READERS",
    "Arrays",
    "Examples",
    "Images",
    "Reading",
    "iris",
    "read",
    "stored",
    "stream",
    "tables",
    "train_test_split",
]
