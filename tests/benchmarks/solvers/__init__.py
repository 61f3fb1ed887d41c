"""Training loss over time of dl4py's solvers beside their peers.

``measured/`` holds what ``python -m tests.benchmarks.solvers`` gave on two virtual
cores of an Intel Xeon beside other work: seconds of the process, not of the clock.
"""
