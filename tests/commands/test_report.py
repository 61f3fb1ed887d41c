"""``dl4py report``: one page, seen by a browser."""

import json
import os
import pathlib

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import dl4py.lightning
from dl4py import data
from dl4py.commands.cli import main
from dl4py.commands.demo import configuration
from dl4py.commands.report import charts
from dl4py.commands.report.run import Run
from dl4py.training.journal import FILE
from tests import browser

SECTIONS = [
    "score",
    "update-to-parameter-ratios",
    "activations-gradients-updates",
    "evaluation",
    "roc-and-calibration",
    "layers",
    "weights",
    "learning-rates-and-speed",
]
# of every chart: how much of its width and height what is drawn there covers
COVERED = """
[...document.querySelectorAll('svg.chart')].map(svg => {
  const frame = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll('.line, .bar, .hit, .miss, .dot')]
    .map(mark => mark.getBoundingClientRect())
    .filter(box => box.width + box.height > 0);
  const left = Math.min(...boxes.map(box => box.left));
  const right = Math.max(...boxes.map(box => box.right));
  const top = Math.min(...boxes.map(box => box.top));
  const bottom = Math.max(...boxes.map(box => box.bottom));
  return [svg.getAttribute('aria-label'), frame.width, frame.height,
          (right - left) / frame.width, (bottom - top) / frame.height];
})
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run on Iris."""
    folder = tmp_path_factory.mktemp("run")
    x, y = data.iris()
    x = (x - x.mean(0)) / x.std(0)
    rows = TensorDataset(x, y)
    batches = DataLoader(rows, batch_size=30, shuffle=True)
    stats = dl4py.lightning.StatsCallback(every=5, folder=folder)
    torch.manual_seed(0)
    trainer = lightning.Trainer(
        max_epochs=16,
        accelerator="cpu",
        callbacks=[stats],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(
        configuration().lightning(package="lightning"), batches, DataLoader(rows, 150)
    )
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that folder."""
    (tmp_path / FILE).write_text((trained / FILE).read_text())
    return tmp_path


@pytest.fixture
def page(run, capsys):
    assert main(["report", str(run)]) == 0
    path = pathlib.Path(capsys.readouterr().out.strip())
    assert path == run / "report.html"
    return path


def test_a_browser_shows_every_chart(page, tmp_path):
    if browser.PROGRAM is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium must be at hand in CI: install Debian's chromium")
        pytest.skip("Chromium is not at hand")
    with browser.Browser(tmp_path / "profile") as chromium:
        for width, dark in ((1280, False), (400, True)):
            chromium.open(page, width, dark)
            found = chromium.evaluate(COVERED)
            assert len(found) == 15
            for label, *frame, across, upwards in found:
                assert min(frame) > 60, label
                assert 0.5 < across <= 1 and 0 <= upwards <= 1, label
            rising = [upwards for *_, upwards in found if upwards > 0.3]
            assert len(rising) >= 12  # rates, speed and memory may stay what they are
            shown = chromium.evaluate(
                "[...document.querySelectorAll('section')].map(s => s.id)"
            )
            assert shown == SECTIONS
            assert chromium.evaluate("document.querySelectorAll('.none').length") == 0
            wide = chromium.evaluate("document.documentElement.scrollWidth")
            assert wide <= width  # nothing sticks out
            colour = chromium.evaluate(
                "getComputedStyle(document.body).backgroundColor"
            )
            assert (colour == "rgb(17, 22, 29)") == dark
            shot = tmp_path / f"report-{width}.png"
            chromium.screenshot(shot)
            assert shot.stat().st_size > 20_000
        assert chromium.complaints() == []
        asked = [
            u for u in chromium.requests() if not u.startswith(("data:", "about:"))
        ]
        assert asked == [page.resolve().as_uri()] * 2


def test_the_page_is_whole_and_says_what_it_knows(page):
    text = page.read_text()
    assert "http://" not in text and "https://" not in text and "<script" not in text
    assert "Iris" not in text  # it knows no names of classes
    assert "processes of this run" not in text  # it was one
    for part in (
        "0_W",
        "rationaltanh",
        "nesterovs(lr=0.05",
        "Evaluation Metrics",
        "AUC",
    ):
        assert part in text
    assert text.count("<svg class") == 15


def test_what_is_not_in_a_run_is_a_sentence(run, tmp_path):
    lines = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    lines = [line for line in lines if line["kind"] in ("report", "end")]
    for line in lines:
        line.pop("histograms", None)
    (run / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["report", str(run), "--out", str(run / "a.html")]) == 0
    text = (run / "a.html").read_text()
    for sentence in (
        "No evaluation is in this run",
        "No probabilities were evaluated",
        "The run says nothing about its layers",
        "No histograms are in this run",
    ):
        assert sentence in text
    (run / FILE).write_text("")
    assert main(["report", str(run), "--out", str(run / "b.html")]) == 0
    assert "No iteration has a score" in (run / "b.html").read_text()


def test_a_run_that_was_resumed_goes_on(run):
    first = Run.read(run)
    lines = (run / FILE).read_text().splitlines(keepends=True)
    again = json.dumps({**json.loads(lines[0]), "iteration": 10}) + "\n"
    later = json.dumps({"kind": "end", "iteration": 11, "scores": [[10, 0.5]]}) + "\n"
    (run / FILE).write_text("".join([*lines, again, later]))
    second = Run.read(run)
    assert len(first.score[0]) == 80
    assert second.score[0] == [*first.score[0][:6], 10]  # of the reports at 0 and 5


@pytest.mark.parametrize(
    "prepare, message",
    [
        (lambda run: run / "none", "there is no folder"),
        (lambda run: (run / "a").mkdir() or run / "a", "train with dl4py.Stats"),
        (lambda run: two(run) or run / "two", "holds 2 runs; give one of them"),
        (lambda run: (run / FILE).write_text("x\n") and run, "line 1 is no record"),
        (lambda run: (run / "report.html").write_text("mine") and run, "--force"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(prepare, message, run, capsys):
    assert main(["report", str(prepare(run))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dl4py report: ") and message in error
    assert error.count("\n") == 1
    page = run / "report.html"
    assert not page.exists() or page.read_text() == "mine"


def two(run):
    for name in "ab":
        (run / "two" / name).mkdir(parents=True)
        (run / "two" / name / FILE).write_text("")


def test_force_replaces_the_page(page, run):
    page.write_text("old")
    assert main(["report", str(run), "--force"]) == 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert not list(run.glob(".dl4py*"))


def test_a_model_on_a_file_where_the_run_has_no_evaluation(run, capsys):
    lines = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    lines = [line for line in lines if line["kind"] != "evaluation"]
    (run / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    model, file = run / "m.zip", pathlib.Path(data.__file__).parent / "iris.csv"
    net = configuration().module(dl4j_exact=True)
    dl4py.save(net, model)
    words = ["report", str(run), "--model", str(model), "--data", str(file)]
    assert main(words) == 2  # no labels are named
    assert "a column of words is named by labels" in capsys.readouterr().err
    assert not (run / "report.html").exists()
    assert main([*words, "--labels", "species"]) == 0
    text = (run / "report.html").read_text()
    x, y = data.iris()
    expected = dl4py.Evaluation(3)
    expected.update(net.predict(x), y)
    assert f"{100 * float(expected.accuracy()):.2f} %" in text
    assert text.count("<svg class") == 15 and 'class="none"' not in text
    assert "versicolor" in text and f"{model} on {file}" in text
    capsys.readouterr()
    for some, says in (
        (words[:4], "both or none"),
        ([*words[:2], "--skip", "1"], "no d"),
    ):
        assert main([*some, "--force"]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("where", ["", "none/a.html"])
def test_a_place_for_no_page_is_one_line(where, run, capsys):
    out = run / where
    assert main(["report", str(run), "--out", str(out), "--force"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dl4py report: {out}: ") and error.count("\n") == 1


def test_names_are_escaped_and_gaps_are_gaps():
    curve = charts.Line("<b>&", [0, 1, 2, 3], [1.0, None, 3.0, 4.0])
    text = charts.lines("<i>", [curve], "x", "y")
    assert "<b>" not in text and "&lt;b&gt;&amp;" in text and "&lt;i&gt;" in text
    (path,) = [
        part
        for part in text.split('"')
        if part.startswith("M")
        and "L" in part
        and "V" not in part
        and part.count("M") == 2
    ]
    assert path.count("L") == 1  # 1 alone, then 3 to 4
    assert charts.lines("none", [charts.Line("a", [0], [None])], "x", "y") == ""


def test_a_long_line_keeps_its_extremes():
    ys = [0.0] * 100_000
    ys[777] = 5.0
    points = charts.thinned(charts.Line("a", range(100_000), ys))
    assert len(points) <= charts.POINTS + 2 and (777, 5.0) in points


@pytest.mark.parametrize("low, high", [(0.13, 0.9), (1e-7, 30.0), (2.0, 2.0)])
def test_axes_have_round_ticks(low, high):
    for log in (False, True):
        ticks = charts.axis([low, high], 0, 100, log).ticks(5)
        assert 1 <= len(ticks) <= 9 and ticks == sorted(ticks)
