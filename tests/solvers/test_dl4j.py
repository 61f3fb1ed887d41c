"""DL4J's own solvers, faults included, step by step as the real DL4J took them."""

import numpy as np
import pytest
import torch
from torch import nn

from dl4py.config import Dense, NeuralNetConfiguration, Output
from dl4py.solvers import LBFGS, ConjugateGradient, LineGradientDescent, dl4j
from tests import golden

GOLDEN = golden.load("solvers")
OUTSIDE = next(v for k, v in GOLDEN.items() if k.startswith("setParams"))
CLASSES = {
    "LBFGS": LBFGS,
    "CONJUGATE_GRADIENT": ConjugateGradient,
    "LINE_GRADIENT_DESCENT": LineGradientDescent,
}


def title(trace):
    return "-".join(
        str(trace[key])
        for key in (
            "problem",
            "algorithm",
            "maxNumLineSearchIterations",
            "updater",
            "stepFunction",
        )  # fmt: skip
    )


# DL4J throws: parameters have one dimension there, the direction [1, n]
THROWING = {title(t): t["error"] for t in GOLDEN["traces"] if t.get("error")}
TRACES = [t for t in GOLDEN["traces"] if not t.get("error")]


def data(problem):
    content = GOLDEN["problems"][problem]
    return [torch.tensor(content[k], dtype=torch.float64) for k in ("input", "labels")]


def network(
    problem, algorithm, iterations, updater, step, dl4j_exact=True, kind="double"
):
    name, numbers = updater.rstrip(")").split("(")
    names = ("lr", "momentum")
    args = dict(zip(names, map(float, numbers.split(",")), strict=False))
    builder = (
        NeuralNetConfiguration.builder()
        .data_type(kind)
        .optimization_algo(algorithm)
        .max_num_line_search_iterations(iterations)
        .updater(name.lower(), **args)
    )
    if step is not None:
        builder = builder.step_function(step)
    if problem == "quadratic":
        last = Output(
            n_in=3, n_out=2, loss="mse", activation="identity", has_bias=False
        )
        chain = builder.layer(last)
    else:
        chain = builder.layer(Dense(n_in=2, n_out=5, activation="tanh"))
        chain = chain.layer(Output(n_out=1, loss="mse", activation="identity"))
    net = chain.build().module(dl4j_exact=dl4j_exact)
    start = GOLDEN["problems"][problem]["initial_params"]
    net.set_params(torch.tensor(start, dtype=net.params().dtype))
    return net


