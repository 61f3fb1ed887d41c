"""What a network promises beyond DL4J's numbers (those are in test_catalogue.py)."""

import copy
import pickle

import pytest
import torch
from torch import nn

import dl4py
from dl4py.config import (
    LSTM,
    BatchNormalization,
    Convolution2D,
    Dense,
    Embedding,
    Frozen,
    FrozenWithBackprop,
    GlobalPooling,
    InputType,
    LossLayer,
    Output,
    RnnOutput,
    Subsampling,
)
from tests.networks import builder, examples, mlp


@pytest.fixture
def batch():
    return examples()


class TestState:
    def test_seed_decides_the_parameters(self):
        a, b = mlp().module(), mlp().module()
        assert torch.equal(a.params(), b.params())
        assert not torch.equal(a.params(), mlp(seed=4).module().params())

    def test_params_are_a_copy_in_dl4j_order(self):
        net = mlp().module()
        flat = net.params()
        w = net.layers["layer0"].weight
        assert torch.equal(flat[:24].reshape(6, 4), w)  # [n_in, n_out], column-major
        flat.zero_()
        assert float(w.detach().abs().sum()) > 0
        net.set_params(torch.arange(float(flat.numel()), dtype=torch.float64))
        assert torch.equal(net.params(), torch.arange(51, dtype=torch.float64))
        with pytest.raises(ValueError, match="expected a vector of 51 numbers"):
            net.set_params(torch.zeros(3))

    def test_output_and_score_change_nothing(self, batch):
        conf = mlp(dropout=0.5)
        net = conf.module().train()
        net.layers["layer0"].eval()
        before = copy.deepcopy(net.state_dict())
        net.output(batch[0])
        net.score(*batch, training=True)
        net.gradient_and_score(*batch)
        net.feed_forward(batch[0])
        assert net.training and not net.layers["layer0"].training
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters())

    def test_batch_norm_counts_a_repeated_forward_once(self, batch):
        chain = builder().layer(Dense(n_in=4, n_out=3)).layer(BatchNormalization())
        once = chain.layer(Output(n_out=3)).build().module()
        twice = copy.deepcopy(once)
        for net, times in ((once, 1), (twice, 3)):
            net.train()
            for _ in range(times):
                net.optimizer.zero_grad()
                net.loss(*batch).backward()
            net.optimizer.step()
        assert torch.allclose(once.params(), twice.params(), rtol=0, atol=1e-15)

    def test_copies(self, batch):
        net = mlp().module()
        net.fit(*batch)
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            net_state = net.updater_state()
            assert torch.equal(other.updater_state(), net_state)
            mine = copy.deepcopy(net)
            mine.fit(*batch), other.fit(*batch)
            assert torch.equal(mine.params(), other.params())
            assert torch.equal(net.updater_state(), net_state)

    def test_optimizer_state_resumes_the_same_run(self, batch):
        conf = mlp(gradient_normalization="ClipL2PerLayer", l2=0.01)
        net = conf.module()
        net.fit(*batch)
        other = conf.module()
        other.load_state_dict(net.state_dict())
        saved = net.optimizer.state_dict()
        other.optimizer.load_state_dict(copy.deepcopy(saved))
        for _ in range(3):
            assert net.fit(*batch) == other.fit(*batch)
        assert torch.equal(net.params(), other.params())
        assert other.clock.iteration == 4
        with pytest.raises(ValueError, match="NetworkOptimizer"):
            net.optimizer.load_state_dict({"state": {}, "param_groups": []})

    def test_moving_to_a_dtype_keeps_training(self, batch):
        chain = builder().layer(Dense(n_in=4, n_out=3)).layer(BatchNormalization())
        net = chain.layer(Output(n_out=3)).build().module()
        net.optimizer  # noqa: B018  made before the buffers are replaced
        net.float()
        net.fit(*(t.float() for t in batch))
        assert float(net.layers["layer1"].mean.abs().sum()) > 0

    def test_flat_updater_state_round_trip(self, batch):
        net = mlp().module()
        net.fit(*batch)
        state = net.updater_state()
        assert state.shape == (102,)  # two moments of 51 parameters
        net.optimizer.set_flat_state(state * 2)
        assert torch.equal(net.updater_state(), state * 2)
        with pytest.raises(ValueError, match="vector of 102 numbers"):
            net.optimizer.set_flat_state(state[:5])


