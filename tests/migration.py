"""The page for those who come from DL4J: each of its classes, and its name here.

``python -m tests.migration`` writes it, from what ``dl4py list`` shows.
"""

import pathlib

from dl4py.commands import names

PAGE = pathlib.Path(__file__).parent.parent / "dl4py" / "MIGRATION.md"
HEAD = """# From DL4J to dl4py

Every class of DL4J that has a name here, as `dl4py list` shows it. Names are strings
that the builder and `dl4py.activations.get("cube")`, `losses.get`, `updaters.get`,
`schedules.get` and `weight_init.get` take; DL4J's enum constants (`RATIONALTANH`,
`MCXENT`) and class names do too. Layers, vertices, dropouts, constraints and
preprocessors are dataclasses of `dl4py.config`, without the `Layer` at the end.
`python -m tests.migration` writes this page.
"""
TITLES = {
    "network": "Networks and files",
    "training": "Training, listeners, UI",
    "data": "Data",
    "evaluation": "Evaluation",
    "zoo": "Model zoo",
    "not here": "Not here",
}
CODE = "dl4py", "torch.", "lightning.", "optuna.", "tensorboard ", "("


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def section(kind: str, rows: list[dict]) -> str:
    title = TITLES.get(kind, kind[0].upper() + kind[1:] + "s")
    last = "use instead" if kind == "not here" else "dl4py"
    lines = [f"## {title}", "", f"| DL4J | {last} | |", "|---|---|---|"]
    for row in rows:
        simple = row["java"].rpartition(".")[2]
        java = f"`{simple}`" if "." in row["java"] else row["java"]
        said = [row["name"], *row["also"]]
        code = row["kind"] not in TITLES or row["name"].startswith(CODE)
        ours = ", ".join([f"`{name}`" for name in said] if code else said)
        lines.append(f"| {java} | {cell(ours)} | {cell(row['what'])} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The file ``dl4py/MIGRATION.md``."""
    rows = [row for row in names.rows() if row["java"]]
    first = ["network", "training", "data", "evaluation"]
    kinds = dict.fromkeys(
        [*first, *(r["kind"] for r in rows if r["kind"] != "not here")]
    )
    parts = [
        section(kind, [row for row in rows if row["kind"] == kind])
        for kind in [*kinds, "not here"]
    ]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    PAGE.write_text(page())
