"""The page of where DL4J's own numbers differ from the default.

``python -m tests.differences`` writes it. An item says itself whether it differs; every
item is asked with its default arguments and with each argument changed in turn.
"""

import dataclasses
import inspect
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from dl4py.config import L2
from dl4py.config.layer import DEFAULTS
from dl4py.registry import (
    ACTIVATIONS,
    CONSTRAINTS,
    LAYERS,
    LOSSES,
    MODULES,
    SCHEDULES,
    UPDATERS,
    Registry,
    parameters,
)

VALUES = {
    "values": {0: 0.1},
    "base_schedule": SCHEDULES["fixed"](0.1),
    "num_iter": 3,
    "gaussians": 2,
    "labels": 1,
    "n_in": 4,
    "n_out": 3,
    "activation": "tanh",
    "shape": (3,),
    "max_iter": 10,
    "max_learning_rate": 0.1,
    "cycle_length": 10,
    "format": "NHWC",
    "input_size": 4,
}

PAGE = pathlib.Path(__file__).parent.parent / "dl4py" / "DIFFERENCES.md"
HEAD = """# Where DL4J's own numbers differ

What `dl4j_exact=True` computes in place of the correct mathematics, as the items say it
themselves (`differs()`). `python -m tests.differences` writes this page.

"""


def required(item: Any) -> dict[str, Any]:
    """A value for every argument without a default."""
    if dataclasses.is_dataclass(item):
        known = {f.name: f.default for f in dataclasses.fields(item)}
    else:
        known = parameters(item)
    missing = (inspect.Parameter.empty, dataclasses.MISSING)
    return {n: VALUES.get(n, 0.1) for n, d in known.items() if d in missing}


def variants(item: Any) -> Iterator[dict[str, Any]]:
    """Arguments to ask with: the defaults, and each of them changed in turn."""
    needed = required(item)
    yield needed
    for name, default in parameters(item).items():
        if isinstance(default, bool):
            yield {**needed, name: not default}
        elif isinstance(default, float):
            yield {**needed, name: default / 2 or 0.5}
        elif default is None and name not in ("dropout", "weights"):
            yield {**needed, name: VALUES.get(name, 0.5)}
    if "lr" in parameters(item):
        yield {**needed, "lr": 0.0}
    if "softmax_clip_eps" in parameters(item) or "clip_eps" in parameters(item):
        yield {**needed, "activation": "softmax"}
    if "lock_gamma_beta" in parameters(item):
        yield {**needed, "lock_gamma_beta": True, "gamma": 1.5}
    if "pooling_type" in parameters(item):
        yield {**needed, "pooling_type": "AVG"}
    if "max" in parameters(item) and "threshold" in parameters(item):
        yield {**needed, "max": 0.0, "threshold": 0.5}


def lines_of(registry: Registry[Any], item: Any) -> Iterator[str]:
    """What the variants of an item say about themselves; a layer as in a network."""
    entry = registry.entry_of(item)
    if registry is MODULES and entry is not None and entry.key in LAYERS:
        conf, given = LAYERS[entry.key].example()
        settings = {**DEFAULTS, "activation": "tanh", "regularization": (L2(0.1),)}
        yield from item.from_config(conf.resolved(settings).with_input(given)).differs()
    for args in variants(item):
        try:
            if registry is UPDATERS:
                found = item.difference({**parameters(item), **args})
            else:
                found = item(**args).differs()
        except (TypeError, ValueError):
            continue  # this variant does not exist
        yield from [found] if isinstance(found, str) else found or ()


def table() -> str:
    """The table in Markdown."""
    rows = []
    for registry in (ACTIVATIONS, LOSSES, UPDATERS, SCHEDULES, CONSTRAINTS, MODULES):
        for key in registry:
            item = registry[key]
            if not item.__module__.startswith("dl4py.") or not inspect.isclass(item):
                continue
            seen = set()
            for line in lines_of(registry, item):
                text = re.sub(rf"^{item.__name__}(\([^)]*\))?: ", "", line)
                of_a_part = registry is MODULES and text == line
                if of_a_part or re.sub(r"[\d.e-]+", "", text) in seen:
                    continue
                seen.add(re.sub(r"[\d.e-]+", "", text))
                rows.append(f"| `{key}` | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(["| item | DL4J's own |", "|---|---|", *rows])


def page() -> str:
    """The file ``dl4py/DIFFERENCES.md``."""
    return HEAD + table() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
