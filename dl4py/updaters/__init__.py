"""DL4J's updaters as torch optimizers.

An updater states its state and its step, on lists of tensors; everything else is in
:class:`Updater`. In the formulas p is a parameter, g its gradient, u the update
(p ← p - u), η the learning rate; t counts updates from zero.
"""

from dl4py.updaters.adam import AdaBelief, Adam, AdaMax, AMSGrad, Nadam
from dl4py.updaters.base import Updater, get
from dl4py.updaters.batch import Batch
from dl4py.updaters.descent import AdaDelta, AdaGrad, Nesterovs, NoOp, RmsProp, Sgd

__all__ = [
    "AMSGrad",
    "AdaBelief",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "Batch",
    "Nadam",
    "Nesterovs",
    "NoOp",
    "RmsProp",
    "Sgd",
    "Updater",
    "get",
]
