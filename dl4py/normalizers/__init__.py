"""DL4J's normalizers as modules: fit, transform, revert, and their files."""

from dl4py.normalizers.base import (
    VGG16,
    ImageScaler,
    MinMaxScaler,
    MultiHybrid,
    MultiMinMaxScaler,
    MultiStandardize,
    Normalizer,
    Standardize,
)
from dl4py.normalizers.files import read_normalizer, write_normalizer
from dl4py.normalizers.scales import Range, Scale, Standard

__all__ = [
    "VGG16",
    "ImageScaler",
    "MinMaxScaler",
    "MultiHybrid",
    "MultiMinMaxScaler",
    "MultiStandardize",
    "Normalizer",
    "Range",
    "Scale",
    "Standard",
    "Standardize",
    "read_normalizer",
    "write_normalizer",
]
