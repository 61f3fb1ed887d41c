"""The page of layers: torch's nearest module, and what differs.

``python -m tests.kinds`` writes it. A module says itself what is near to it.
"""

import inspect
import pathlib

from dl4py.registry import LAYERS, MODULES

PAGE = pathlib.Path(__file__).parent.parent / "dl4py" / "LAYERS.md"
HEAD = """# Layers beside torch's nearest modules

Every kind of layer, as the modules say it themselves. Arrays are `[n, features]`,
`[n, features, time]`, `[n, channels, height, width]` or `[n, channels, depth, height,
width]`; `format` puts channels last. `python -m tests.kinds` writes this page.

"""


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


def page() -> str:
    """The file ``dl4py/LAYERS.md``."""
    return HEAD + table() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