class TestTraces:
    @pytest.mark.parametrize("trace", TRACES, ids=title)
    def test_network(self, trace):
        x, y = data(trace["problem"])
        net = network(
            *(
                trace[key]
                for key in (
                    "problem",
                    "algorithm",
                    "maxNumLineSearchIterations",
                    "updater",
                    "stepFunction",
                )  # fmt: skip
            )
        )
        compared = 0
        after = trace["algorithm"] != "STOCHASTIC_GRADIENT_DESCENT"
        for params, score in zip(
            trace["params"][1:], trace["score_after_fit"], strict=True
        ):
            if not np.isfinite([*params, score]).all():
                break  # it climbs until its numbers overflow
            ours = net.fit(x, y)
            compared += 1
            np.testing.assert_allclose(net.params(), params, rtol=1e-8, atol=1e-10)
            assert ours == pytest.approx(score, rel=1e-8) or not after
        climbs = trace["algorithm"] == "LBFGS" and trace["stepFunction"] == (
            "DefaultStepFunction"
        )
        assert compared == 15 or (climbs and compared > 5)

    def test_which_throw(self):
        """Every trace is compared but those in which DL4J itself fails."""
        assert len(TRACES) + len(THROWING) == 80
        assert len(THROWING) == 12
        for name, error in THROWING.items():
            assert name.endswith(
                ("-NegativeGradientStepFunction", "-GradientStepFunction")
            )
            assert "Cannot perform in-place operation" in error
        net = network("mlp", "LBFGS", 5, "Sgd(0.1)", "GradientStepFunction")
        before = net.params()
        with pytest.raises(ValueError, match="throw with the gradient step function"):
            net.fit(*data("mlp"))
        assert torch.equal(net.params(), before)

    @pytest.mark.parametrize("trace", OUTSIDE, ids=lambda t: t["algorithm"])
    def test_parameters_set_in_between(self, trace):
        net = network("quadratic", trace["algorithm"], 5, "Sgd(1.0)", None)
        start = net.params()
        for i, params in enumerate(trace["params"]):
            if i == 2:
                net.set_params(start)
            net.fit(*data("quadratic"))
            np.testing.assert_allclose(net.params(), params, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize(
        "trace",
        [
            t
            for t in TRACES
            if t["updater"].startswith("Sgd") and t["algorithm"] in CLASSES
        ],
        ids=title,
    )
    def test_solver_on_its_own(self, trace):
        x, y = data(trace["problem"])
        if trace["problem"] == "quadratic":
            model = nn.Linear(3, 2, bias=False).double()
        else:
            model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        start = torch.tensor(trace["params"][0], dtype=torch.float64)
        nn.utils.vector_to_parameters(start, model.parameters())
        solver = CLASSES[trace["algorithm"]](
            model.parameters(),
            lr=float(trace["updater"][4:-1]),
            max_num_line_search_iterations=trace["maxNumLineSearchIterations"],
            step_function=trace["stepFunction"],
            dl4j_exact=True,
        )

        def closure():
            solver.zero_grad()
            loss = (model(x) - y).square().mean(1).sum() / len(x)
            loss.backward()
            return loss

        # a weight [n_in, n_out] in DL4J's 'f' order is torch's [n_out, n_in]
        for loss, params in zip(trace["loss"], trace["params"][1:], strict=False):
            if not np.isfinite([loss, *params]).all():
                break  # it climbs until its numbers overflow
            solver.step(closure)
            ours = nn.utils.parameters_to_vector(model.parameters()).detach()
            np.testing.assert_allclose(ours, params, rtol=1e-8, atol=1e-10)


def value(problem, x):
    """The loss in NumPy."""
    inputs, labels = (t.numpy() for t in data(problem))
    if problem == "quadratic":
        output = inputs @ x.reshape(2, 3).T
    else:
        hidden = np.tanh(inputs @ x[:10].reshape(5, 2).T + x[10:15])
        output = hidden @ x[15:20].reshape(1, 5).T + x[20:]
    return float(((output - labels) ** 2).mean(1).sum() / len(inputs))


@pytest.mark.parametrize("i", range(len(GOLDEN["line_searches"])))
def test_line_search_alone(i):
    case = GOLDEN["line_searches"][i]
    start, u, d = (
        torch.tensor(v, dtype=torch.float64)
        for v in (
            GOLDEN["problems"][case["problem"]]["initial_params"],
            case["gradient"],
            case["direction"],
        )
    )
    step, after = dl4j.back_track(
        lambda x: value(case["problem"], x.numpy()),
        case["score0"],
        start,
        u,
        d,
        case["maxIterations"],
        dl4j.step_function(case["stepFunction"]),
        case["stepMax"],
    )
    assert step == pytest.approx(case["step"], rel=1e-9)
    np.testing.assert_allclose(after, case["direction_after"], rtol=1e-9)


class Ended(Exception):
    """As many evaluations as DL4J needed."""


class TestAgainstDL4J:
    """DL4J's own solvers, exact to the bit above, and the defaults on the same nets."""

    def run(self, problem, cls, limit=None, **arguments):
        """(loss at the end, evaluations)."""
        x, y = data(problem)
        if problem == "quadratic":
            model = nn.Linear(3, 2, bias=False).double()
        else:
            model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        start = GOLDEN["problems"][problem]["initial_params"]
        start = torch.tensor(start, dtype=torch.float64)
        nn.utils.vector_to_parameters(start, model.parameters())
        solver, calls = cls(model.parameters(), **arguments), 0

        def loss():
            return (model(x) - y).square().mean(1).sum() / len(x)

        def closure():
            nonlocal calls
            if calls == limit:
                raise Ended
            calls += 1
            solver.zero_grad()
            value = loss()
            value.backward()
            return value

        try:
            for _ in range(15 if limit is None else limit):
                solver.step(closure)
        except Ended:
            pass
        return loss().item(), calls

    @pytest.mark.parametrize("rate", [0.1, 1.0, 10.0])
    @pytest.mark.parametrize("cls", CLASSES.values())
    @pytest.mark.parametrize("problem", ["quadratic", "mlp"])
    def test_lower_loss_for_as_many_evaluations(self, problem, cls, rate):
        """Even a value counts as a whole evaluation."""
        theirs, evaluations = self.run(
            problem, cls, lr=rate, dl4j_exact=True, max_num_line_search_iterations=5
        )
        ours, spent = self.run(problem, cls, evaluations)
        assert spent <= evaluations
        assert ours <= theirs * (1 + 1e-6)  # both may be at the minimum


class TestFaults:
    def test_default_is_better_for_as_many_evaluations(self):
        """After 15 fits of DL4J's LBFGS on the quadratic: 0.0424 (it stalls)."""
        net = network("quadratic", "LBFGS", 5, "Sgd(0.1)", None, dl4j_exact=False)
        x, y = data("quadratic")
        for _ in range(15):
            net.fit(x, y)
        assert net.score(x, y) < 1e-2

    def test_differs(self):
        for cls in CLASSES.values():
            assert cls([nn.Parameter(torch.ones(1))]).differs() == cls.fault
        net = network("quadratic", "CONJUGATE_GRADIENT", 5, "Sgd(0.1)", None)
        expected = (
            "optimization_algo CONJUGATE_GRADIENT: DL4J's is line gradient descent"
        )
        assert expected in net.differs()

    def test_resumes_identically(self):
        x, y = data("mlp")
        net = network("mlp", "LBFGS", 5, "Nesterovs(0.1,0.9)", None)
        for _ in range(4):
            net.fit(x, y)
        other = network("mlp", "LBFGS", 5, "Nesterovs(0.1,0.9)", None)
        other.set_params(net.params())
        other.optimizer.load_state_dict(net.optimizer.state_dict())
        for _ in range(3):
            net.fit(x, y)
            other.fit(x, y)
        assert torch.equal(net.params(), other.params())

    def test_goes_on_in_single_precision(self):
        x, y = data("mlp")
        nets = [
            network("mlp", "LBFGS", 5, "Sgd(1.0)", None, kind=kind)
            for kind in ("double", "float")
        ]
        for _ in range(3):
            nets[0].fit(x, y)
        nets[1].set_params(nets[0].params().float())
        nets[1].optimizer.load_state_dict(nets[0].optimizer.state_dict())
        nets[0].fit(x, y)
        nets[1].fit(x.float(), y.float())
        ours, theirs = nets[1].params(), nets[0].params().float()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", ["maximize", "bounds"])
    def test_unknown_to_dl4j(self, name):
        arguments = {"maximize": {"maximize": True}, "bounds": {"bounds": (0, 1)}}[name]
        with pytest.raises(ValueError, match="DL4J knows neither maximize nor bounds"):
            LBFGS([nn.Parameter(torch.ones(1))], dl4j_exact=True, **arguments)


class TestStepFunctions:
    def run(self, step_function, steps=1):
        w = nn.Parameter(torch.tensor([2.0]))
        solver = LineGradientDescent([w], lr=0.1, step_function=step_function)

        def closure():
            solver.zero_grad()
            loss = w.square().sum()
            loss.backward()
            return loss

        for _ in range(steps):
            solver.step(closure)
        return w.item()

    def test_directions(self):
        assert self.run("NegativeDefaultStepFunction") == pytest.approx(1.6)
        assert self.run("NegativeGradientStepFunction") == pytest.approx(1.6)
        assert self.run("DefaultStepFunction") == pytest.approx(2.4)
        assert self.run("gradient") == pytest.approx(2.4)
        # without a search no step is longer than the first
        assert self.run("negative_gradient", 3) == pytest.approx(2 * 0.8**3)

    def test_unknown(self):
        with pytest.raises(
            ValueError, match="must be one of NegativeDefault.*got 'up'"
        ):
            self.run("up")
