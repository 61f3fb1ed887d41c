"""Models behind HTTP: :func:`serve`, and its parts.

A request is checked at the door, waits in a bounded line and goes through the network
together with others, in this process or in workers of its own. See ``SERVING.md``.
"""

from dl4py.serving.model import Model, open_model
from dl4py.serving.run import serve

__all__ = ["Model", "open_model", "serve"]
