"""Parameters that are split over ranks (FSDP2, tensor parallelism): DTensors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor


def local(lists: Sequence[Sequence[Tensor]]) -> Sequence[Sequence[Tensor]]:
    """Parameters, gradients and states as this rank holds them.

    A step treats every number alike, so that the shards of all ranks make the whole
    step. Shards share their memory with their DTensor.

    Args:
        lists: [parameters, gradients, one list for every state].
    """
    module: Any = sys.modules.get("torch.distributed.tensor")
    if module is None or not any(isinstance(p, module.DTensor) for p in lists[0]):
        return lists
    params, grads, *states = lists

    def gradient(p: Any, g: Any) -> Tensor:
        if g.placements != p.placements:
            g = g.redistribute(p.device_mesh, p.placements)
        shard: Tensor = g.to_local()
        return shard

    def state(p: Any, s: Any) -> Tensor:
        if not isinstance(s, module.DTensor) or s.placements != p.placements:
            raise ValueError(
                f"the state of a DTensor parameter of shape {tuple(p.shape)} is not "
                "split as it is; load it by torch.distributed.checkpoint.state_dict"
            )
        shard: Tensor = s.to_local()
        return shard

    split = [isinstance(p, module.DTensor) for p in params]

    def each(work: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
        found = zip(split, params, tensors, strict=True)
        return [work(p, t) if yes else t for yes, p, t in found]

    own = each(lambda p, t: t.to_local(), params)
    return [own, each(gradient, grads), *(each(state, s) for s in states)]
