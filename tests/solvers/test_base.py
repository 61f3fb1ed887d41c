"""One step of any solver is a transaction over an ordinary closure."""

import copy
import io
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn

from dl4py.solvers import LBFGS, LineSolver, Solver
from dl4py.solvers.directions import LimitedMemory
from tests.solving import EVERY


class Descent(Solver):
    """x - lr·g after one trial of the value; what a test wants to see is kept."""

    def __init__(self, params, lr=0.1, l2=0.0, trials=1, **options):
        self.count = trials
        super().__init__(params, {"lr": lr, "l2": l2}, **options)

    def advance(self, problem):
        self.problem = problem
        self.start = problem.loss, problem.gradient
        end = problem.x - problem.per_group("lr") * problem.gradient
        self.seen = [problem.value(end) for _ in range(self.count)]
        self.again = problem.evaluate(problem.x)
        self.memory["steps"] = self.memory.get("steps", 0) + 1
        return end


def closure_of(solver, loss):
    def closure():
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


def net():
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2)
    )


class TestTransaction:
    def test_moves_once_and_returns_the_first_loss(self):
        w = nn.Parameter(torch.tensor([1.0, -2.0]))
        solver = Descent([w])
        loss = solver.step(closure_of(solver, lambda: w.square().sum()))
        assert loss.item() == 5.0
        torch.testing.assert_close(w.data, torch.tensor([0.8, -1.6]))
        assert solver.seen[0].item() == pytest.approx(0.64 + 2.56)
        assert (solver.problem.gradients, solver.problem.values) == (2, 1)

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("call", [1, 2, 3])
    def test_restores_after_any_exception(self, error, call):
        w = nn.Parameter(torch.tensor([1.0, -2.0]))
        solver = Descent([w])
        calls = 0

        def loss():
            nonlocal calls
            calls += 1
            if calls == call:
                raise error
            return w.square().sum()

        with pytest.raises(error):
            solver.step(closure_of(solver, loss))
        assert w.tolist() == [1.0, -2.0] and solver.memory == {}
        assert not solver.is_trial

    def test_data_is_written_in_place(self):
        w = nn.Parameter(torch.ones(3))
        address = w.data_ptr()
        solver = Descent([w])
        solver.step(closure_of(solver, lambda: w.square().sum()))
        assert w.data_ptr() == address and w.is_leaf


class TestReplay:
    def test_random_numbers_and_statistics_count_once(self):
        model, x = net(), torch.randn(8, 4)

        def loss():
            noise = random.random() + np.random.rand() + torch.rand(())
            return model(x).square().mean() * noise

        def seed():
            random.seed(1)
            np.random.seed(1)
            torch.manual_seed(1)

        def left():
            return random.random(), np.random.rand(), torch.rand(()).item()

        expected = copy.deepcopy(model)
        seed()
        random.random(), np.random.rand(), torch.rand(()), expected(x)
        numbers = left()
        seed()
        solver = Descent(model.parameters(), trials=3)
        solver.step(closure_of(solver, loss))
        assert left() == numbers
        first, again = solver.start, solver.again
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
        for ours, theirs in zip(model.buffers(), expected.buffers(), strict=True):
            assert torch.equal(ours, theirs)
        assert int(model[1].num_batches_tracked) == 1

    def test_a_function_of_its_own_state_is_the_same_function(self):
        model = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
        solver = Descent(model.parameters())
        x = torch.randn(5, 4)
        solver.step(closure_of(solver, lambda: model(x).square().sum()))
        assert torch.equal(solver.start[0], solver.again[0])
        assert torch.equal(solver.start[1], solver.again[1])


