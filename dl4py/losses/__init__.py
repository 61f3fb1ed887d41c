"""DL4J's losses as criteria on ``[n, K]`` tensors.

``loss(output, labels, mask=None)`` applies the loss's activation to ``output``, sums
over the outputs and averages over the n examples, masked ones included. A class states
its per-element score; masks, weights, reductions, checks and dtypes are in
:class:`Loss`.
"""

from dl4py.losses import classification as classification
from dl4py.losses import cross_entropy as cross_entropy
from dl4py.losses import regression as regression
from dl4py.losses.base import Loss, WeightedLoss
from dl4py.losses.custom import Custom, get

__all__ = ["Custom", "Loss", "WeightedLoss", "get"]
