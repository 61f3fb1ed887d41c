"""Configurations as YAML: DL4J's JSON in other clothes."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml  # type: ignore[import-untyped]

from dl4py.config.codec import DL4JFormatError, brief, parse


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only; no aliases, which make much of little."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"an alias, {event.start_mark}")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(  # Java writes 1.0E10, which YAML 1.1 takes for text
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def dump(content: dict[str, Any]) -> str:
    """Plain Python types as YAML, in their order."""
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text


def load(text: str) -> dict[str, Any]:
    """The mapping that a YAML text holds, in plain Python types.

    >>> load("seed: 3\\nlayers: [{nin: 2, l2: 1.0E-4}]")
    {'seed': 3, 'layers': [{'nin': 2, 'l2': 0.0001}]}
    """
    try:
        content = yaml.load(text, _Loader)
        return parse(json.dumps(content, allow_nan=False))
    except RecursionError:
        raise DL4JFormatError("$: nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        if isinstance(error, DL4JFormatError):
            raise
        raise DL4JFormatError(f"$: not YAML of plain values: {brief(error)}") from error