class TestLearning:
    def test_gradient_is_the_sum_and_the_derivative_of_the_score(self, batch):
        net = mlp().module()
        g, score = net.gradient_and_score(*batch)
        assert score == pytest.approx(net.score(*batch, training=True), rel=1e-14)
        p = net.params()
        for i in (0, 7, 30, 44):
            ends = []
            for sign in (1, -1):
                q = p.clone()
                q[i] += sign * 1e-6
                net.set_params(q)
                ends.append(net.score(*batch, training=True))
            slope = (ends[0] - ends[1]) / 2e-6
            assert slope * 12 == pytest.approx(float(g[i]), rel=1e-6)

    def test_loader_counts_epochs(self, batch):
        net = mlp().module()
        net.fit([batch, batch], epochs=3)
        assert (net.clock.iteration, net.clock.epoch) == (6, 3)
        net.fit(*batch)
        assert (net.clock.iteration, net.clock.epoch) == (7, 3)

    def test_groups_and_their_rates(self, batch):
        rate = dl4py.schedules.get("exponential", initial_value=0.1, gamma=0.5)
        chain = builder().updater("nesterovs", lr=rate).bias_updater("sgd", lr=0.2)
        chain.layer(Dense(n_in=4, n_out=3)).layer(Output(n_out=3))
        net = chain.build().module()
        groups = {g["name"]: g for g in net.optimizer.param_groups}
        assert list(groups) == [
            "layer0/weight",
            "layer0/bias",
            "layer1/weight",
            "layer1/bias",
        ]
        net.fit(*batch)
        net.fit(*batch)
        assert groups["layer0/weight"]["lr"] == 0.025  # of the next step
        assert groups["layer0/bias"]["lr"] == 0.2

    @pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adagrad])
    def test_a_torch_optimizer_instead_of_an_updater(self, optimizer, batch):
        chain = builder().updater(optimizer, lr=0.05)
        chain.layer(Dense(n_in=4, n_out=6, activation="tanh")).layer(Output(n_out=3))
        net = chain.build().module()
        twin = copy.deepcopy(net)
        plain = optimizer(twin.parameters(), lr=0.05)
        for _ in range(4):
            net.fit(*batch)
            plain.zero_grad()
            twin.loss(*batch).backward()
            plain.step()
        assert torch.allclose(net.params(), twin.params(), rtol=1e-12)
        again = copy.deepcopy(net)
        again.optimizer.load_state_dict(net.optimizer.state_dict())

    def test_functions_and_modules_instead_of_names(self, batch):
        def constant(t, fan_in, fan_out, generator=None):
            return nn.init.constant_(t, 0.1)

        loss = nn.MSELoss(reduction="none")
        conf = (
            builder()
            .weight_init(constant)
            .layer(Dense(n_in=4, n_out=6, activation=torch.sin))
            .layer(Dense(n_out=3, activation=nn.Hardswish()))
            .layer(Output(n_out=3, activation="identity", loss=loss))
            .build()
        )
        net = conf.module()
        assert net.layers["layer0"].weight[0, 0].item() == 0.1
        z = net.output(batch[0])
        expected = (z - batch[1]).square().sum(1).mean()
        assert net.loss(*batch).item() == pytest.approx(float(expected))

    def test_going_uphill(self, batch):
        net = mlp(minimize=False).module()
        first = net.fit(*batch)
        assert net.fit(*batch) > first

    def test_sum_instead_of_mean(self, batch):
        x, y = batch
        mean, total = mlp().module(), mlp(mini_batch=False).module()
        assert total.loss(x, y).item() == pytest.approx(12 * mean.loss(x, y).item())


