"""Masks that do not fit, in the words of whoever gave them."""

from __future__ import annotations


class MaskMisfit(ValueError):
    """A mask that does not fit what it is of; its message calls it ``mask``."""

    def named(self, name: str) -> ValueError:
        """The error of an argument called ``name``.

        >>> MaskMisfit("MSE: mask must be [n]").named("labels_mask")
        ValueError('MSE: labels_mask must be [n]')
        """
        return ValueError(str(self).replace("mask", name, 1))
