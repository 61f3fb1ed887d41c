"""Pruned and parametrized layers of a built network: trained, scored, saved."""

import copy
import io
import warnings

import lightning
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.data import DataLoader

import dl4py
from dl4py.config import (
    LSTM,
    BatchNormalization,
    Convolution2D,
    Dense,
    GlobalPooling,
    InputType,
    Output,
    RnnOutput,
)
from tests.networks import builder, examples, mlp

WAYS = {
    "prune": lambda m, n: prune.l1_unstructured(m, n, amount=0.4),
    "prune_twice": lambda m, n: (
        prune.l1_unstructured(m, n, amount=0.2),
        prune.random_unstructured(m, n, amount=0.2),
    ),
    "parametrized": lambda m, n: parametrizations.weight_norm(m, n),
    "orthogonal": lambda m, n: parametrizations.orthogonal(m, n),
    "spectral": lambda m, n: parametrizations.spectral_norm(m, n),
    "own": lambda m, n: parametrize.register_parametrization(m, n, Halved()),
    "old_weight_norm": lambda m, n: old(nn.utils.weight_norm, m, n),
    "old_spectral": lambda m, n: old(nn.utils.spectral_norm, m, n),
}


class Halved(nn.Module):
    def forward(self, x):
        return x / 2

    def right_inverse(self, x):
        return x * 2