class TestValue:
    def test_is_without_gradient_and_without_graph(self):
        w = nn.Parameter(torch.ones(3))
        solver = Descent([w])
        modes = []

        def closure():
            with torch.enable_grad():  # as Lightning does
                solver.zero_grad()
                loss = w.square().sum()
                modes.append(loss.requires_grad)
                loss.backward()
            return loss

        solver.step(closure)
        assert modes == [True, False, True]
        assert w.grad is not None

    def test_closures_that_differentiate_keep_their_graph(self):
        w = nn.Parameter(torch.ones(2))
        solver = Descent([w])
        x = torch.linspace(0, 1, 5, requires_grad=True)

        def loss():
            y = w[0] * x**2 + w[1] * x
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            return slope.square().mean()

        before = loss()
        solver.step(closure_of(solver, loss))
        assert solver.seen[0] < before
        torch.testing.assert_close(loss().detach(), solver.seen[0])

    def test_gradient_penalty_by_double_backward(self):
        w = nn.Parameter(torch.tensor([1.0, 2.0]))
        solver = Descent([w], lr=0.01)

        def closure():
            solver.zero_grad()
            loss = w.pow(3).sum()
            loss.backward(create_graph=True)
            penalty = w.grad.square().sum()
            w.grad = None
            (loss + penalty).backward()
            return loss + penalty

        with pytest.warns(UserWarning, match="create_graph=True"):
            solver.step(closure)
        assert solver.problem.values == 0

    def test_several_backward_calls_add_up(self):
        w = nn.Parameter(torch.tensor([1.0, 2.0]))
        solver = Descent([w])

        def closure():
            solver.zero_grad()
            for part in w:
                (part**2).backward()
            torch.autograd.backward([w.sum()])
            return None

        assert solver.step(closure) is None
        assert solver.start[0].item() == 8.0
        assert solver.start[1].tolist() == [3.0, 5.0]

    def test_clipping_changes_nothing(self):
        ends = []
        for norm in (1e9, 1e-3):
            w = nn.Parameter(torch.tensor([3.0, 4.0]))
            solver = Descent([w])

            def closure(w=w, solver=solver, norm=norm):
                solver.zero_grad()
                loss = w.square().sum()
                loss.backward()
                nn.utils.clip_grad_norm_([w], norm)
                return loss

            solver.step(closure)
            ends.append(w.tolist())
        assert ends[0] == ends[1]


class TestGroups:
    def test_rates_decay_and_direction(self):
        a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1).double())
        groups = [{"params": [a], "lr": 0.5}, {"params": [b], "l2": 2.0}]
        solver = Descent(groups, lr=0.25, maximize=True)
        solver.step(closure_of(solver, lambda: 3 * a.sum() + 5 * b.sum()))
        # minimised is -(3Σa + 5Σb) + b²
        assert solver.start[0].item() == -11 + 1
        assert solver.start[1].tolist() == [-3, -3, -5 + 2]
        assert a.tolist() == [2.5, 2.5] and b.tolist() == [1.75]
        assert b.dtype == torch.float64

    def test_refused_ones_are_not_added(self):
        w = nn.Parameter(torch.ones(2))
        solver = Descent([w])
        odd = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        for group, what in (
            ({"params": [odd]}, "real parameters"),
            ({"params": [], "maximize": True}, "must be False as in other groups"),
            ({"params": [], "lr": -1.0}, "must be a number >= 0"),
        ):
            with pytest.raises(ValueError, match=what):
                solver.add_param_group(group)
            assert len(solver.param_groups) == 1

    def test_empty_frozen_and_unused(self):
        a, b, c = (nn.Parameter(torch.ones(2)) for _ in range(3))
        b.requires_grad_(False)
        solver = Descent([{"params": []}, {"params": [a, b, c]}])
        solver.step(closure_of(solver, lambda: (a * b).square().sum()))
        torch.testing.assert_close(a.data, torch.full((2,), 0.8))
        assert b.tolist() == [1, 1] and c.tolist() == [1, 1]

    def test_zero_gradient_is_no_step(self):
        w = nn.Parameter(torch.zeros(3))
        solver = Descent([w])
        solver.step(closure_of(solver, lambda: w.square().sum()))
        assert w.tolist() == [0, 0, 0] and solver.memory == {}

    def test_half_parameters_are_solved_in_float32(self):
        w = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        solver = Descent([w])
        solver.step(closure_of(solver, lambda: w.float().square().sum()))
        assert solver.start[1].dtype == torch.float32 and w.dtype == torch.bfloat16


