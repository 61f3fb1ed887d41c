"""Every model file is opened by one function, with all that it holds."""

from __future__ import annotations

import pathlib
import pickle
import warnings
import zipfile
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import dl4py
from dl4py.config import DL4JFormatError
from dl4py.formats import checkpoint, tensors
from dl4py.network import Network
from dl4py.normalizers import Standardize
from tests import catalogue
from tests.networks import examples, mlp

WRITERS = {"ckpt": checkpoint.write, "safetensors": tensors.write}
SHARE = catalogue.names()[::60]


def assert_same(found: Network, net: Network) -> None:
    assert found.conf.to_json() == net.conf.to_json() and found.conf == net.conf
    assert found.params().dtype == net.params().dtype
    assert torch.equal(found.params(), net.params())
    assert torch.equal(found.updater_state(), net.updater_state())
    assert vars(found.clock) == vars(net.clock)
    assert found.dl4j_exact == net.dl4j_exact and not found.training


def fitted(**settings: Any) -> Network:
    net: Network = mlp(**settings).module()
    x, y = examples()
    net.fit([(x, y)], epochs=3)
    net.normalizer = Standardize().fit(x)
    net.conf = dl4py.config.codec.replace(net.conf, iteration_count=3, epoch_count=3)
    return net.eval()


def write(net: Network, path: pathlib.Path) -> None:
    with open(path, "wb") as file:
        WRITERS[path.suffix[1:]](net, file)


@pytest.fixture(params=WRITERS)
def path(request: Any, tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / f"model.{request.param}"


@pytest.mark.parametrize("name", SHARE)
def test_networks_that_dl4j_trained(name: str, path: pathlib.Path) -> None:
    case = catalogue.load(name)
    file = case.file("trained.zip") or case.file("model.zip")
    assert file is not None
    net = dl4py.restore(file)
    write(net, path)
    assert_same(dl4py.load(path), net)


@pytest.mark.parametrize("settings", [{}, {"optimization_algo": "lbfgs"}])
def test_they_train_on(settings: dict[str, Any], path: pathlib.Path) -> None:
    """A solver's curvature comes along too, in these files."""
    net = fitted(**settings)
    write(net, path)
    again = dl4py.load(path)
    assert_same(again, net)
    raw, y = examples()
    assert torch.equal(again.predict(raw), net.predict(raw))
    for one in (net, again):
        one.fit([(raw, y)], epochs=2)
    assert torch.equal(again.params(), net.params())


def test_a_zip(tmp_path: pathlib.Path) -> None:
    net = fitted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dl4py.save(net, tmp_path / "model.any")
    found = dl4py.load(str(tmp_path / "model.any"), dtype="float", dl4j_exact=False)
    assert not found.dl4j_exact and found.params().dtype == torch.float32
    assert found.conf.data_type == "FLOAT" and isinstance(found.normalizer, Standardize)
    assert dl4py.load(tmp_path / "model.any").dl4j_exact


def test_what_is_asked_for_wins(path: pathlib.Path) -> None:
    write(fitted(), path)
    found = dl4py.load(path, torch.float32, dl4j_exact=True)
    assert found.dl4j_exact and found.params().dtype == torch.float32
    assert found.conf.data_type == "FLOAT"


def test_a_trainer_goes_on(tmp_path: pathlib.Path) -> None:
    """From a checkpoint that no Trainer made, its epochs included."""
    net, (x, y) = fitted(), examples()
    path = tmp_path / "model.ckpt"
    write(net, path)
    module = mlp().lightning(package="lightning")
    trainer = lightning.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 12)
    trainer.fit(module, data, ckpt_path=path)
    net.fit([(x, y)], epochs=2)
    assert torch.equal(module.network.params(), net.params())
    assert trainer.current_epoch == 5 == net.clock.epoch
    assert trainer.global_step == 5 == module.network.clock.iteration
    again = type(module).load_from_checkpoint(path, weights_only=True)
    assert isinstance(again.network.normalizer, Standardize)


