"""Seconds that a graph of many vertices takes, built and to JSON and back.

``python -m tests.large [VERTICES]``; 10,000 are to be below 10 s each way.
"""

import io
import sys
import time
from collections.abc import Callable
from typing import Any

import dl4py
from dl4py.config import Dense, InputType, NeuralNetConfiguration, Output


def configuration(vertices: int) -> Any:
    """A graph of Dense layers in a row."""
    graph = NeuralNetConfiguration.builder().seed(1).graph_builder()
    graph.add_inputs("in").set_input_types(InputType.feed_forward(4))
    reads = "in"
    for i in range(vertices - 1):
        graph.add_layer(f"dense{i}", Dense(n_out=4), reads)
        reads = f"dense{i}"
    return graph.add_layer("out", Output(n_out=3), reads).set_outputs("out").build()


def timed(what: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    made = work()
    print(f"{what:<12} {time.perf_counter() - start:6.1f} s", flush=True)
    return made


def main(vertices: int) -> None:
    conf = timed("build", lambda: configuration(vertices))
    text = timed("to JSON", conf.to_json)
    again = timed("from JSON", lambda: NeuralNetConfiguration.from_json(text))
    assert again == conf and again.to_json() == text
    net = timed("module", conf.module)
    file = io.BytesIO()
    timed("save", lambda: dl4py.save(net, file, allow_difference=True))
    restored = timed("restore", lambda: dl4py.restore(file))
    assert restored.params().equal(net.params())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
