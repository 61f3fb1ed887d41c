"""Solvers as torch optimizers: a direction and a search, one of each a step."""

from dl4py.solvers.base import Solver
from dl4py.solvers.hessian_free import HessianFree
from dl4py.solvers.line_solver import LineSolver
from dl4py.solvers.line_solvers import LBFGS, ConjugateGradient, LineGradientDescent
from dl4py.solvers.observation import Watch
from dl4py.solvers.problem import Problem
from dl4py.solvers.structural import damp

__all__ = [
    "LBFGS",
    "ConjugateGradient",
    "HessianFree",
    "LineGradientDescent",
    "LineSolver",
    "Problem",
    "Solver",
    "Watch",
    "damp",
]
