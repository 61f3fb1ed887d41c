"""Training loss over time of dl4py's solvers beside their peers.

``measured/`` holds what the commands of this folder gave on two virtual cores beside
other work: seconds of the process, not of the clock. The machine stands in each file.

=============================================== ========================================
``python -m tests.benchmarks.solvers``          ``solvers.json``: 3 seeds
``… .solvers.autoencoder curves``               ``autoencoder.json``: seed 0 only; 15
                                                minutes of HessianFree and of Adam
                                                0.003, 2 of the other rates
``… .solvers.autoencoder mnist --minutes 1``    ``autoencoder.json``: seed 0, one rate
``… .solvers.addition 50 100 150``              ``addition.json``
=============================================== ========================================
"""
