"""DL4J's evaluation of classifiers and regressions as torchmetrics metrics.

Every number and every table is DL4J's own, to the character, averaging rules included.
"""

from dl4py.evaluation.binary import EvaluationBinary
from dl4py.evaluation.calibration import EvaluationCalibration
from dl4py.evaluation.classification import Evaluation
from dl4py.evaluation.regression import RegressionEvaluation
from dl4py.evaluation.roc import ROC, ROCBinary, ROCMultiClass

__all__ = [
    "ROC",
    "Evaluation",
    "EvaluationBinary",
    "EvaluationCalibration",
    "ROCBinary",
    "ROCMultiClass",
    "RegressionEvaluation",
]
