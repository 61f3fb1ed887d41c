"""Training loss over time of dl4py's solvers beside their peers.

``measured/`` holds what the commands of this folder gave on two virtual cores beside
other work: seconds of the process, not of the clock. The machine stands in each file.

=============================================== ========================================
``python -m tests.benchmarks.solvers``          ``solvers.json``: 3 seeds; 2 of
                                                HessianFree and its stand-in
``… .solvers.autoencoder curves --minutes 2``   ``autoencoder.json``: seed 0 only, not
``… .solvers.autoencoder mnist --minutes 1``    the default's 15 minutes and 3 seeds
``… .solvers.addition 50 --minutes 8``          ``addition.json``
``python -m tests.benchmarks curvature --quick  ``curvature.json``
--threads 1``
=============================================== ========================================
"""
