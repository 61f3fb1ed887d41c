"""The README's table of layers: torch's nearest module, and what differs.

``python -m tests.kinds`` prints it. A module says itself what is near to it.
"""

import inspect

from dl4py.registry import LAYERS, MODULES


def table() -> str:
    """The table in Markdown, in the order of the names."""
    rows = []
    for key in LAYERS:
        module = MODULES[key] if key in MODULES else None
        if module is None or not module.__module__.startswith("dl4py."):
            continue
        torchs, differs = module.neighbour
        signature = inspect.signature(module).parameters.values()
        leading = [p.name for p in signature if p.kind is p.POSITIONAL_OR_KEYWORD]
        cells = (f"`{module.__name__}`", ", ".join(leading), torchs, differs)
        rows.append(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        )
    head = [
        "| layer | by position | torch's nearest | what differs |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *sorted(rows, key=str.lower)])


if __name__ == "__main__":
    print(table())
