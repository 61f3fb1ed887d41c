"""Solvers as torch optimizers: a direction and a search, one of each a step."""

from dl4py.solvers.base import Problem, Solver
from dl4py.solvers.watch import Watch

__all__ = ["Problem", "Solver", "Watch"]
