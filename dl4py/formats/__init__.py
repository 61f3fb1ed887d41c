"""Model files of every kind: opened by :func:`load`, rewritten by :func:`convert`."""

from dl4py.formats.converting import Converted, convert
from dl4py.formats.reading import load

__all__ = ["Converted", "convert", "load"]
