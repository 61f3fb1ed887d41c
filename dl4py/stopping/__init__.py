"""When training ends, and which network was the best: DL4J's early stopping."""

from dl4py.stopping.conditions import (
    BestScore,
    Condition,
    InvalidScore,
    MaxEpochs,
    MaxScore,
    MaxTime,
    ScoreImprovement,
)
from dl4py.stopping.deciding import EarlyStopping, Result
from dl4py.stopping.savers import FileSaver, MemorySaver
from dl4py.stopping.scores import (
    ClassificationScore,
    DataSetLoss,
    ReconstructionScore,
    RegressionScore,
    ROCScore,
    Score,
)

__all__ = [
    "BestScore",
    "ClassificationScore",
    "Condition",
    "DataSetLoss",
    "EarlyStopping",
    "FileSaver",
    "InvalidScore",
    "MaxEpochs",
    "MaxScore",
    "MaxTime",
    "MemorySaver",
    "ROCScore",
    "ReconstructionScore",
    "RegressionScore",
    "Result",
    "Score",
    "ScoreImprovement",
]
