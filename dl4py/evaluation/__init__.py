"""DL4J's evaluation of classifiers and regressions as torchmetrics metrics.

Every number and every table is DL4J's own, to the character, averaging rules included.
"""

from dl4py.evaluation.classification import Evaluation
from dl4py.evaluation.regression import RegressionEvaluation

__all__ = ["Evaluation", "RegressionEvaluation"]
