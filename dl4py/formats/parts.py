"""A network taken apart into what files hold, and put together again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dl4py.config import NeuralNetConfiguration
from dl4py.config.codec import DL4JFormatError, brief, replace
from dl4py.network import Network, classes
from dl4py.network.build import DTYPES, build
from dl4py.normalizers import Normalizer, read_normalizer, write_normalizer
from dl4py.normalizers.files import is_custom


@dataclass(frozen=True)
class Parts:
    """All that a network is, in plain types and tensors.

    Args:
        conf: the configuration as DL4J's JSON.
        dl4j_exact: whether DL4J's faults are reproduced.
        parameters: the network's state dict.
        optimizer: its optimizer's, with the counters; ``None``: it starts anew.
        normalizer: the bytes of ``normalizer.bin``, if there is one.
        classes: their names as JSON, if they are known.
    """

    conf: Mapping[str, Any]
    dl4j_exact: bool
    parameters: Mapping[str, Tensor]
    optimizer: Mapping[str, Any] | None
    normalizer: bytes | None
    classes: str | None = None

    @classmethod
    def of(cls, net: Network) -> Parts:
        """What ``net`` consists of; its optimizer's state is made if need be.

        Raises:
            TypeError: where the configuration holds what has no name.
        """
        for _ in net.optimizer.segments():  # makes every state that is still to come
            pass
        return cls(
            net.conf.to_dict(),
            net.dl4j_exact,
            net.state_dict(),
            net.optimizer.state_dict(),
            normalizer_bytes(net),
            classes.written(net.classes) if net.classes else None,
        )

    def network(self, where: str) -> Network:
        """The network, in eval mode; nothing is drawn.

        Args:
            where: the file's name, for errors.

        Raises:
            DL4JFormatError: where the parts do not belong together.
        """
        try:
            # by way of the text, which is checked for its size and depth first
            conf = NeuralNetConfiguration.from_json(json.dumps(self.conf))
            net = build(conf, self.dl4j_exact, draw=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise DL4JFormatError(
                f"{where}: its configuration: {brief(error)}"
            ) from error
        dtype = self._check(net, where)
        net.to(dtype).to_empty(device="cpu")
        net.load_state_dict(dict(self.parameters))
        if self.optimizer is not None:
            try:
                net.optimizer.load_state_dict(self.optimizer)
            except Exception as error:  # torch looks at nothing before it takes it
                raise DL4JFormatError(
                    f"{where}: its optimizer's state: {brief(error)}"
                ) from error
        name = next(name for name, of in DTYPES.items() if of == dtype)
        clock = net.clock
        net.conf = replace(
            net.conf,
            data_type=name,
            iteration_count=clock.iteration,
            epoch_count=clock.epoch,
        )
        if self.normalizer is not None:
            net.normalizer = normalizer_of(self.normalizer, where)
        if self.classes is not None:
            net.classes = classes.names(self.classes, f"{where}: classes")
        return net.eval()

    def _check(self, net: Network, where: str) -> torch.dtype:
        """The type of the parameters, which are those that ``net`` has."""
        expected, given = net.state_dict(), self.parameters
        for name in [*expected, *given]:
            if name not in given:
                raise DL4JFormatError(f"{where}: no parameter {name!r}")
            if name not in expected:
                raise DL4JFormatError(
                    f"{where}: {name!r} is no parameter of its configuration; make "
                    "what is pruned or parametrized a plain parameter before saving"
                )
            ours, theirs = expected[name].shape, given[name].shape
            if ours != theirs:
                raise DL4JFormatError(
                    f"{where}: {name!r} has shape {list(theirs)}, its configuration "
                    f"implies {list(ours)}"
                )
        dtypes = {t.dtype for t in given.values() if t.is_floating_point()}
        if len(dtypes) > 1 or not dtypes <= set(DTYPES.values()):
            raise DL4JFormatError(
                f"{where}: parameters of types {', '.join(sorted(map(str, dtypes)))}, "
                "expected one of float64, float32, float16 and bfloat16"
            )
        return next(iter(dtypes), DTYPES[net.conf.data_type])


def normalizer_bytes(net: Network) -> bytes | None:
    """The network's normalizer as DL4J writes it."""
    found = net.normalizer
    return write_normalizer(found) if isinstance(found, Normalizer) else found


def normalizer_of(data: bytes, where: str) -> Normalizer | bytes:
    """What :func:`normalizer_bytes` wrote; of somebody's own Java class the bytes."""
    return data if is_custom(data) else read_normalizer(data, f"{where}: normalizer")
