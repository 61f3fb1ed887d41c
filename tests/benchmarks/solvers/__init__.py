"""Training loss over time of dl4py's solvers beside their peers.

``measured/`` holds what the commands of this folder gave on two virtual cores beside
other work: seconds of the process, not of the clock. The machine stands in each file.

=============================================== ========================================
``python -m tests.benchmarks.solvers``          ``solvers.json``: 3 seeds
``… .solvers.autoencoder curves``               ``autoencoder.json``: 15 minutes of
                                                HessianFree and of Adam 0.003, 3 seeds,
                                                and of Adam 0.001, 2; 2 of the other
                                                rates, seed 0
``… .solvers.autoencoder mnist --minutes 5``    ``autoencoder.json``: 5 minutes of
                                                HessianFree and of Adam 0.003, 3 seeds,
                                                and of Adam 0.001, seed 0; 2 of the
                                                other rates
``… .solvers.addition 50 100 150``              ``addition.json``
=============================================== ========================================

The autoencoder's are from before the steps of CG were fused, which makes HessianFree
faster than they show.
"""
