"""Data for networks: files in, examples with labels and masks out.

:func:`read` gives a torch ``Dataset`` of a file or folder, :func:`stream` the same in
pieces, ``dl4py.lightning.DataModule`` a ``LightningDataModule`` over it; all take the
words of :class:`Reading`. In DL4J's words:

====================================  ==================================================
DL4J                                  here
====================================  ==================================================
CSVRecordReader                       ``read("a.csv", skip=1, delimiter=";")``
FileSplit, NumberedFileInputSplit     a folder; files in order of name and number
RecordReaderDataSetIterator, classes  ``read("a.csv", labels=4, classes=3)``
the same, regression from 3 to 5      ``read("a.csv", labels=[3, 4, 5])``
CSVSequenceRecordReader               ``read("folder", per_file=True)``
SequenceRecordReaderDataSetIterator   ``read("folder", per_file=True, labels="kind")``
the same with two readers             ``read("x", per_file=True, labels_from="y")``
AlignmentMode.ALIGN_END               ``align="end"``; also ``"start"``, ``"equal"``
a sequence id (convertToSequence)     ``read("a.parquet", sequence="id")``
ImageRecordReader(28, 28, 1, labels)  ``read("folder", height=28, width=28, ...)``
ParentPathLabelGenerator              the name of the folder around an image
ArrowRecordReader                     ``read("a.arrow")``, ``.feather``, ``.parquet``
DataSet.load, MultiDataSet.load       ``read("a.bin")``; ``dl4py.io.read_dataset``
ExistingMiniBatchDataSetIterator      ``read("folder of .bin")``
CollectionRecordReader, NDArray...    ``Arrays.of(x, labels)``, or any ``Dataset``
SplitTestAndTrain, splitTestAndTrain  ``data.split(0.2, seed=1)``
DataSetIterator, Async...             ``data.loader(batch_size=32, shuffle=True)``
setPreProcessor(normalizer)           ``data.loader(normalizer=...)``
LabelLastTimeStepPreProcessor         a last layer ``LastTimeStep``
TransformProcess, joins, SVMLight...  pandas, polars or scikit-learn, then ``.parquet``
WavFile, video, JDBC, regex readers   torchaudio, torchvision, any ``Dataset``
====================================  ==================================================
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
