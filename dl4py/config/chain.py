"""A chain of layers and its JSON: DL4J's MultiLayerConfiguration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dl4py.config.codec import (
    DL4JFormatError,
    at,
    encode,
    mapping,
    printable,
    shown,
)
from dl4py.config.kinds import field
from dl4py.config.plan import INPUT, Plan, Step, unique
from dl4py.config.preprocessors import Preprocessor
from dl4py.config.settings import (
    NetworkConfiguration,
    layer_of,
    preprocessor_of,
)


@dataclass(frozen=True, kw_only=True)
class MultiLayerConfiguration(NetworkConfiguration):
    """A chain of layers, final: every value is filled in, normal and checked.

    ``NeuralNetConfiguration.builder()`` makes one, and so does
    ``NeuralNetConfiguration.from_json``.

    Args:
        layers: the layers from input to output.
        preprocessors: layer index → what stands before that layer.

    The others are those of :class:`NetworkConfiguration`.

    DL4J: org.deeplearning4j.nn.conf.MultiLayerConfiguration
    """

    layers: tuple[Any, ...]
    preprocessors: Mapping[int, Preprocessor] = field(dict)

    def plan(self) -> Plan:
        steps: list[Step] = []
        taken: dict[str, int] = {INPUT: 0}
        for i, layer in enumerate(self.layers):
            # DL4J does not ask for distinct names in a chain
            name = unique(printable(layer.name or f"layer{i}"), taken)
            before = (steps[-1].name if steps else INPUT,)
            steps.append(Step(name, layer, before, self.preprocessors.get(i)))
        return Plan(tuple(steps), (INPUT,), (steps[-1].name,))

    def to_dict(self) -> dict[str, Any]:
        beside = (*self.extra.get("confs", ()), *({} for _ in self.layers))
        confs = [
            self._beside_layer(
                layer, list(layer.variables), beside[i], f"$.confs[{i}].layer"
            )
            for i, layer in enumerate(self.layers)
        ]
        content = {
            **self._written_once(),
            **{k: v for k, v in self.extra.items() if k != "confs"},
            "confs": confs,
            "inputPreProcessors": {
                str(i): encode(p) for i, p in sorted(self.preprocessors.items())
            },
        }
        return {k: content[k] for k in sorted(content)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MultiLayerConfiguration:
        """The configuration that :meth:`to_dict` writes as ``content``.

        Raises:
            DL4JFormatError: naming the place in ``content``, if it is not that.
        """
        confs = content.get("confs")
        if not isinstance(confs, list) or not confs:
            raise DL4JFormatError("$.confs: expected a list of layers")
        places = [f"$.confs[{i}]" for i in range(len(confs))]
        layers = list(map(layer_of, confs, places))
        around = [cls._settings(pair) for pair in zip(places, confs, strict=True)]
        for path, own in zip(places, around, strict=True):
            cls._check_agreement(path, own, around[0], places[0])
        values = cls._network(around[0], content, places[0])
        known = {*cls._declared(), "confs", "layer", "variables", "inputPreProcessors"}
        extra = {k: v for k, v in content.items() if k not in known}
        kept = [
            cls._kept(conf, own, layer.variables, values)
            for layer, conf, own in zip(layers, confs, around, strict=True)
        ]
        if any(kept):
            extra["confs"] = kept
        with at("$"):
            return cls(
                layers=tuple(layers),
                preprocessors=_preprocessors(content, len(layers)),
                extra=extra,
                **values,
            )


def _preprocessors(content: Mapping[str, Any], count: int) -> dict[int, Preprocessor]:
    path = "$.inputPreProcessors"
    found = {}
    known = {str(i) for i in range(count)}
    for key, value in mapping(content.get("inputPreProcessors", {}), path).items():
        preprocessor = preprocessor_of(value, f"{path}.{key}")
        if key not in known:
            raise DL4JFormatError(f"{path}: no layer {shown(key)}, there are {count}")
        found[int(key)] = preprocessor
    return found