class TestTransforms:
    NETS = {
        "mlp": (lambda c: c.layer(Dense(n_in=4, n_out=3)), (4,)),
        "cnn": (
            lambda c: (
                c.input_type(InputType.convolutional(8, 8, 2))
                .layer(Convolution2D(n_out=3, kernel_size=3, activation="rationaltanh"))
                .layer(Subsampling(kernel_size=2))
                .layer(BatchNormalization())
            ),
            (2, 8, 8),
        ),
        "rnn": (
            lambda c: (
                c.input_type(InputType.recurrent(3))
                .layer(LSTM(n_out=4, activation="tanh"))
                .layer(GlobalPooling(pooling_type="avg"))
            ),
            (3, 6),
        ),
    }

    @pytest.mark.parametrize("name", list(NETS))
    def test_compile_and_export(self, name):
        add, shape = self.NETS[name]
        net = add(builder("float")).layer(Output(n_out=2)).build().module().eval()
        x = torch.rand(3, *shape)
        expected = net.output(x)
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        # torch 2.11 cannot save for a backward pass what its own LSTM leaves empty
        old = torch.__version__.startswith("2.11.") and name == "rnn"
        with torch.set_grad_enabled(not old):
            assert torch.allclose(compiled(x), expected, atol=1e-6)
        exported = torch.export.export(net, (x,)).module()
        assert torch.allclose(exported(x), expected, atol=1e-6)

    def test_autocast(self, batch):
        net = mlp(data_type="float").module()
        x, y = (t.float() for t in batch)
        with torch.autocast("cpu", torch.bfloat16):
            loss = net.loss(x, y)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(net.loss(x, y).item(), rel=0.05)


