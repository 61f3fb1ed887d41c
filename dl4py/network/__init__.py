"""Networks: plan → walk → optimizer."""

from dl4py.network.batch import Batch
from dl4py.network.network import Network
from dl4py.network.optimizer import NetworkOptimizer
from dl4py.network.walk import Node, walk

__all__ = ["Batch", "Network", "NetworkOptimizer", "Node", "walk"]
