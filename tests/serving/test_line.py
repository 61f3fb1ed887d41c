"""The line before a model, with runners that do what a test wants."""

import asyncio
import threading

import numpy as np
import pytest

from dl4py.serving.line import TRIES, Line
from dl4py.serving.metrics import Counts
from dl4py.serving.model import answers
from dl4py.serving.spec import Input, Refused, Spec
from dl4py.serving.worker import Died

SPEC = Spec({"input": Input()}, ("output",), "float64")


class Doubles:
    """A runner whose model doubles numbers, and which dies of 666."""

    def __init__(self):
        self.spec, self.batches, self.starts = SPEC, [], 0
        self.go = threading.Event()
        self.go.set()

    def start(self):
        self.starts += 1
        return self.spec

    def predict(self, given):
        if (given["input"] == 13).any():
            raise ValueError("13 is not taken")
        return {"output": 2 * given["input"]}

    def answers(self, requests):
        self.go.wait(10)
        self.batches.append([r["input"].ravel().tolist() for r in requests])
        if any((r["input"] == 666).any() for r in requests):
            raise Died("it has ended")
        return answers(self, requests)

    def stop(self):
        pass


def run(arrays, batch=4, counts=None):
    """(answers, runner) of requests that come while the runner has the first."""
    runner = Doubles()

    async def all():
        line = Line([runner], batch, counts or Counts())
        await line.start()
        runner.go.clear()
        jobs = [line.put({"input": np.array(a, dtype=float)}) for a in arrays[:1]]
        await asyncio.sleep(0.01)
        jobs += [line.put({"input": np.array(a, dtype=float)}) for a in arrays[1:]]
        runner.go.set()
        found = await asyncio.gather(*(j.answer for j in jobs), return_exceptions=True)
        assert not line.open and not line.waiting
        await line.stop()
        return found

    return asyncio.run(all()), runner


def test_what_waits_goes_together_and_each_gets_its_own():
    counts = Counts()
    arrays = [[[i]] for i in range(10)]
    found, runner = run(arrays, counts=counts)
    for array, answer in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(answer["output"], 2 * np.array(array))
    assert [len(batch) for batch in runner.batches] == [1, 4, 4, 1]
    assert (counts.rows.value, counts.batches.value) == (10, 4)


def test_only_rows_of_one_shape_go_together_and_none_is_passed_over():
    arrays = [[[0]], [[1]], [[2, 2]], [[3], [3]], [[4, 4]], [[5], [5], [5], [5], [5]]]
    found, runner = run(arrays)
    for array, answer in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(answer["output"], 2 * np.array(array))
    assert runner.batches == [
        [[0]],
        [[1], [3, 3]],
        [[2, 2], [4, 4]],
        [[5, 5, 5, 5, 5]],
    ]


def test_a_bad_request_spoils_none_beside_it():
    found, _ = run([[[0]], [[1]], [[13]], [[2]]])
    assert isinstance(found[2], Refused) and found[2].status == 400
    assert "13 is not taken" in found[2].message
    assert [f["output"].item() for i, f in enumerate(found) if i != 2] == [0, 2, 4]


def test_a_request_that_ends_workers_is_given_up_and_the_others_are_answered():
    counts = Counts()
    found, runner = run([[[0]], [[1]], [[666]], [[2]]], counts=counts)
    assert isinstance(found[2], Refused) and found[2].status == 500
    assert [f["output"].item() for i, f in enumerate(found) if i != 2] == [0, 2, 4]
    assert counts.restarts.value == TRIES == runner.starts - 1


def test_one_runner_that_cannot_start_ends_all():
    class Bad(Doubles):
        def start(self):
            raise ValueError("damaged")

    async def start():
        await Line([Doubles(), Bad()], 4, Counts()).start()

    with pytest.raises(ValueError, match="damaged"):
        asyncio.run(start())
