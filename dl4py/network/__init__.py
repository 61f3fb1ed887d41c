"""Networks: plan → walk → optimizer."""

from dl4py.network.network import INPUT, Network, Node

__all__ = ["INPUT", "Network", "Node"]
