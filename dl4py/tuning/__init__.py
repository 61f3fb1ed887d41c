"""Networks made of trained ones."""

from dl4py.tuning.featurizing import TransferHelper
from dl4py.tuning.transferring import Transfer, transfer

__all__ = ["Transfer", "TransferHelper", "transfer"]
