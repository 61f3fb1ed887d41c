"""Folders of images, decoded when a batch is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dl4py.data.examples import Examples
from dl4py.data.options import Reading, natural
from dl4py.extras import need

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


class Images(Examples):
    """Images ``[n, channels, height, width]``, values 0 … 255, labels one-hot.

    The label is the name of the folder around a file, classes in alphabetical order, as
    DL4J's ``ParentPathLabelGenerator``; images right in ``source`` have none. Channels
    are blue, green, red, as DL4J's ``NativeImageLoader`` gives them. Sizes change by
    bilinear interpolation without smoothing, as there, to whole values.

    Memory: one batch of images; the files' names are all that is held.

    Args:
        files: the images.
        options: what concerns images is read of it.
        classes: names of the classes; none where there are no labels.
        labels: number of each image's class.
    """

    def __init__(
        self,
        files: Sequence[Path],
        options: Reading,
        classes: tuple[str, ...] | None,
        targets: Tensor | None,
        size: tuple[int, int],
    ) -> None:
        self.files = list(files)
        self.options = options
        self.classes = classes
        self.targets = targets
        self.size = size

    @classmethod
    def of(cls, source: Path, options: Reading) -> Images:
        """All images below a folder, or one image."""
        found = source.rglob("*") if source.is_dir() else [source]
        files = sorted((f for f in found if is_image(f)), key=natural)
        if not files:
            raise ValueError(f"{source}: no images; they end in {_endings()}")
        bare = [f for f in files if f.parent == source or f == source]
        if bare and len(bare) < len(files):
            raise ValueError(
                f"{source}: {bare[0].name} lies beside folders of classes; put it into "
                "one of them"
            )
        need("PIL.Image", f"{source}: images are read")
        classes, targets = None, None
        if not bare:
            names = [f.parent.name for f in files]
            classes = options.class_names or tuple(sorted(set(names)))
            for file, name in zip(files, names, strict=True):
                if name not in classes:
                    raise ValueError(
                        f"{file}: expected a folder of one of the classes "
                        f"{', '.join(classes)}, got {name!r}"
                    )
            targets = torch.tensor([classes.index(name) for name in names])
        size = (options.height, options.width)
        if None in size:
            first = _opened(files[0]).size
            size = (size[0] or first[1], size[1] or first[0])
        return cls(files, options, classes, targets, size)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.files)

    def groups(self) -> Tensor | None:
        return self.targets

    def only(self, indices: Tensor) -> Images:
        files = [self.files[i] for i in indices.tolist()]
        targets = None if self.targets is None else self.targets[indices]
        return Images(files, self.options, self.classes, targets, self.size)

    def batch(self, indices: Tensor) -> tuple[Any, ...]:
        dtype = getattr(torch, self.options.dtype)
        x = torch.stack([self._image(self.files[i]) for i in indices.tolist()])
        if self.targets is None or self.classes is None:
            return x.to(dtype), None
        y = torch.nn.functional.one_hot(self.targets[indices], len(self.classes))
        return x.to(dtype), y.to(dtype)

    def _image(self, file: Path) -> Tensor:
        image = _opened(file)
        if self.options.channels == 1:
            pixels = np.asarray(image.convert("L"))[None]
        else:  # DL4J's order: blue, green, red
            pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)[::-1]
        x = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))
        if x.shape[1:] != self.size:
            resize = torch.nn.functional.interpolate
            x = resize(x[None], self.size, mode="bilinear", align_corners=False)[0]
            x = x.round()
        return x


def is_image(file: Path) -> bool:
    """Whether a file is named as images are."""
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _endings() -> str:
    return ", ".join(sorted(SUFFIXES))


def _opened(file: Path) -> Any:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image)  # upright, as OpenCV reads it
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{file}: not an image that can be read: {error}") from error