class TestErrors:
    def closure(self, loss, clear=True):
        w = nn.Parameter(torch.tensor([1.0, 2.0]))
        solver = Descent([w])

        def closure():
            if clear:
                solver.zero_grad()
            value = loss(w)
            value.backward()
            return value

        return solver, closure, w

    def test_no_closure(self):
        solver, _, _ = self.closure(torch.sum)
        with pytest.raises(ValueError, match="precision='16-mixed'.*'bf16-mixed'"):
            solver.step()

    def test_no_backward(self):
        solver, _, w = self.closure(torch.sum)
        with pytest.raises(ValueError, match="did not call backward"):
            solver.step(lambda: w.sum())

    def test_gradients_not_cleared(self):
        solver, closure, w = self.closure(torch.sum, clear=False)
        with pytest.raises(ValueError, match=r"accumulate_grad_batches=1"):
            solver.step(closure)  # at its second evaluation
        assert w.tolist() == [1, 2]
        with pytest.raises(ValueError, match=r"solver.zero_grad\(\)"):
            solver.step(closure)  # at once

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_loss_not_finite(self, value):
        solver, closure, w = self.closure(lambda w: w.sum() * value)
        with pytest.raises(ValueError, match=f"loss is {value} before the step"):
            solver.step(closure)
        assert w.tolist() == [1, 2]

    def test_gradient_not_finite(self):
        solver, closure, _ = self.closure(lambda w: (w - w).sqrt().sum())
        with pytest.raises(ValueError, match="gradient is not finite before"):
            solver.step(closure)

    def test_loss_is_no_number(self):
        solver, closure, _ = self.closure(lambda w: w * 2)
        with pytest.raises(ValueError, match=r"one number, got shape \(2,\)"):
            solver.step(closure)

    def test_sparse_gradient(self):
        table = nn.Embedding(4, 2, sparse=True)
        solver = Descent(table.parameters())
        with pytest.raises(ValueError, match="dense gradients.*sparse=False"):
            solver.step(closure_of(solver, lambda: table(torch.tensor([1])).sum()))

    def test_parameters(self):
        for p, what in (
            (torch.zeros(2, dtype=torch.complex64), "real parameters.*view_as_real"),
            (torch.zeros(2, 2).to_sparse(), "dense parameters"),
        ):
            with pytest.raises(ValueError, match=what):
                Descent([nn.Parameter(p)])
        split = nn.Parameter(torch.zeros(2))
        split._is_flat_param = True
        with pytest.raises(ValueError, match="FSDP.*strategy='ddp'"):
            Descent([split])

    @pytest.mark.parametrize("name", ["lr", "l2"])
    def test_arguments(self, name):
        w = nn.Parameter(torch.zeros(2))
        with pytest.raises(
            ValueError, match=rf"Descent\({name}=...\) must be a number"
        ):
            Descent([w], **{name: -1.0})
        with pytest.raises(
            ValueError, match=rf"Descent\({name}=...\) must be a number"
        ):
            Descent([{"params": [w], name: float("nan")}])


class TestState:
    def test_round_trip(self):
        w = nn.Parameter(torch.ones(3))
        solver = Descent([w])
        solver.memory["pair"] = torch.arange(3.0)
        solver.memory["steps"] = 4
        file = io.BytesIO()
        torch.save(solver.state_dict(), file)
        file.seek(0)
        other = Descent([w])
        other.load_state_dict(torch.load(file, weights_only=True))
        assert other.memory["steps"] == 4
        assert torch.equal(other.memory["pair"], solver.memory["pair"])

    @pytest.mark.parametrize("name", EVERY)
    def test_of_another_is_refused(self, name):
        w = nn.Parameter(torch.ones(3))
        own, plain = LineSolver([w], LimitedMemory()), torch.optim.SGD([w], lr=7.0)
        others = [make([w], lr=7.0) for k, make in EVERY.items() if k != name]
        for other in (*others, Descent([w]), own, plain):
            solver = EVERY[name]([w], lr=0.5)
            solver.memory["kept"] = 0
            if getattr(other, "kind", "") == solver.kind:
                continue
            what = rf"{type(solver).__name__}\.load_state_dict: expected a state of "
            with pytest.raises(ValueError, match=what) as error:
                solver.load_state_dict(other.state_dict())
            assert getattr(other, "kind", "another optimizer") in str(error.value)
            assert solver.param_groups[0]["lr"] == 0.5 and solver.memory == {"kept": 0}

    def test_of_a_subclass(self):
        class Mine(LBFGS):
            pass

        w = nn.Parameter(torch.ones(3))
        Mine([w]).load_state_dict(LBFGS([w]).state_dict())
        LBFGS([w]).load_state_dict(Mine([w]).state_dict())

    def test_hooks_see_the_whole(self):
        w = nn.Parameter(torch.ones(3))
        solver, other, seen = Descent([w]), Descent([w]), []
        solver.memory["steps"] = 4
        solver.register_state_dict_post_hook(
            lambda _, state: {"wrapped": {**state, "memory": {"steps": 5}}}
        )
        other.register_load_state_dict_pre_hook(lambda _, state: state["wrapped"])
        other.register_load_state_dict_post_hook(lambda o: seen.append(o.memory))
        other.load_state_dict(solver.state_dict())
        assert other.memory == {"steps": 5} and seen == [other.memory]
        assert len(solver._optimizer_state_dict_post_hooks) == 1

    def test_copies(self):
        solver = Descent([nn.Parameter(torch.ones(3))], trials=2)
        solver.memory["steps"] = 4
        for other in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
            assert other.memory == {"steps": 4} and not other.is_trial
