"""Whether a batch fits a network, before anything moves, and what its masks hide.

What a mask hides becomes 0 here, so that no layer sees it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dl4py.config.inputs import Shape
from dl4py.config.plan import Plan, Step
from dl4py.layers import Layer, Vertex
from dl4py.layers.base import CHANNELS_LAST, spread
from dl4py.layers.given import fits, misfit
from dl4py.network.batch import Batch


class Door:
    """What a network with these steps takes.

    Args:
        plan: its steps, inputs and outputs.
        modules: the modules of the steps.
        dl4j_exact: whether layers are as careless about masks as DL4J's.
    """

    def __init__(
        self, plan: Plan, modules: Sequence[Layer | Vertex], dl4j_exact: bool
    ) -> None:
        self.plan, self.dl4j_exact = plan, dl4j_exact
        pairs = list(zip(plan.steps, modules, strict=True))
        self.steps = [step for step, module in pairs if isinstance(module, Layer)]
        # no vertex and no layer changes what is counted
        self.chain = all(isinstance(m, Layer) and m.count(1) == 1 for _, m in pairs)
        self.readers = {
            name: [step for step in self.steps if name in step.inputs]
            for name in plan.inputs
        }
        self.indices = {
            name
            for name in plan.inputs
            for step, module in pairs
            if name in step.inputs and getattr(module, "takes_indices", False)
        }

    def checked(self, batch: Batch, first: Tensor | None, scored: bool) -> Batch:
        """``batch``, with 0 in place of what its masks hide.

        In exact mode only what is not finite becomes 0, since DL4J's layers do not all
        heed masks.

        Args:
            first: a parameter of the network, if it has any.
            scored: whether there is to be a score.

        Raises:
            ValueError: where dtype, device or shape do not fit; names argument, layer,
                what was expected and what came.
        """
        for name, x in zip(self.plan.inputs, batch.inputs, strict=True):
            self._check_input(name, x, first)
        for argument in ("labels", "features_masks", "labels_masks"):
            for i, t in enumerate(getattr(batch, argument)):
                known = argument == "features_masks"
                like = batch.inputs[i] if known else batch.inputs[0]
                word = argument.removesuffix("s") if "mask" in argument else argument
                if t is not None:
                    self._check_beside(word, t, like, known or self.chain)
        masks = list(batch.features_masks)
        for i, (name, x) in enumerate(zip(self.plan.inputs, batch.inputs, strict=True)):
            if scored and 0 in x.shape:
                raise ValueError(
                    f"x: the batch is empty, shape {list(x.shape)}; a score and a step "
                    "need at least one example"
                )
            mask = masks[i]
            if mask is not None:
                self._check_mask(name, mask, x)
            masks[i] = self._without_labels(name, x, mask, batch.labels_masks)
        inputs = tuple(
            x if mask is None else self._hidden(name, x, mask)
            for name, x, mask in zip(self.plan.inputs, batch.inputs, masks, strict=True)
        )
        return dataclasses.replace(batch, inputs=inputs, features_masks=tuple(masks))

    def _check_input(self, name: str, x: Tensor, first: Tensor | None) -> None:
        if first is not None and x.device != first.device:
            raise ValueError(
                f"x: the network is on {first.device}, got a tensor on {x.device}; "
                "move one of them with .to(...)"
            )
        if x.dim() == 0:
            raise ValueError("x: expected a batch [n, ...], got a single number")
        for step in self.readers[name]:
            check_shape(step, x, before=True)
        if first is None or x.dtype == first.dtype:
            return
        if x.is_floating_point() and torch.is_autocast_enabled(x.device.type):
            return
        whole = not (x.is_floating_point() or x.is_complex())
        if not (whole and name in self.indices):
            raise ValueError(
                f"x: the network computes in {first.dtype}, got {x.dtype}; "
                f"convert with x.to({first.dtype}) or build with data_type(...)"
            )

    def _check_beside(self, word: str, t: Tensor, x: Tensor, counts: bool) -> None:
        if t.device != x.device:
            raise ValueError(
                f"{word}: the input is on {x.device}, got a tensor on {t.device}; use "
                f"{word}.to({str(x.device)!r})"
            )
        if t.dim() == 0 or (counts and t.shape[0] != x.shape[0]):
            raise ValueError(
                f"{word}: expected one entry per example, {x.shape[0]} as in x, got "
                f"shape {list(t.shape)}"
            )

    def layout(self, name: str, x: Tensor) -> str:
        """Where channels stand in ``x``: NCW, NWC, NCHW, NHWC, NCDHW or NDHWC."""
        for step in (*self.readers[name], *self.steps):
            for part in (step.preprocessor, step.conf):
                for shape in getattr(part, "shapes", ()):
                    if len(shape) != x.dim():
                        continue
                    if "time" in shape:
                        return "NWC" if shape[1] == "time" else "NCW"
                    if len(shape) == 4:
                        last = getattr(part, "format", None) == "NHWC"
                        return "NHWC" if last or shape[1] == "height" else "NCHW"
                    if len(shape) == 5:
                        last = not getattr(part, "ncdhw", True)
                        return "NDHWC" if last or shape[1] == "depth" else "NCDHW"
        return {4: "NCHW", 5: "NCDHW"}.get(x.dim(), "NCW")

    def takes(self, name: str, shape: Shape) -> bool:
        """Whether arrays of ``shape`` may come in at an input."""
        return any(shape in step.shapes[0] for step in self.readers[name])

    def _image(self, name: str) -> Any:
        """What makes images of rows at an input, if something does."""
        before = (step.preprocessor for step in self.readers[name])
        return next((p for p in before if getattr(p, "height", 0)), None)

    def _check_mask(self, name: str, mask: Tensor, x: Tensor) -> None:
        """Refuse a features mask that says nothing about ``x``."""
        n, layout = x.shape[0], self.layout(name, x)
        rows: list[tuple[int, ...]] = [(n,), (n, 1)]
        allowed: list[tuple[int, ...]] = rows
        if x.dim() == 3:
            allowed = [(n, x.shape[1] if layout == "NWC" else x.shape[2])]
        elif x.dim() in (4, 5):
            sizes = x.shape[1:-1] if layout in CHANNELS_LAST else x.shape[2:]
            parts = itertools.product(*((size, 1) for size in sizes))
            allowed = rows + [(n, 1, *part) for part in parts]
        elif x.dim() == 2 and self.takes(name, ("n", "time")):
            allowed = [(n, x.shape[1])]
        elif image := self._image(name):
            allowed = [*rows, (n, 1, *image.image.spatial)]
        if tuple(mask.shape) not in allowed:
            told = " or ".join(str(list(shape)) for shape in dict.fromkeys(allowed))
            raise ValueError(
                f"features_mask: expected {told} beside x {list(x.shape)}, got "
                f"{list(mask.shape)}"
            )

    def _without_labels(
        self,
        name: str,
        x: Tensor,
        mask: Tensor | None,
        labels_masks: Sequence[Tensor | None],
    ) -> Tensor | None:
        """The features mask without examples that have no label and are not finite.

        Their score is masked, but NaN times a gradient of 0 would be NaN all the same.
        """
        known = [m for m in labels_masks if m is not None]
        fit = all(m.shape[0] == x.shape[0] for m in known)
        if not known or len(known) < len(labels_masks) or not fit:
            return mask
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return mask  # it would depend on values
        broken = ~x.isfinite()
        if mask is not None:
            broken = broken & (self._beside(name, mask, x) != 0)
        if not bool(broken.any()):
            return mask
        hidden = torch.stack([(m == 0).reshape(len(m), -1).all(1) for m in known])
        alone = hidden.all(0)
        if x.dim() == 3:
            nwc = self.layout(name, x) == "NWC"
            self._check_steps(broken.any(2 if nwc else 1), alone, known)
        gone = broken.flatten(1).any(1) & alone
        if mask is None:
            shape = (x.shape[0], 1)
            if x.dim() == 3:
                shape = (x.shape[0], x.shape[1] if nwc else x.shape[2])
            mask = torch.ones(shape, device=x.device)
        keep = ~gone.reshape(-1, *(1,) * (mask.dim() - 1))
        return mask * keep.to(mask.dtype)

    def _check_steps(
        self, broken: Tensor, alone: Tensor, labels_masks: Sequence[Tensor]
    ) -> None:
        """Refuse time steps without a label and without features."""
        masked = [m == 0 for m in labels_masks]
        masked = [m.all(1) if m.dim() == 3 else m for m in masked]
        if any(m.shape != broken.shape for m in masked):
            return
        if bool((broken & torch.stack(masked).all(0))[~alone].any()):
            raise ValueError(
                "x: some values at time steps without a label (labels_mask 0) are NaN "
                "or infinite, and other steps of the same example may depend on them; "
                "mask them with features_mask too"
            )

    def _beside(self, name: str, mask: Tensor, x: Tensor) -> Tensor:
        """A features mask so that it goes together with ``x``."""
        if mask.dim() > 3 and x.dim() == 2:  # pixels of images that come in as rows
            given = self._image(name).image
            full = mask.expand(-1, given.channels, *mask.shape[2:])
            last = given.format in CHANNELS_LAST
            return (full.movedim(1, -1) if last else full).flatten(1)
        return spread(mask, x, self.layout(name, x))

    def _hidden(self, name: str, x: Tensor, mask: Tensor) -> Tensor:
        out = self._beside(name, mask, x) == 0
        if self.dl4j_exact:
            out = out & ~x.isfinite()
        return x.masked_fill(out, 0)


def check_shape(step: Step, x: Tensor, before: bool = False) -> None:
    """Refuse what a layer cannot take.

    Args:
        before: whether ``x`` still goes through the step's preprocessor.
    """
    shapes = step.shapes[0 if before else 1]
    if not fits(x.shape, shapes):
        raise misfit(f"layer {step.name!r} ({type(step.conf).__name__})", x, shapes)


def at(step: Step, error: Exception) -> Exception:
    """``error`` with the layer's name, where its class is an ordinary one."""
    if type(error) not in (ValueError, TypeError):
        return error
    return type(error)(f"layer {step.name!r} ({type(step.conf).__name__}): {error}")