def test_safetensors_are_plain_tensors(tmp_path: pathlib.Path) -> None:
    net = fitted()
    write(net, tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    weights = {k: t for k, t in found.items() if not k.startswith("optimizer.")}
    assert list(mlp().module().load_state_dict(weights)) == [[], []]
    state = [t for k, t in found.items() if k.startswith("optimizer.")]
    assert sum(t.numel() for t in state) == net.updater_state().numel()


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a file was executed",))


class TestDamaged:
    @pytest.mark.parametrize(
        "data, says",
        [
            (b"", "expected a zip of DL4J's, a Lightning checkpoint or safetensors"),
            (b"PK nothing", "not a zip file"),
            (b"\x05\0\0\0\0\0\0\0{", "not safetensors"),
            (b"\xff" * 8 + b"{}", "not safetensors"),
        ],
    )
    def test_bytes(self, data: bytes, says: str, tmp_path: pathlib.Path) -> None:
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(DL4JFormatError, match=f"^a.zip: {says}"):
            dl4py.load(tmp_path / "a.zip")

    def test_nothing_is_executed(self, tmp_path: pathlib.Path) -> None:
        torch.save({"state_dict": {}, "hyper_parameters": Trap()}, tmp_path / "a.ckpt")
        with pytest.raises(DL4JFormatError, match="torch's safe loader"):
            dl4py.load(tmp_path / "a.ckpt")
        (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Trap()))
        with pytest.raises(DL4JFormatError, match="expected a zip"):
            dl4py.load(tmp_path / "b.ckpt")

    @pytest.mark.parametrize(
        "change, says",
        [
            ({"hyper_parameters": {}}, "a checkpoint of another module"),
            ({"hyper_parameters": {"conf": None}}, "without a registered name"),
            ({"hyper_parameters": {"conf": {"a": 1}}}, "its configuration: "),
            ({"state_dict": {}}, "no parameter 'layers"),
            ({"state_dict": {"network.a": 3}}, "is no tensor"),
            ({"normalizer": "a"}, "normalizer: expected bytes"),
            ({"normalizer": torch.zeros(3).byte()}, "normalizer: byte"),
            ({"optimizer_states": [{}]}, "its optimizer's state: "),
            ({"optimizer_states": [{}, {}]}, "optimizer_states: expected one"),
        ],
    )
    def test_checkpoints(
        self, change: dict[str, Any], says: str, tmp_path: pathlib.Path
    ) -> None:
        write(fitted(), tmp_path / "a.ckpt")
        content = torch.load(tmp_path / "a.ckpt", weights_only=True)
        torch.save({**content, **change}, tmp_path / "a.ckpt")
        with pytest.raises(DL4JFormatError, match=f"^a.ckpt: .*{says}"):
            dl4py.load(tmp_path / "a.ckpt")

    @pytest.mark.parametrize(
        "change, says",
        [
            ({"configuration": "{"}, "its metadata: "),
            ({"configuration": "[]"}, "its configuration: "),
            ({"optimizer": '{"tensor": "x"}'}, "its metadata: "),
            ({"optimizer": "[" * 10**5}, "its metadata: "),
            ({"optimizer": "{}"}, "its metadata: "),
            ({"normalizer": "?"}, "its metadata: "),
            ({"configuration": None}, "no configuration in its metadata"),
        ],
    )
    def test_safetensors(
        self, change: dict[str, Any], says: str, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / "a.safetensors"
        write(fitted(), path)
        with dl4py.extras.need("safetensors", "").safe_open(path, "pt") as file:
            about = {**file.metadata(), **change}
        about = {k: v for k, v in about.items() if v is not None}
        save_file(load_file(path), path, about)
        with pytest.raises(DL4JFormatError, match=f"^a.safetensors: {says}"):
            dl4py.load(path)

    def test_parameters_of_other_shapes(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "a.safetensors"
        write(fitted(), path)
        with dl4py.extras.need("safetensors", "").safe_open(path, "pt") as file:
            about = file.metadata()
        found = load_file(path)
        name = next(k for k in found if k.startswith("layers."))
        for wrong, says in (
            ({name: torch.zeros(1).double()}, "has shape"),
            ({name: found[name].float()}, "parameters of types"),
            ({"more": torch.zeros(1)}, "'more' is no parameter"),
        ):
            save_file({**found, **wrong}, path, about)
            with pytest.raises(DL4JFormatError, match=says):
                dl4py.load(path)

    def test_cut_short(self, path: pathlib.Path) -> None:
        write(fitted(), path)
        data = path.read_bytes()
        for end in np.linspace(0, len(data) - 1, 12).astype(int):
            path.write_bytes(data[:end])
            with pytest.raises(DL4JFormatError):
                dl4py.load(path)

    def test_arguments(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(TypeError, match=r"load\(dl4j_exact=...\)"):
            dl4py.load(tmp_path / "a", dl4j_exact=1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"load\(dtype=...\)"):
            dl4py.load(tmp_path / "a", dtype="int")
        with pytest.raises(FileNotFoundError):
            dl4py.load(tmp_path / "a")
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr("a", "b")
        with pytest.raises(DL4JFormatError, match="no configuration.json"):
            dl4py.load(tmp_path / "b.zip")
