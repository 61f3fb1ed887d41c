"""Networks on masked images, volumes and series, for ``test_masks``.

Name → (layers, input type, features mask, shape of the input), as there.
"""

import torch

from dl4py import config as c
from dl4py.config import InputType


def pixels():
    """A mask of 5 images, the right and bottom hidden; of the last all."""
    mask = torch.ones(5, 1, 6, 6)
    mask[1:, :, 4:] = 0
    mask[2:, :, :, 2:] = 0
    mask[4] = 0
    return mask


def cells():
    """The same of volumes."""
    return pixels()[:, :, :4, None, :].expand(-1, -1, -1, 3, -1).clone()


def steps():
    """A mask of 5 series of 6 steps."""
    return pixels()[:, 0, :, 0].clone()


NETS = {
    "images": (
        [
            c.ZeroPadding2D(padding=(1, 0, 0, 1)),
            c.Deconvolution2D(n_out=3, kernel_size=2, stride=2, dropout=0.8),
            c.DepthwiseConvolution2D(kernel_size=2, depth_multiplier=2),
            c.SeparableConvolution2D(n_out=4, kernel_size=2, depth_multiplier=2),
            c.LocalResponseNormalization(n=3),
            c.Cropping2D(cropping=(1, 1, 0, 0)),
            c.SpaceToDepth(block_size=2),
            c.Upsampling2D(size=2),
            c.LocallyConnected2D(n_out=2, kernel_size=2),
            c.GlobalPooling(pooling_type="AVG"),
            c.Output(n_out=2),
        ],
        InputType.convolutional(6, 6, 2),
        pixels,
        (5, 2, 6, 6),
    ),
    "volumes": (
        [
            c.ZeroPadding3D(padding=1),
            c.Convolution3D(n_out=3, kernel_size=2, dropout=0.8),
            c.Subsampling3D(pooling_type="AVG", kernel_size=2, stride=(1, 2, 1)),
            c.Deconvolution3D(n_out=2, kernel_size=2, stride=(1, 2, 1)),
            c.Upsampling3D(size=(1, 2, 1)),
            c.Cropping3D(cropping=(0, 1, 1, 1, 1, 0)),
            c.GlobalPooling(pooling_type="AVG"),
            c.Output(n_out=2),
        ],
        InputType.convolutional3d(4, 3, 6, 2),
        cells,
        (5, 2, 4, 3, 6),
    ),
    "places_in_time": (
        [
            c.ZeroPadding1D(padding=(2, 1)),
            c.Subsampling1D(pooling_type="AVG", kernel_size=2),
            c.Upsampling1D(size=2),
            c.Cropping1D(cropping=(1, 0)),
            c.LocallyConnected1D(n_out=3, kernel_size=3),
            c.GlobalPooling(pooling_type="AVG"),
            c.Output(n_out=2),
        ],
        InputType.recurrent(3, 6),
        steps,
        (5, 3, 6),
    ),
    "loss_of_pixels": (
        [
            c.SpaceToBatch(blocks=(3, 2)),
            c.Convolution2D(n_out=2, kernel_size=1),
            c.CnnLoss(activation="softmax"),
        ],
        InputType.convolutional(6, 6, 2),
        pixels,
        (5, 2, 6, 6),
    ),
    "loss_of_cells": (
        [
            c.Convolution3D(n_out=2, kernel_size=2, convolution_mode="Same"),
            c.Cnn3DLoss(activation="softmax"),
        ],
        InputType.convolutional3d(4, 3, 6, 2),
        cells,
        (5, 2, 4, 3, 6),
    ),
}
PLACES = {"loss_of_pixels": (30, 2, 3), "loss_of_cells": (5, 4, 3, 6)}  # of labels
