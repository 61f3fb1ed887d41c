"""A network's random numbers: torch's or ND4J's, and checkpoints that go on."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor

from dl4py import NativeRandom, NeuralNetConfiguration, config, weight_init
from dl4py.network import Network


def chain(*layers: Any, seed: int = 5) -> Any:
    builder = NeuralNetConfiguration.builder().seed(seed).updater("adam", lr=0.05)
    for layer in layers:
        builder = builder.layer(layer)
    return builder.build()


def noisy() -> Any:
    """One of each kind of draw while training."""
    noise = config.WeightNoise(weight_init.NormalDistribution(0.0, 0.05))
    return chain(
        config.Dense(n_in=4, n_out=8, dropout=0.7, activation="rrelu"),
        config.Dense(n_in=8, n_out=8, weight_noise=config.DropConnect(0.8)),
        config.Dense(n_in=8, n_out=8, weight_noise=noise),
        config.Output(n_in=8, n_out=3, dropout=config.GaussianNoise(0.1)),
    )


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
Y = torch.eye(3)[torch.arange(6) % 3]


def trained(net: Network, steps: int) -> Tensor:
    for _ in range(steps):
        net.fit(X, Y)
    return net.params()


def built() -> Network:
    net: Network = noisy().module(noise=NativeRandom(5))
    return net


def test_all_draws_come_from_the_given_noise() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b = trained(built(), 3), trained(built(), 3)
    assert torch.equal(a, b) and torch.equal(torch.get_rng_state(), before)
    other = built()
    other.set_noise(NativeRandom(6))
    assert torch.equal(other.params(), built().params())
    assert not torch.equal(trained(other, 3), a)


def test_torchs_generator_is_the_default() -> None:
    net = noisy().module()
    assert not net.noise.native
    torch.manual_seed(1)
    a = trained(net, 2)
    again = noisy().module()
    torch.manual_seed(1)
    assert torch.equal(trained(again, 2), a)
    net.set_noise(torch.Generator().manual_seed(3))
    assert net.noise.generator is not None
    net.set_noise(None)
    assert net.noise.generator is None


def test_state_dict_goes_on_as_if_never_left() -> None:
    net = built()
    trained(net, 2)
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "steps": net.optimizer.state_dict()}, file)
    expected = trained(net, 3)
    for fresh in (built(), noisy().module()):  # with a generator of its own, or none
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        fresh.load_state_dict(saved["net"])
        fresh.optimizer.load_state_dict(saved["steps"])
        assert torch.equal(trained(fresh, 3), expected)


def test_copies_have_a_generator_of_their_own() -> None:
    net = built()
    other = copy.deepcopy(net)
    expected = trained(net, 2)
    assert torch.equal(trained(other, 2), expected)


def test_without_it_state_dicts_are_as_ever() -> None:
    net = noisy().module()
    assert "noise" not in net.state_dict()
    other = built()
    state = other.noise.get_state()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.noise.get_state(), state)


def test_under_a_trainer(tmp_path: Any) -> None:
    lightning = pytest.importorskip("lightning")
    rows = torch.utils.data.TensorDataset(X, Y)
    loader = torch.utils.data.DataLoader(rows, batch_size=3)

    def run(model: Any, epochs: int, path: Any = None) -> Any:
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(model, loader, ckpt_path=path, weights_only=True if path else None)
        return trainer

    whole = built().lightning()
    run(whole, 2)
    half = built().lightning()
    run(half, 1).save_checkpoint(tmp_path / "half.ckpt")
    resumed = noisy().module().lightning()
    run(resumed, 2, tmp_path / "half.ckpt")
    assert torch.equal(resumed.network.params(), whole.network.params())


def test_a_function_of_torch_draws_too() -> None:
    layer = config.Dense(n_in=4, n_out=8, weight_init=torch.nn.init.kaiming_normal_)
    conf = chain(layer, config.Output(n_in=8, n_out=3))
    a, b = (conf.module(noise=NativeRandom(7)).params() for _ in range(2))
    assert torch.equal(a, b)


def test_a_frozen_layer_has_no_noise() -> None:
    inside = config.Dense(n_in=4, n_out=4, dropout=0.5, activation="identity")
    net = chain(config.Frozen(underlying=inside), config.Output(n_out=3)).module()
    net.train()
    seen: list[Tensor] = []
    (frozen, _) = net.layers.values()
    frozen.register_forward_hook(lambda *given: seen.append(given[2].detach()))
    net.fit(X, Y)
    net.fit(X, Y)
    assert torch.equal(*seen)


@pytest.mark.parametrize("noise", [42, "dl4j", NativeRandom])
def test_bad_input(noise: Any) -> None:
    net = built()
    before = net.noise
    for call in (net.set_noise, lambda noise: noisy().module(noise=noise)):
        with pytest.raises(TypeError, match="expected a dl4py.NativeRandom"):
            call(noise)
    assert net.noise is before