class TestBadInput:
    def test_wrong_dtype_shape_and_labels(self, batch):
        net = mlp().module()
        before = net.params()
        x, y = batch
        for bad, message in (
            ((x.float(), y), "computes in torch.float64, got torch.float32"),
            ((x, y.argmax(1)), "SPARSE_MCXENT|sparse_mcxent"),
            ((x, y[:, :2]), "labels"),
            ((x, y[:5]), "labels"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                net.fit(*bad)
        with pytest.raises(ValueError, match="labels are missing"):
            net.fit(x)
        assert torch.equal(before, net.params()) and net.clock.iteration == 0

    def test_a_network_without_a_loss(self, batch):
        net = builder().layer(Dense(n_in=4, n_out=3)).build().module()
        assert net.output(batch[0]).shape == (12, 3)
        with pytest.raises(ValueError, match="Dense, has no loss: end the network"):
            net.loss(*batch)

    @pytest.mark.parametrize("exact", [False, True])
    @pytest.mark.parametrize("kind", [Frozen, FrozenWithBackprop])
    def test_what_is_frozen_to_its_end(self, batch, kind, exact):
        """An output that is frozen, and one with nothing to train before it.

        DL4J's SGD then goes on: it counts the iteration, and moves nothing.
        """
        dense = Dense(n_in=4, n_out=3)
        last = kind(underlying=Output(n_in=3, n_out=3))
        loss = LossLayer(activation="softmax", loss="mcxent")
        for layers, message in (
            ((dense, last), f"'layer1', {kind.__name__}, is frozen, and behind a"),
            ((Frozen(underlying=dense), loss), r"nothing to train.*\(layer0\)"),
        ):
            chain, graph = builder(), builder().graph_builder().add_inputs("in")
            for i, layer in enumerate(layers):
                chain.layer(layer)
                graph.add_layer(f"layer{i}", layer, f"layer{i - 1}" if i else "in")
            for conf in (chain.build(), graph.set_outputs("layer1").build()):
                net = conf.module(dl4j_exact=exact)
                assert net.output(batch[0]).shape == (12, 3)
                before = net.params()
                if exact and "nothing" in message:
                    expected = net.score(*batch, training=True)
                    assert net.fit(*batch) == pytest.approx(expected, rel=1e-12)
                    net.fit([batch], epochs=2)
                    assert torch.equal(before, net.params())
                    assert (net.clock.iteration, net.clock.epoch) == (3, 2)
                    net.objective(*batch).backward()
                    assert all(p.grad is None for p in net.parameters())
                    continue
                with pytest.raises(ValueError, match=message):
                    net.fit(*batch)
                with pytest.raises(ValueError, match=message):
                    net.lightning().training_step(batch, 0)
                assert torch.equal(before, net.params()) and not net.clock.iteration

    @pytest.mark.parametrize("exact", [False, True])
    @pytest.mark.parametrize("solver", ["STOCHASTIC_GRADIENT_DESCENT", "LBFGS"])
    def test_what_has_no_parameters(self, batch, solver, exact):
        """DL4J's fit does nothing then, counts nothing, and says nothing."""
        x = batch[0][:, :3]
        for layer in (LossLayer(loss="mse"), Frozen(underlying=Dense(n_in=3, n_out=3))):
            chain = (
                builder()
                .optimization_algo(solver)
                .input_type(InputType.feed_forward(3))
            )
            still = isinstance(layer, Frozen)
            if still and exact and solver != "LBFGS":
                continue  # it steps: see above
            chain.layer(layer)
            if still:
                chain.layer(LossLayer(loss="mse"))
            net = chain.build().module(dl4j_exact=exact)
            told = r"no parameter takes .*\(layer0\)" if still else "no parameters; use"
            for fit in (lambda: net.fit(x, x), lambda: net.fit([(x, x)])):  # noqa: B023
                with pytest.raises(ValueError, match=f"nothing to train: .*{told}"):
                    fit()
            assert (net.clock.iteration, net.clock.epoch) == (0, 0)

    def test_a_layer_without_a_module(self):
        class Lost(Dense):
            pass

        with pytest.raises(ValueError, match="Lost has no module: register"):
            builder().layer(Lost(n_in=2, n_out=2)).build().module()


class TestLossLayer:
    """DL4J's faults, compared with DL4J itself in test_java.py."""

    def net(self, exact, activation="tanh", loss="mse"):
        chain = builder().mini_batch(False).layer(Dense(n_in=4, n_out=3))
        chain.layer(LossLayer(activation=activation, loss=loss))
        return chain.build().module(dl4j_exact=exact)

    def test_exact_mode_divides_no_gradient(self, batch):
        ours, exact = (self.net(e, "softmax", "mcxent") for e in (False, True))
        grads = []
        for net in (ours, exact):
            loss = net.loss(*batch)
            assert float(loss.detach()) == pytest.approx(ours.score(*batch))
            grads.append(torch.autograd.grad(loss, net.nodes[0].layer.weight)[0])
        assert torch.allclose(grads[1], 12 * grads[0])
        assert any("divides LossLayer's score" in line for line in ours.differs())

    def test_exact_mode_scores_a_step_by_its_gradient(self, batch):
        x, y = batch
        ours, exact = self.net(False), self.net(True)
        z = ours.feed_forward(x)[0].requires_grad_()
        criterion = ours.scored[0].criterion
        (g,) = torch.autograd.grad(criterion.score(z, y, average=False), z)
        told = float(criterion.score(g, y).detach())
        assert exact.gradient_and_score(x, y)[1] == pytest.approx(told)
        assert exact.score(x, y) == pytest.approx(ours.fit(x, y))
        assert exact.fit(x, y) == pytest.approx(told)
        assert any("gradient's score" in line for line in ours.differs())


def test_gradient_where_torch_keeps_none(batch):
    net = mlp().module()
    gradient, score = net.gradient_and_score(*batch)
    with torch.no_grad():
        again, told = net.gradient_and_score(*batch)
    assert torch.equal(again, gradient) and told == score
    net.requires_grad_(False)
    frozen, told = net.gradient_and_score(*batch)
    assert told == score and frozen.shape == gradient.shape


def test_series_and_label_masks():
    chain = builder().layer(LSTM(n_in=3, n_out=4, activation="tanh"))
    net = chain.layer(RnnOutput(n_out=2)).build().module()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    y = torch.eye(2, dtype=torch.float64)[torch.randint(2, (2, 5))].transpose(1, 2)
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.float64)
    out = net.output(x, labels_mask=mask)
    assert float(out[0, :, 3:].abs().sum()) == 0
    per_step = -(y * net.output(x).log()).sum(1)
    expected = (per_step * mask).sum() / 2  # by examples, not by steps
    assert net.score(x, y, labels_mask=mask) == pytest.approx(float(expected))


def test_embedding_network():
    chain = builder().layer(Embedding(n_in=7, n_out=4)).layer(Output(n_out=2))
    net = chain.build().module()
    x = torch.tensor([[1], [6], [0]])
    y = torch.eye(2, dtype=torch.float64)[[0, 1, 1]]
    first = net.fit(x, y)
    assert all(net.fit(x, y) < first for _ in range(3))
