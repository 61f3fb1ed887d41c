"""DL4J's losses as criteria on ``[n, K]`` tensors.

``loss(output, labels, mask=None)`` applies the loss's activation to ``output``, sums
over the outputs and averages over the n examples, masked ones included. A class states
its per-element score; masks, weights, reductions, checks and dtypes are in
:class:`Loss`.

Every registered class is here under its own name: ``dl4py.losses.MCXENT``.
"""

from typing import TYPE_CHECKING

from dl4py.losses import classification, cross_entropy, likelihood, regression
from dl4py.losses.base import Loss, WeightedLoss
from dl4py.losses.custom import Custom, get
from dl4py.registry import LOSSES

if TYPE_CHECKING:
    from dl4py.losses.classification import *
    from dl4py.losses.cross_entropy import *
    from dl4py.losses.likelihood import *
    from dl4py.losses.regression import *

_found = {LOSSES[key].__name__: LOSSES[key] for key in LOSSES}
globals().update(_found)
__all__ = [
    "Custom",
    "Loss",
    "WeightedLoss",
    "classification",
    "cross_entropy",
    "get",
    "likelihood",
    "regression",
    *_found,
]
