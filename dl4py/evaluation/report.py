"""What an evaluation shows: DL4J's tables to the character, and a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dl4py.evaluation import java
from dl4py.evaluation.rates import Rates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MATRIX_UP_TO = 20  # DL4J: Evaluation.CONFUSION_PRINT_MAX_CLASSES
LISTED_UP_TO = 16  # DL4J: maxWarningClassesToPrint


class Report(Rates):
    """Tables and a picture of the counts."""

    labels: tuple[str, ...] | None
    threshold: float | None
    cost_array: tuple[float, ...] | None
    sized: bool  # whether it was made for a number of classes

    def stats(
        self, suppress_warnings: bool = False, include_confusion: bool | None = None
    ) -> str:
        """DL4J's table of everything.

        Args:
            suppress_warnings: say nothing about classes left out of averages.
            include_confusion: whether the confusion matrix is part of it; None: if
                there are up to 20 classes.
        """
        if not self.num_row_counter():
            return "Evaluation: No data available (no evaluation has been performed)"
        k = self.num_classes
        text = "\n".join(["", "", _title("Evaluation Metrics"), *self._scores()])
        text += "\n\n"
        if not suppress_warnings:
            text += self._warnings()
        if include_confusion or (include_confusion is None and k <= MATRIX_UP_TO):
            text += f"\n{_title('Confusion Matrix')}\n{self.confusion_matrix()}"
        elif include_confusion is None:
            text += (
                "\n\nNote: Confusion matrix not generated due to space requirements "
                f"for {k} classes.\nUse stats(false,true) to generate anyway"
            )
        return f"{text}\n{_title('')}"

    def _scores(self) -> list[str]:
        k, positive = self.num_classes, self.binary_positive_class
        left_out = {
            "Precision": self.average_precision_num_classes_excluded(),
            "Recall": self.average_recall_num_classes_excluded(),
            "F1 Score": self.average_f1_num_classes_excluded(),
        }
        scores = zip(left_out, (self.precision, self.recall, self.f1), strict=True)
        lines = [f" # of classes:    {k}"]
        lines.append(f" Accuracy:        {java.decimals(self.accuracy())}")
        if self.top_n > 1:
            top = java.decimals(self.top_n_accuracy())
            lines.append(f" Top {self.top_n} Accuracy:  {top}")
        for name, score in scores:
            line = f" {name + ':':<17}{java.decimals(score())}"
            if k > 2 and left_out[name]:
                line += f"\t({_classes(left_out[name])} excluded from average)"
            lines.append(line)
        if k == 2 and positive is not None:
            name = self._names()[positive]
            about = f'reported for positive class (class {positive} - "{name}") only'
        else:
            about = f"macro-averaged (equally weighted avg. of {k} classes)"
        lines.append(f"Precision, recall & F1: {about}")
        if self.threshold is not None:
            lines.append(f"Binary decision threshold: {java.double(self.threshold)}")
        if self.cost_array is not None:
            costs = ", ".join(map(java.single, self.cost_array))
            lines.append(f"Cost array: [{costs}]")
        return lines

    def _warnings(self) -> str:
        counts = self._counts()
        left_out = {
            "precision": [i for i, c in enumerate(counts) if not c.tp + c.fp],
            "recall": [i for i, c in enumerate(counts) if not c.tp + c.fn],
        }
        text = ""
        for average, classes in left_out.items():
            if classes:  # DL4J: "never predicted" for the recall too
                were = "was" if len(classes) == 1 else "were"
                text += (
                    f"Warning: {_classes(len(classes))} {were} never predicted by the "
                    f"model and {were} excluded from average {average}"
                )
            if 0 < len(classes) <= LISTED_UP_TO:  # DL4J: else not even the line ends
                text += f"\nClasses excluded from average {average}: {classes}\n"
        return text

    def confusion_matrix(self) -> str:
        """The counts as :meth:`stats` shows them; ``confusion`` is the tensor."""
        counts, names = self._table(), self._names()
        if not counts:
            return "Confusion matrix: <no data>"
        largest = max(len(counts), *map(max, counts))
        # DL4J: too narrow by one for 10, 100 …, which then touch their neighbours
        width = max(1, math.ceil(math.log10(largest))) + 1
        lines = ["".join(f"{i:{width}d}" for i in range(len(counts)))]
        lines.append("-" * (width * len(counts) + 1))
        for i, row in enumerate(counts):
            cells = "".join(f"{count:{width}d}" for count in row)
            lines.append(f"{cells} | {i} = {names[i]}")
        return "\n".join(lines) + (
            "\n\nConfusion matrix format: "
            "Actual (rowClass) predicted as (columnClass) N times"
        )

    def confusion_to_string(self) -> str:
        """The counts with the names of the classes at their side."""
        counts, names = self._table(), self._names()
        if not counts:
            raise RuntimeError("Evaluation: nothing is evaluated yet")
        width = max(10, 5 + max(map(len, names)))
        header = "".join(f"{i:7d}" for i in range(len(counts)))
        lines = [f"   {'Predicted:':<{width}}   {header}", "   Actual:"]
        for i, row in enumerate(counts):
            cells = "".join(f"{count:7d}" for count in row)
            lines.append(f"{i:<3d}{names[i]:<{width}} | {cells}")
        return "\n".join([*lines, ""])

    def to_json(self) -> str:
        """DL4J's JSON; counts that are 0 are left out."""
        counts = self._counts() if self.num_row_counter() else []
        table = self._table()
        top = self.top_n > 1
        costs = self.cost_array
        content = {
            "@class": "org.nd4j.evaluation.classification.Evaluation",
            "axis": 1,
            "binaryPositiveClass": self._positive_written(),
            "topN": self.top_n,
            "topNCorrectCount": self.top_n_correct_count() if top else 0,
            "topNTotalCount": self.top_n_total_count() if top else 0,
            "truePositives": _counter([c.tp for c in counts]),
            "falsePositives": _counter([c.fp for c in counts]),
            "trueNegatives": _counter([c.tn for c in counts]),
            "falseNegatives": _counter([c.fn for c in counts]),
            "confusion": None
            if not table
            else {
                "classes": list(range(len(table))),
                "matrix": {
                    str(i): _multiset(row) for i, row in enumerate(table) if any(row)
                },
            },
            "numRowCounter": self.num_row_counter(),
            "labelsList": list(self._names()),
            "binaryDecisionThreshold": self.threshold,
            "costArray": None if costs is None else java.vector([*costs], "FLOAT"),
            "maxWarningClassesToPrint": LISTED_UP_TO,
        }
        return java.json(content)

    def _positive_written(self) -> int | None:
        # DL4J: new Evaluation(3) has none
        return (
            None if self.sized and self.num_classes != 2 else self.binary_positive_class
        )

    def _draw(self, counts: list[list[int]], ax: Axes | None) -> tuple[Figure, Axes]:
        """The confusion matrix as a picture."""
        from matplotlib import pyplot

        names = self.labels or tuple(map(str, range(len(counts))))
        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        ticks = range(len(counts))
        ax.imshow(counts, cmap="Blues")
        ax.set(xlabel="Predicted", ylabel="Actual", xticks=ticks, yticks=ticks)
        ax.set_xticklabels(names, rotation=45 if max(map(len, names)) > 3 else 0)
        ax.set_yticklabels(names)
        if len(counts) <= MATRIX_UP_TO:
            half = max(map(max, counts)) / 2
            for y, row in enumerate(counts):
                for x, count in enumerate(row):
                    color = "white" if count > half else "black"
                    ax.text(x, y, str(count), color=color, ha="center", va="center")
        figure = ax.get_figure(root=True)
        assert figure is not None
        return figure, ax

    def _table(self) -> list[list[int]]:
        table: list[list[int]] = self.confusion.tolist() if self.num_classes else []
        return table

    def _names(self) -> tuple[str, ...]:
        return self.labels or tuple(map(str, range(self.num_classes)))


def _title(text: str) -> str:
    return text.center(66, "=")


def _classes(n: int) -> str:
    return "1 class" if n == 1 else f"{n} classes"


def _counter(counts: list[int]) -> dict[str, Any]:
    """DL4J's Counter: what was never counted is not in it."""
    return {
        "map": {str(i): float(n) for i, n in enumerate(counts) if n},
        "totalCount": float(sum(counts)),
        "dirty": False,
        "empty": not any(counts),
    }


def _multiset(row: list[int]) -> list[list[int]]:
    """Columns and their counts; DL4J makes both lists as long as there are counts."""
    pairs = [(i, n) for i, n in enumerate(row) if n]
    rest = [0] * (sum(row) - len(pairs))
    return [[i for i, _ in pairs] + rest, [n for _, n in pairs] + rest]
