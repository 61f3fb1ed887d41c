"""Training loss over time of dl4py's solvers beside their peers."""
