"""What a curvature needs of an ordinary closure: the loss and the outputs it judges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dl4py.ops.head import head
from dl4py.solvers.likelihoods import Judged
from dl4py.solvers.links import Links
from dl4py.solvers.observation import Watch, weighted
from dl4py.solvers.structural import Damped, damp

HEADS: dict[Any, tuple[str, ...]] = {  # loss → its arguments that are outputs
    F.cross_entropy: ("input", "target"),
    F.nll_loss: ("input",),
    F.mse_loss: ("input", "target"),
    F.binary_cross_entropy: ("input", "target"),
    F.binary_cross_entropy_with_logits: ("input", "target"),
    F.l1_loss: ("input", "target"),
    F.smooth_l1_loss: ("input", "target"),
    F.huber_loss: ("input", "target"),
    F.kl_div: ("input", "target"),
    F.poisson_nll_loss: ("input", "target"),
    F.gaussian_nll_loss: ("input", "target"),
    F.soft_margin_loss: ("input", "target"),
}


class Capture(Watch):
    """A :class:`Watch` that keeps the graph of ``backward()`` and the loss's inputs.

    Losses of :mod:`torch.nn.functional`, and modules made of them, are known by
    ``HEADS``; dl4py's own hand over their pre-activations. Inner calls of a loss are
    not seen, so that nothing is noted twice.

    Attributes:
        roots: what ``backward()`` was called on, with its weight.
        outputs: the inputs of the losses, as far as they depend on parameters.
        judged: the calls of losses that have such inputs.
        damped: what :func:`~dl4py.solvers.structural.damp` was called with.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.roots: list[tuple[Tensor, Tensor | None]] = []
        self.outputs: list[Tensor] = []
        self.judged: list[Judged] = []
        self.damped: list[Damped] = []
        self._links = Links()

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        judges = False
        if not torch.compiler.is_compiling():
            if func is head:
                judges = self._note(args[1])
            for place, name in enumerate(HEADS.get(func, ())):
                given = args[place] if len(args) > place else kwargs.get(name)
                judges = self._note(given) or judges
        result = super().__torch_function__(func, types, args, kwargs)
        self._links.note(func, args, kwargs, result)
        if judges:
            self.judged.append(Judged(func, args, kwargs, result))
        if func is damp and result.requires_grad:
            self.damped.append(Damped(*args, **kwargs))
        return result

    def behind(self, output: Tensor) -> Tensor:
        """The logits where ``output`` is their ``log_softmax``, else itself.

        Only where no other output is computed from them; see
        :class:`~dl4py.solvers.links.Links`.

        >>> z = torch.zeros(2, 3, requires_grad=True)
        >>> with Capture() as capture:
        ...     F.nll_loss(z.log_softmax(1), torch.tensor([0, 2])).backward()
        >>> capture.outputs[0] is z, capture.behind(capture.outputs[0]) is z
        (False, True)
        """
        logits = self._behind(output)
        others = [z for z in self.outputs if self._behind(z) is not logits]
        if logits is output or not others:
            return logits
        ones = [torch.ones_like(z) for z in others]
        (reached,) = torch.autograd.grad(
            others, logits, ones, retain_graph=True, allow_unused=True
        )
        return logits if reached is None else output

    def _behind(self, output: Tensor) -> Tensor:
        losses = [
            judged.func if judged.input is output else None
            for judged in self.judged
            if any(a is output for a in (*judged.args, *judged.kwargs.values()))
        ]
        return self._links.behind(output, losses)

    def _note(self, t: Any) -> bool:
        """Whether ``t`` is an output."""
        if not (isinstance(t, Tensor) and t.requires_grad):
            return False
        if all(t is not known for known in self.outputs):
            self.outputs.append(t)
        return True

    def backward(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        roots, weights = args[0], args[1] if len(args) > 1 else None
        weights = kwargs.get("gradient", kwargs.get("grad_tensors", weights))
        self.roots += weighted(roots, weights)
        if len(args) > 2:  # retain_graph by its place
            args = (*args[:2], True, *args[3:])
        else:
            kwargs = {**kwargs, "retain_graph": True}
        super().backward(func, args, kwargs)

    def loss(self) -> Tensor:
        """Σ of the roots, with their graph."""
        parts = [r if w is None else (r * w).sum() for r, w in self.roots]
        return torch.stack([part.reshape(()) for part in parts]).sum()

    def release(self) -> None:
        """Let go of the graph."""
        self.roots, self.outputs, self.judged, self.damped = [], [], [], []
        self._links = Links()
