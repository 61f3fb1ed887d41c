"""Model files of every kind: opened by :func:`load`."""

from dl4py.formats.reading import load

__all__ = ["load"]
