"""A loss from a function, and losses by name."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dl4py import activations
from dl4py.losses.base import Loss, WeightedLoss
from dl4py.losses.terms import times, whole
from dl4py.registry import LOSSES, Named, parameters


class Custom(WeightedLoss):
    """A function ``(output, labels) -> scores`` or a torch loss module as a loss.

    Args:
        function: returns elementwise ``[n, K]``, per-example ``[n]``, or one number,
            the mean over the examples (then masks and ``per_example`` are refused). It
            gets the labels as they are.

    Example:
        >>> loss = get(nn.CrossEntropyLoss(reduction="none"))
        >>> loss.per_example(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor([1.3863, 1.3863])
    """

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        activation: Any = "identity",
        weights: Iterable[float] | None = None,
        *,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(activation, weights, dl4j_exact=dl4j_exact)
        self.function = function

    def score(
        self,
        output: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        average: bool = True,
    ) -> Tensor:
        result = self._result(output, labels, mask)
        n = max(output.shape[0], 1)
        if result.ndim:
            total = self._reduced(result, output, mask).sum()
            return total.div(n).to(result.dtype) if average else total
        if mask is not None or self.weights is not None:
            raise ValueError(
                f"{self.extra_repr()} returns one number, so masks and weights cannot "
                "act: let it return [n, K] or [n] (reduction='none')"
            )
        return result if average else result * n

    def per_example(
        self, output: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        result = self._result(output, labels, mask)
        return self._reduced(result, output, mask).sum(1).to(result.dtype)

    def _result(self, output: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
        z = self._output(output, labels)
        if mask is not None and not mask.requires_grad:  # no gradient comes through
            gone = whole(self._mask(mask, z) == 0)
            z = torch.where(gone, z.detach(), z)
        z = self._narrowed(z, output)
        result = self.function(self.activation(z), labels)
        if result.ndim and result.shape not in (z.shape, z.shape[:1], (z.shape[0], 1)):
            raise ValueError(
                f"{self.extra_repr()} must return [n, K] = {list(z.shape)}, [n] or one "
                f"number, got {list(result.shape)}"
            )
        return result

    def _reduced(self, result: Tensor, output: Tensor, mask: Tensor | None) -> Tensor:
        if result.ndim == 0:
            raise NotImplementedError(
                f"{self.extra_repr()} returns one number, not one per example: let it "
                "return [n, K] or [n] (reduction='none')"
            )
        terms = result.unsqueeze(1) if result.ndim == 1 else result
        terms = terms.float() if terms.itemsize < 4 else terms
        m = None if mask is None else self._mask(mask, output)
        if m is not None and m.shape[1] > terms.shape[1]:
            self._bad_mask(m.shape, terms)
        terms = times(terms, None if self.weights is None else self._weights(terms), m)
        return terms if m is None or m.requires_grad else terms.masked_fill(m == 0, 0.0)

    def extra_repr(self) -> str:
        if isinstance(self.function, nn.Module):
            return type(self.function).__name__
        inner = getattr(self.function, "func", self.function)
        return str(getattr(inner, "__name__", inner))


def get(
    name: Any,
    activation: Any = "identity",
    weights: Iterable[float] | None = None,
    dl4j_exact: bool = False,
    **args: Any,
) -> Loss:
    """A loss by name, or one made of a torch loss or a function.

    Args:
        name: DL4J's name, :class:`~dl4py.registry.Named`, a loss, a torch loss module
            or its class, or a function (see :class:`Custom`).
        activation: applied to the output first (logits with ``"softmax"``).
        weights: one factor per output, for losses that have weights in DL4J.
        dl4j_exact: see :class:`Loss`.
        args: the loss's own arguments.

    Example:
        >>> get("MCXENT", activation="softmax")(torch.zeros(1, 4), torch.eye(4)[:1])
        tensor(1.3863)
        >>> get("xent", "sigmoid", clip_eps=1e-7)
        XENT(
          clip_eps=1e-07
          (activation): Sigmoid()
        )
    """
    item = name
    if isinstance(name, (str, Named)):
        named = LOSSES.named(name, **args)
        item, args = named.entry.item, named.kwargs
        weights = args.pop("weights", weights)
    if isinstance(item, Loss):
        return _with_activation(item, activation, weights, args)
    if inspect.isclass(item) and issubclass(item, Loss):
        if weights is not None:
            if "weights" not in parameters(item):
                raise ValueError(
                    f"{item.__name__} has no weights in DL4J, got weights={weights!r}: "
                    "multiply its terms in a function of your own"
                )
            args["weights"] = weights
        return item(activation=activation, dl4j_exact=dl4j_exact, **args)
    if inspect.isclass(item) and issubclass(item, nn.Module):
        item, args = item(**args), {}
    if not callable(item) or inspect.isclass(item):
        raise TypeError(
            "loss must be a name, a loss, a torch loss module, or a function of output "
            f"and labels, got {name!r}"
        )
    function = functools.partial(item, **args) if args else item
    return Custom(function, activation, weights, dl4j_exact=dl4j_exact)


def _with_activation(
    loss: Loss, activation: Any, weights: Any, args: dict[str, Any]
) -> Loss:
    if args or weights is not None:
        raise ValueError(
            f"loss {loss._name} is an object already: give its arguments to its "
            "constructor"
        )
    if activation == "identity":
        return loss
    if not isinstance(loss.activation, activations.Identity):
        raise ValueError(
            f"loss {loss._name} already applies {loss.activation}, got another "
            f"activation {activation!r}: give it once"
        )
    loss = copy.deepcopy(loss)
    loss.activation = activations.get(activation, dl4j_exact=loss.dl4j_exact)
    return loss
