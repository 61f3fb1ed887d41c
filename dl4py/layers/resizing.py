"""Larger and smaller series, images and volumes, without weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dl4py import config
from dl4py.layers.base import spread
from dl4py.layers.part import implements
from dl4py.layers.sliding import Spatial, around


class Resizing(Spatial):
    """Base of what gives places another order or other neighbours, values as they are.

    What is masked goes along, and stays masked.
    """

    noisy = False  # in DL4J some have dropout, some not

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            spread(mask, x)  # refuses what does not fit
        for axis, size in enumerate(x.shape[2:]):
            self.conf.resize(axis, int(size))  # and what leaves nothing
        return self.resized(x)

    def resized(self, x: Tensor) -> Tensor:
        """``x`` with its new sizes."""
        raise NotImplementedError

    def passed(self, mask: Tensor) -> Tensor:
        return self.resized(mask)


class Upsampling(Resizing):
    """Base of upsampling of any rank."""

    def resized(self, x: Tensor) -> Tensor:
        pairs = zip(x.shape[2:], self.conf.size, strict=False)
        return F.interpolate(x, [size * times for size, times in pairs])


@implements(config.Upsampling1D)
class Upsampling1D(Upsampling):
    """
    Shape:
        ``[n, size, time]`` → ``[n, size, time']``.

    Example:
        >>> Upsampling1D(2)(torch.tensor([[[1.0, 2]]]))
        tensor([[[1., 1., 2., 2.]]])
    """

    neighbour = ("Upsample", "nearest alone, each axis its own whole factor; masks")

    noisy = True
    back_through_noise = False

    def follow(self, order: str) -> str:
        return super().follow("c")  # DL4J draws for a reshaped copy


@implements(config.Upsampling2D)
class Upsampling2D(Upsampling):
    """
    Shape:
        ``[n, c, h, w]`` → ``[n, c, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> Upsampling2D(2)(torch.zeros(1, 3, 4, 5)).shape
        torch.Size([1, 3, 8, 10])
    """

    neighbour = ("Upsample", "nearest alone, each axis its own whole factor; masks")

    noisy = True


@implements(config.Upsampling3D)
class Upsampling3D(Upsampling):
    """
    Shape:
        ``[n, c, d, h, w]`` → ``[n, c, d', h', w']``; channels last for ``"NDHWC"``.

    Example:
        >>> Upsampling3D(2)(torch.zeros(1, 3, 2, 4, 5)).shape
        torch.Size([1, 3, 4, 8, 10])
    """

    neighbour = ("Upsample", "nearest alone, each axis its own whole factor; masks")

    noisy = True


class Bordered(Resizing):
    """Base of what changes the borders of an input of any rank."""

    def resized(self, x: Tensor) -> Tensor:
        return around(x, self.conf.margins)

    def passed(self, mask: Tensor) -> Tensor:
        # what is added counts as the border does, so that all 1 stays all 1
        return around(mask, self.conf.margins, "replicate")


@implements(config.Cropping1D)
class Cropping1D(Bordered):
    """
    Shape:
        ``[n, size, time]`` → ``[n, size, time']``.

    Example:
        >>> Cropping1D((1, 0))(torch.tensor([[[1.0, 2, 3]]]))
        tensor([[[2., 3.]]])
    """

    leaves = "same"

    neighbour = ("functional.pad", "a layer of it; masks")


@implements(config.Cropping2D)
class Cropping2D(Bordered):
    """
    Shape:
        ``[n, c, h, w]`` → ``[n, c, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> Cropping2D(1)(torch.zeros(1, 3, 4, 5)).shape
        torch.Size([1, 3, 2, 3])
    """

    neighbour = ("functional.pad", "a layer of it; masks")


@implements(config.Cropping3D)
class Cropping3D(Bordered):
    """
    Shape:
        ``[n, c, d, h, w]`` → ``[n, c, d', h', w']``.

    Example:
        >>> Cropping3D(1)(torch.zeros(1, 3, 4, 5, 6)).shape
        torch.Size([1, 3, 2, 3, 4])
    """

    neighbour = ("functional.pad", "a layer of it; masks")


@implements(config.ZeroPadding1D)
class ZeroPadding1D(Bordered):
    """
    Shape:
        ``[n, size, time]`` → ``[n, size, time']``.

    Example:
        >>> ZeroPadding1D((1, 0))(torch.tensor([[[1.0, 2]]]))
        tensor([[[0., 1., 2.]]])
    """

    neighbour = ("ZeroPad1d", "masks")


@implements(config.ZeroPadding2D)
class ZeroPadding2D(Bordered):
    """
    Shape:
        ``[n, c, h, w]`` → ``[n, c, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> ZeroPadding2D((1, 0, 2, 0))(torch.zeros(1, 3, 4, 5)).shape
        torch.Size([1, 3, 5, 7])
    """

    neighbour = ("ZeroPad2d", "top and bottom stand before left and right; masks")


@implements(config.ZeroPadding3D)
class ZeroPadding3D(Bordered):
    """
    Shape:
        ``[n, c, d, h, w]`` → ``[n, c, d', h', w']``.

    Example:
        >>> ZeroPadding3D(1)(torch.zeros(1, 3, 4, 5, 6)).shape
        torch.Size([1, 3, 6, 7, 8])
    """

    neighbour = ("ZeroPad3d", "depth stands before height and width; masks")


@implements(config.SpaceToDepth)
class SpaceToDepth(Resizing):
    """
    Shape:
        ``[n, c, h, w]`` → ``[n, c·b², h/b, w/b]``; channels last for ``"NHWC"``.

    Example:
        >>> SpaceToDepth(2)(torch.arange(4.0).view(1, 1, 2, 2)).flatten()
        tensor([0., 1., 2., 3.])
    """

    neighbour = (
        "PixelUnshuffle",
        "places in a block change more slowly than channels; masks",
    )

    noisy = True

    def resized(self, x: Tensor) -> Tensor:
        b = self.conf.block_size
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // b, b, w // b, b)
        return blocks.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)

    def passed(self, mask: Tensor) -> Tensor:
        return self.resized(mask).amax(1, keepdim=True)


@implements(config.SpaceToBatch)
class SpaceToBatch(Resizing):
    """
    Shape:
        ``[n, c, h, w]`` → ``[n·b_h·b_w, c, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> SpaceToBatch(2)(torch.arange(4.0).view(1, 1, 2, 2)).flatten(1)
        tensor([[0.],
                [1.],
                [2.],
                [3.]])
    """

    neighbour = ("—", "blocks of pixels become examples; masks")

    noisy = True

    def resized(self, x: Tensor) -> Tensor:
        return self._apart(x, "constant")

    def _apart(self, x: Tensor, mode: str) -> Tensor:
        down, across = self.conf.blocks
        x = around(x, self.conf.margins, mode)
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // down, down, w // across, across)
        return blocks.permute(3, 5, 0, 1, 2, 4).flatten(0, 2)

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        if mask is None or mask.dim() == 4:
            return super().feed_mask(mask, shape)
        return mask.repeat(self.count(1), *(1,) * (mask.dim() - 1))

    def count(self, n: int) -> int:
        return n * int(math.prod(self.conf.blocks))

    def passed(self, mask: Tensor) -> Tensor:
        return self._apart(mask, "replicate")
