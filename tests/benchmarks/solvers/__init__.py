"""Training loss over time of dl4py's solvers beside their peers.

``measured/`` holds what the commands of this folder gave on two virtual cores beside
other work: seconds of the process, not of the clock. The machine stands in each file.

=============================================== ========================================
``python -m tests.benchmarks.solvers``          ``solvers.json``: 5 seeds, 15 on the
                                                PINN; some of the solvers on the deep
                                                autoencoder
``… .solvers.autoencoder``                      ``autoencoder.json``: 15 minutes of
                                                HessianFree and the best of Adam, 3
                                                seeds; less of the other rates
``… .solvers.addition 50 100 150``              ``addition.json``
=============================================== ========================================
"""
