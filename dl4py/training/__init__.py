"""Networks and solvers under Lightning, the same for both of its packages."""