def old(way, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        way(*args)


def change(net, way, names=("weight",)):
    for layer in net.layers.values():
        for name in names:
            if isinstance(getattr(layer, name, None), nn.Parameter):
                WAYS[way](layer, name)
    return net


def saved(net, warn=True):
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dl4py.save(net, file, allow_difference=True)
    said = [str(w.message) for w in caught]
    assert any("plain parameters of" in line for line in said) == warn
    return dl4py.restore(file, dl4j_exact=net.dl4j_exact)


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def batch():
    return examples()


def plain_sgd(net, x, y, rate, steps):
    """The same network trained by torch alone."""
    net = copy_of(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        labels = nn.functional.log_softmax
        z = x
        for i, layer in enumerate(net.layers.values()):
            for hook in layer._forward_pre_hooks.values():
                hook(layer, ())
            z = nn.functional.linear(z, layer.weight, layer.bias)
            z = torch.tanh(z) if i == 0 else z
        (-(y * labels(z, 1)).sum() / len(x)).backward()
        optimizer.step()
    return net


def copy_of(net):
    """A deep copy, which torch's older ways do not allow with a graph."""
    with torch.no_grad():
        for layer in net.layers.values():
            for hook in layer._forward_pre_hooks.values():
                hook(layer, ())
    return copy.deepcopy(net)


@pytest.mark.parametrize("exact", [False, True])
def test_fit_equals_torch(way, exact, batch):
    x, y = batch
    chain = builder().updater("sgd", lr=0.3)
    chain.layer(Dense(n_in=4, n_out=6, activation="tanh")).layer(Output(n_out=3))
    net = change(chain.build().module(exact), way)
    theirs = plain_sgd(net, x, y, 0.3, 5)
    scores = [net.fit(x, y) for _ in range(5)]
    assert scores[-1] < scores[0]
    torch.testing.assert_close(net.params(), theirs.params(), rtol=1e-12, atol=1e-13)
    assert net.score(x, y) == pytest.approx(theirs.score(x, y), rel=1e-12)


def test_every_number_is_of_the_present_value(way, batch):
    net = change(mlp(l2=0.1).module(), way)
    net.fit(*batch)
    flat, first = net.params(), net.eval().layers["layer0"]
    assert flat.numel() == net.num_params() == 51
    # what the layers compute with
    net.output(batch[0])
    assert torch.equal(flat[:24].reshape(6, 4), first.weight.detach())
    assert net.params().equal(flat)
    twin = mlp(l2=0.1).module()
    twin.set_params(flat)
    # torch's orthogonal weights lie transposed in memory, where sums have another order
    close = {"rtol": 1e-14, "atol": 0}
    torch.testing.assert_close(net.output(batch[0]), twin.output(batch[0]), **close)
    assert net.score(*batch) == pytest.approx(twin.score(*batch), rel=1e-14)
    mine, his = net.gradient_and_score(*batch), twin.gradient_and_score(*batch)
    if "spectral" in way:  # training moves it on
        return
    assert mine[1] == pytest.approx(his[1], rel=1e-14)
    torch.testing.assert_close(mine[0], his[0], rtol=1e-12, atol=1e-14)


def test_saved_is_what_is_computed_with(way, batch):
    net = change(mlp().module(), way, ("weight", "bias")[: 1 + way.startswith("pr")])
    for _ in range(2):
        net.fit(*batch)
    again = saved(net)
    assert torch.equal(again.params(), net.params())
    close = {"rtol": 1e-14, "atol": 0}  # as above
    torch.testing.assert_close(again.output(batch[0]), net.output(batch[0]), **close)
    assert again.updater_state().equal(net.updater_state())
    assert again.clock.iteration == net.clock.iteration == 2
    assert all(
        isinstance(layer.weight, nn.Parameter) for layer in again.layers.values()
    )
    again.fit(*batch)
    saved(again, warn=False)


def check_masks(net):
    """What is pruned is 0 after a step, and nothing else."""
    net.output(torch.zeros(1, 4, dtype=torch.float64))  # torch's hooks compute it
    for layer in net.layers.values():
        for key, mask in layer.named_buffers():
            tensor = getattr(layer, key.removesuffix("_mask"))
            assert (tensor[mask == 0] == 0).all() and (tensor[mask == 1] != 0).all()


class TestPruned:
    def test_what_is_pruned_stays_zero(self, batch):
        for settings in ({}, {"l2": 0.1}, {"weight_decay": 0.1}, {"l1": 0.1}):
            net = change(mlp(**settings).module(), "prune", ("weight", "bias"))
            masks = dict(net.named_buffers())
            assert len(masks) == 4
            for _ in range(3):
                net.fit(*batch)
            check_masks(net)
            file = saved(net)
            zeros = int((net.params() == 0).sum())
            assert zeros == sum(int((m == 0).sum()) for m in masks.values())
            assert int((file.params() == 0).sum()) == zeros

    def test_after_training_has_begun_the_state_goes_on(self, batch):
        net = mlp().module()
        net.fit(*batch)
        before = net.optimizer
        state = net.updater_state()
        change(net, "prune")
        assert net.optimizer is before and net.updater_state().equal(state)
        net.fit(*batch)
        assert net.optimizer is before
        for layer in net.layers.values():
            prune.remove(layer, "weight")
        net.fit(*batch)
        assert net.optimizer is before and (net.params() == 0).sum() == 0

    def test_set_params_keeps_the_mask(self):
        net = change(mlp().module(), "prune")
        net.set_params(torch.ones(51, dtype=torch.float64))
        ones = sum(int(m.sum()) for m in net.buffers()) + 9
        assert int(net.params().sum()) == ones

    def test_constraints(self, batch):
        chain = builder().updater("sgd", lr=1.0)
        chain.constrain_weights(dl4py.config.MaxNorm(max_norm=0.5, dimensions=(0,)))
        chain.layer(Dense(n_in=4, n_out=6)).layer(Output(n_out=3))
        for kind in ("prune", "own"):
            net = change(chain.build().module(), kind)
            net.fit(*batch)
            assert (net.layers["layer0"].weight.norm(dim=1) <= 0.5 + 1e-12).all()
            if kind == "prune":
                check_masks(net)


def test_what_does_not_follow_from_its_value_says_so():
    net = change(mlp().module(), "old_weight_norm")
    with pytest.raises(ValueError, match="computed from weight_g, weight_v, which do"):
        net.set_params(torch.ones(51, dtype=torch.float64))

    class Clamped(nn.Module):
        def forward(self, x):
            return x.clamp(min=0)

    net = mlp().module()
    parametrize.register_parametrization(net.layers["layer0"], "weight", Clamped())
    with pytest.raises(ValueError, match="computed from original, which do not follow"):
        net.set_params(torch.ones(51, dtype=torch.float64))
    net = change(mlp().module(), "parametrized")
    wanted = torch.linspace(0.1, 1, 51, dtype=torch.float64)
    net.set_params(wanted)
    torch.testing.assert_close(net.params(), wanted, rtol=1e-14, atol=0)


def test_no_tensor_of_the_same_shape_has_no_updater_state(batch):
    class Outer(nn.Module):
        def forward(self, a, b):
            return a @ b

        def right_inverse(self, w):
            return w[:, :1], w[:1]

    net = mlp().module()
    parametrize.register_parametrization(
        net.layers["layer0"], "weight", Outer(), unsafe=True
    )
    assert net.fit(*batch) > net.fit(*batch)
    with pytest.raises(
        ValueError, match=r"layer0.weight: none of the tensors .* shape"
    ):
        saved(net)


def test_parametrizing_during_training_makes_the_optimizer_anew(way, batch):
    net = mlp().module()
    net.fit(*batch)
    net.optimizer.param_groups[1]["lr"] = 0.01
    bias = net.layers["layer0"].bias
    state = {k: v.clone() for k, v in net.optimizer.state[bias].items()}
    held = net.optimizer
    change(net, way)
    first = net.score(*batch)
    if "weight_norm" in way or way == "parametrized":
        with pytest.raises(ValueError, match=r"renew_optimizer\(\)"):
            held.step()
    renewed = net.optimizer
    assert all(torch.equal(v, renewed.state[bias][k]) for k, v in state.items())
    assert renewed.param_groups[1]["lr"] == 0.01
    for _ in range(20):
        net.fit(*batch)
    # torch's orthogonal holds signs on a diagonal, from which Adam's old momentum moves
    assert way == "orthogonal" or net.score(*batch) < first
    assert net.clock.iteration == 21
    params = {id(p) for p in net.parameters()}
    assert {id(p) for g in net.optimizer.param_groups for p in g["params"]} == params


@pytest.mark.parametrize("kind", [torch.optim.AdamW, "adam"])
def test_removing_it_again(kind, batch):
    chain = builder().updater(kind, lr=0.05)
    chain.layer(Dense(n_in=4, n_out=6, activation="tanh")).layer(Output(n_out=3))
    net = change(chain.build().module(), "parametrized")
    net.fit(*batch)
    before = net.params()
    for layer in net.layers.values():
        parametrize.remove_parametrizations(layer, "weight")
    torch.testing.assert_close(net.params(), before, rtol=1e-15, atol=0)
    first = net.fit(*batch)
    assert net.fit(*batch) < first
    saved(net, warn=False) if kind == "adam" else None


@pytest.mark.parametrize("algorithm", ["lbfgs", "conjugate_gradient", "hessian_free"])
@pytest.mark.parametrize("exact", [False, True])
def test_solvers(algorithm, exact, batch):
    for kind in ("prune", "parametrized"):
        net = change(mlp(optimization_algo=algorithm, l2=0.01).module(exact), kind)
        first = net.score(*batch)
        for _ in range(3):
            net.fit(*batch)
        assert net.score(*batch) < first
        if kind == "prune":
            check_masks(net)


def test_other_layers():
    """Recurrent, convolutional and normalising ones, and a loss that is not called."""
    net = builder().updater("adam", lr=0.01).layer(LSTM(n_in=3, n_out=4))
    net = net.layer(RnnOutput(n_out=2)).build().module()
    x, y = (
        torch.randn(5, 3, 6).double(),
        torch.eye(2).double()[torch.zeros(5, 6).long()],
    )
    series = net, x, y.transpose(1, 2)
    net = builder().updater("adam", lr=0.01).list()
    for layer in (
        Convolution2D(n_out=3, kernel_size=3),
        BatchNormalization(),
        GlobalPooling(),
        Output(n_out=2),
    ):
        net.layer(layer)
    net = net.input_type(InputType.convolutional(6, 6, 2)).build().module()
    images = (
        net,
        torch.randn(5, 2, 6, 6).double(),
        torch.eye(2).double()[[0, 1, 0, 1, 1]],
    )
    names = ("weight", "recurrent_weight", "gamma")
    for kind in ("prune", "parametrized", "old_weight_norm"):
        for net, x, y in (series, images):
            net = change(copy.deepcopy(net), kind, names[: 3 if kind == "prune" else 2])
            first = net.score(x, y)
            for _ in range(3):
                net.fit(x, y)
            assert net.score(x, y) < first
            again = saved(net)
            assert torch.equal(again.params(), net.params())
            torch.testing.assert_close(again.output(x), net.output(x))


class TestLightning:
    def trainer(self, **options):
        return lightning.Trainer(
            max_epochs=2,
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"enable_checkpointing": False, **options},
        )

    def fit(self, net, batch, **options):
        loader = DataLoader([batch, batch], batch_size=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = self.trainer(**options)
            trainer.fit(net.lightning("lightning"), loader)
        return trainer

    def test_equals_fit(self, way, batch):
        net = change(mlp().module(), way)
        other = copy_of(net)
        self.fit(net, batch)
        other.fit([batch, batch], epochs=2)
        assert torch.equal(net.params(), other.params())

    @pytest.mark.parametrize("permanent", [True, False])
    def test_model_pruning(self, permanent, batch, tmp_path):
        pruning = lightning.pytorch.callbacks.ModelPruning(
            "l1_unstructured",
            amount=0.4,
            make_pruning_permanent=permanent,
            use_lottery_ticket_hypothesis=False,
        )
        net = mlp().module()
        trainer = self.fit(
            net, batch, callbacks=[pruning], enable_checkpointing=True,
            default_root_dir=tmp_path,
        )  # fmt: skip
        zeros = int((net.params() == 0).sum())
        assert zeros > 10 and net.clock.iteration == 4
        again = saved(net, warn=not permanent)
        assert int((again.params() == 0).sum()) == zeros
        assert again.updater_state().abs().sum() > 0
        if permanent:
            path = trainer.checkpoint_callback.best_model_path
            loaded = dl4py.lightning.Network.load_from_checkpoint(path)
            assert int((loaded.network.params() == 0).sum()) > 10
        net.fit(*batch)
