"""Names of classes go wherever a network goes."""

import json
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest
import torch

import dl4py
from dl4py import config, data
from dl4py.commands.cli import main
from dl4py.config.codec import DL4JFormatError
from dl4py.io.archive import CLASSES

NAMES = ("zwölf", "acht", "neun")  # not in the alphabet's order


def saved(path: pathlib.Path) -> pathlib.Path:
    chain = config.NeuralNetConfiguration.builder().seed(1)
    net = chain.layer(config.Output(n_in=2, n_out=3)).build().module(dl4j_exact=True)
    net.classes = NAMES
    dl4py.save(net, path)
    return path


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    return saved(tmp_path / "m.zip")


@pytest.fixture
def table(model: pathlib.Path) -> pathlib.Path:
    path = model.with_name("d.csv")
    path.write_text("a,b,kind\n1,2,acht\n3,1,neun\n0,5,zwölf\n2,2,acht\n")
    return path


def test_every_kind_of_file_keeps_them(model: pathlib.Path) -> None:
    before = model
    for ending in ("ckpt", "safetensors", "zip"):
        after = model.with_name(f"next.{ending}")
        dl4py.formats.convert(before, after)
        assert dl4py.load(after).classes == NAMES
        before = after
    assert before.read_bytes() == model.read_bytes()
    plain = dl4py.load(model)
    plain.classes = None
    dl4py.save(plain, model.with_name("plain.zip"))
    with zipfile.ZipFile(model.with_name("plain.zip")) as file:
        assert CLASSES not in file.namelist()


def test_exports_name_them(model: pathlib.Path) -> None:
    path = model.with_suffix(".pt2")
    assert dl4py.formats.convert(model, path).about["labels"] == list(NAMES)
    found = dl4py.formats.convert(model, path, labels=["a", "b", "c"], force=True)
    assert found.about["labels"] == ["a", "b", "c"]


def test_java_opens_it(model: pathlib.Path, oracle: Any) -> None:
    folder, x = model.parent, torch.randn(4, 2)
    np.save(folder / "x.npy", x.double().numpy())
    oracle("output", model, folder / "out", folder / "x.npy")
    theirs = torch.from_numpy(np.load(folder / "out/out_0.npy")).float()
    torch.testing.assert_close(dl4py.restore(model).output(x), theirs)


def test_a_table_is_read_in_their_order(table: pathlib.Path, capsys: Any) -> None:
    model = table.with_name("m.zip")
    words = [str(model), str(table), "--labels", "kind"]
    assert main(["evaluate", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    net = dl4py.restore(model)
    assert net.classes == NAMES
    x, y = data.read(table, labels="kind", classes=list(NAMES)).batch(torch.arange(4))
    evaluation = dl4py.Evaluation(labels=list(NAMES))
    evaluation.update(net.predict(x), y)
    assert found["result"] == json.loads(evaluation.to_json())
    out = table.with_name("p.csv")
    assert main(["predict", *words, "--out", str(out)]) == 0
    head, *rows = out.read_text(encoding="utf-8").splitlines()
    assert head == ",".join(["class", *NAMES])
    best = net.predict(x).argmax(1).tolist()
    assert [row.split(",")[0] for row in rows] == [NAMES[i] for i in best]
    capsys.readouterr()
    for command in (["evaluate", *words], ["predict", *words, "--out", "none.csv"]):
        assert main([*command, "--classes", "acht,neun,zwölf"]) == 2
        line = capsys.readouterr().err
        assert "was trained on them in the order zwölf, acht, neun, got acht" in line


def test_they_are_shown_and_compared(model: pathlib.Path, capsys: Any) -> None:
    assert main(["summary", str(model)]) == 0
    assert "classes: zwölf, acht, neun" in capsys.readouterr().out
    net = dl4py.restore(model)
    net.classes = ("a", "b", "c")
    other = model.with_name("o.zip")
    dl4py.save(net, other)
    assert main(["diff", str(model), str(other)]) == 1
    told = capsys.readouterr().out
    assert told == "classes: classes: zwölf, acht, neun against a, b, c\n"


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\xff", '["a", "a"]', "[" * 9999])
def test_a_damaged_entry_is_named(model: pathlib.Path, text: str) -> None:
    with zipfile.ZipFile(model) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content[CLASSES] = text.encode("latin-1")
    with zipfile.ZipFile(model, "w") as file:
        for name, part in content.items():
            file.writestr(name, part)
    with pytest.raises(DL4JFormatError, match=f"m.zip:{CLASSES}: "):
        dl4py.restore(model)


def test_fit_takes_them_from_the_data(table: pathlib.Path) -> None:
    import lightning

    module = config.NeuralNetConfiguration.builder()
    module = module.layer(config.Output(n_in=2, n_out=3)).build().lightning()
    reading = data.Reading(labels="kind", classes=list(NAMES))
    trainer = lightning.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    files = dl4py.lightning.DataModule(str(table), read=reading, batch_size=4)
    trainer.fit(module, datamodule=files)
    assert module.network.classes == NAMES
    reading = data.Reading(labels="kind")  # the alphabet's order
    files = dl4py.lightning.DataModule(str(table), read=reading, batch_size=4)
    with pytest.raises(ValueError, match="trained on them in the order zwölf, acht"):
        trainer.fit(module, datamodule=files)
