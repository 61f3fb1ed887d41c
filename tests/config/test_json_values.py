"""JSON that DL4J would not write is refused by place; what it does write never is.

Values of the catalogue's own files are replaced one by one, each key of each class
once, so that no list of fields has to be kept here.
"""

import copy
import io
import json
import re
import zipfile

import numpy as np
import pytest
import torch

import dl4py
from dl4py.config import (
    LSTM,
    AlphaDropout,
    Convolution2D,
    Dense,
    DL4JFormatError,
    Dropout,
    InputType,
    MaxNorm,
    NeuralNetConfiguration,
    Output,
    Subsampling,
)
from tests import catalogue
from tests.models.test_catalogue import MISSING, configuration

# what no field declares is kept, whatever it is; names of vertices stand elsewhere too
UNDECLARED = (
    "AlgoMode",
    "Algo",
    "cudnnAllowFallback",
    "Convolution1DLayer.cnn2dDataFormat",
    "Convolution3D.cnn2dDataFormat",
    "Convolution3D.mode",
    "Deconvolution3D.cnn2dDataFormat",
    "AttentionVertex.dataType",
    "AttentionVertex.layerName",
    "AttentionVertex.name",
)
TRANSFER = catalogue.HERE / "data" / "transfer.zip"


def content(**settings):
    chain = NeuralNetConfiguration.builder().seed(12345)
    for name, value in settings.items():
        chain = getattr(chain, name)(value)
    for _ in range(2):
        chain.layer(Dense(n_in=3, n_out=3))
    return chain.layer(Output(n_in=3, n_out=3)).build().to_dict()


def read(given):
    return NeuralNetConfiguration.from_json(json.dumps(given))


def _places(value, owner, path):
    """(class and key, JSON type, path) of every value inside a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    if isinstance(value, dict):
        tag = value.get("@class", value.get("type"))
        owner = tag.rpartition(".")[2] if isinstance(tag, str) else owner
    for key, part in pairs:
        if key in ("@class", "type"):
            continue
        where = f"{owner}.{'[]' if isinstance(key, int) else key}"
        yield where, type(part), (*path, key)
        if isinstance(part, (dict, list)):
            yield from _places(part, where, (*path, key))


@pytest.fixture(scope="module")
def places():
    """(class and key, JSON type) → (a configuration, a path), and what may be null."""
    found, null = {}, set()
    for name in catalogue.copied():
        case = catalogue.load(name)
        if configuration(case) is MISSING:
            continue
        given = json.loads(case.json)
        for where, kind, path in _places(given, "$", ()):
            found.setdefault((where, kind), (given, path))
            if kind is type(None):
                null.add(where)
    return found, null


def refused(given, path, value):
    """The error of a configuration with one value replaced, or ``None``."""
    changed = part = copy.deepcopy(given)
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    try:
        read(changed)
    except DL4JFormatError as error:
        return str(error)
    return None


def accepted(places, kinds, values, but=()):
    found = []
    for (where, kind), (given, path) in places.items():
        if kind not in kinds or where in but or where.endswith(UNDECLARED):
            continue
        for value in values:
            error = refused(given, path, value)
            if error is None:
                found.append((where, value))
            else:
                assert any(str(key) in error for key in path[-5:]), (path, error)
    return found


class TestValues:
    def test_there_is_much_to_replace(self, places):
        assert len(places[0]) > 300 and len(places[1]) > 30

    def test_numbers(self, places):
        """Booleans and text are none; NaN is one only where a schedule stands."""
        values = (True, "x", "NaN", "Infinity", [], {})
        assert not accepted(places[0], (int, float), values)

    def test_null(self, places):
        """Where DL4J never writes it: in numbers, flags and objects."""
        found, null = places
        kinds = (int, float, bool, dict)
        # what a user may leave out
        unset = (".weights", ".idropout", ".initialLearningRate")
        nullable = {*null, *(w for w, _ in found if w.endswith(unset))}
        assert not accepted(found, kinds, (None,), nullable)

    def test_objects(self, places):
        """The builder's short forms are no JSON of DL4J's."""
        values = (True, 0, 0.5, "relu", [], {"@class": "MSE", "x": 1})
        skipped = {"$.inputPreProcessors", "MapSchedule.values"}
        assert not accepted(places[0], (dict,), values[:4], skipped)

    def test_words(self, places):
        rates = {w for w, kind in places[0] if kind is float}  # "NaN"
        free = {
            w
            for w, k in places[0]
            if k is str and w.endswith(("Format", ".format", "Name"))
        }
        assert not accepted(places[0], (str,), (True, 0, [], {}), rates)
        assert not accepted(places[0], (str,), (None,), free | places[1])

    def test_whole_numbers_fit_in_java(self, places):
        assert not accepted(places[0], (int,), (1e308, 2**63, -(2**63) - 1, 0.5))

    def test_what_is_beside_a_schedule(self):
        given = content(seed=1)
        step = {"@class": "FixedSchedule", "value": 0.1}
        rate = {"@class": "Sgd", "learningRate": "NaN", "learningRateSchedule": step}
        for value, good in (("NaN", True), (0.5, True), (True, False), ([], False)):
            given["confs"][0]["layer"]["iupdater"] = {**rate, "learningRate": value}
            assert (refused(given, ("seed",), 1) is None) == good
        given["confs"][0]["layer"]["iupdater"] = {**rate, "learningRateSchedule": 0.5}
        with pytest.raises(DL4JFormatError, match="Schedule: must be a schedule"):
            read(given)
        drop = {"@class": "org.deeplearning4j.nn.conf.dropout.Dropout", "p": "NaN"}
        given = content(seed=1)
        given["confs"][0]["layer"]["idropout"] = {**drop, "pschedule": step}
        assert read(given).layers[0].dropout.p_schedule(0) == 0.1
        given["confs"][0]["layer"]["idropout"] = {**drop, "pschedule": None}
        with pytest.raises(DL4JFormatError, match="idropout: .*number or a schedule"):
            read(given)
        with pytest.raises(ValueError, match="number or a schedule, got nan"):
            Dropout(float("nan"))

    def test_in_python_too(self):
        for make in (
            lambda: AlphaDropout(0.5, alpha=True),
            lambda: Dropout(0.5, p_schedule=0.5),
            lambda: dl4py.activations.get("elu", alpha=True),
            lambda: dl4py.losses.get("fmeasure", beta=True),
            lambda: dl4py.losses.get("mixture_density", gaussians=1.5, labels=1),
            lambda: dl4py.schedules.get("map", values={0: True}),
            lambda: MaxNorm(dimensions=[0.5]),
            lambda: MaxNorm(dimensions=[]),
            lambda: Dense(n_in=1, n_out=1, dropout=False).resolved({}),
        ):
            with pytest.raises(ValueError, match="must be"):
                make()

    def test_numbers_that_follow_from_others(self):
        cycle = dl4py.schedules.get("cycle", max_learning_rate=0.5, cycle_length=10)
        given = content(seed=1)
        sgd = dl4py.config.codec.encode(dl4py.registry.UPDATERS.named("sgd", lr=cycle))
        given["confs"][0]["layer"]["iupdater"] = sgd
        assert read(given)
        sgd["learningRateSchedule"]["stepSize"] += 1
        with pytest.raises(DL4JFormatError, match="stepSize: must be 4, which follows"):
            read(given)

    @pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity", "", "None"])
    def test_a_layer_may_have_any_name(self, name):
        given = content(seed=1)
        given["confs"][0]["layer"]["layerName"] = name
        assert read(given).layers[0].name == name
        assert read(given).to_dict() == given

    def test_a_missing_seed(self):
        given = content(seed=1)
        for conf in given["confs"]:
            del conf["seed"]
        with pytest.raises(DL4JFormatError, match=r"\$.confs\[0\].seed: must be given"):
            read(given)

    @pytest.mark.parametrize("seed", [-(2**63), 2**63 - 1])
    def test_seeds_fit_in_javas_long(self, seed):
        assert read(content(seed=seed)).module().conf.seed == seed
        with pytest.raises(ValueError, match="seed: must be a whole number"):
            content(seed=seed + (1 if seed > 0 else -1))

    def test_sizes_beyond_any_memory_name_their_layer(self):
        lstm = LSTM(n_in=1, n_out=2**40, name="vast")
        conf = NeuralNetConfiguration.builder().layer(lstm).build()
        with pytest.raises(
            DL4JFormatError, match=r"json: \$: vast \(LSTM\): .*overflow"
        ):
            dl4py.restore(zipped(conf))


def zipped(conf):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("configuration.json", conf.to_json())
    return file


class TestWindows:
    @pytest.mark.parametrize("kind", [Convolution2D, Subsampling])
    @pytest.mark.parametrize(
        "fields",
        [
            {"padding": 10**5},
            {"kernel_size": 2, "dilation": 10**8, "convolution_mode": "Same"},
            {"kernel_size": (2**20, 2**20)},
        ],
    )
    def test_margins_of_gigabytes(self, kind, fields):
        chain = NeuralNetConfiguration.builder()
        chain.input_type(InputType.convolutional(6, 6, 1))
        sized = {"n_out": 1} if kind is Convolution2D else {}
        chain.layer(kind(**sized, **fields))
        with pytest.raises(
            ValueError, match="windows and margins of at most 16,777,216"
        ):
            chain.build()

    @pytest.mark.parametrize("field", ["stride", "padding", "dilation", "kernelSize"])
    def test_what_java_cannot_hold(self, field):
        chain = NeuralNetConfiguration.builder().seed(1)
        given = chain.layer(Subsampling(kernel_size=2)).build().to_dict()
        given["confs"][0]["layer"][field] = [1, 2**31]
        with pytest.raises(DL4JFormatError, match=rf"layer.{field}: .* below 2\^31"):
            read(given)

    def test_what_dl4j_computes_is_computed(self):
        x = torch.rand(1, 1, 6, 6)
        for fields in ({"stride": 2**31 - 1}, {"padding": 10}):
            pool = Subsampling(kernel_size=2, **fields)
            chain = NeuralNetConfiguration.builder().layer(pool)
            net = read(chain.seed(1).build().to_dict()).module()
            assert net.output(x).amax() == (
                x.amax() if "padding" in fields else x[..., :2, :2].amax()
            )


class TestContradictions:
    """DL4J repeats the network's settings beside every layer; the first one counts."""

    @pytest.mark.parametrize(
        "key, value",
        [
            ("seed", 7),
            ("optimizationAlgo", "LBFGS"),
            ("miniBatch", False),
            ("minimize", False),
            ("maxNumLineSearchIterations", 9),
            ("stepFunction", {"default": {}}),
            ("cacheMode", "DEVICE"),
        ],
    )
    def test_are_refused_by_place(self, key, value):
        given = content(seed=12345)
        given["confs"][1][key] = value
        place = re.escape(f"$.confs[1].{key}: must be ")
        with pytest.raises(
            DL4JFormatError, match=rf"{place}.* as in \$.confs\[0\], got"
        ):
            read(given)

    def test_what_transfer_learning_leaves(self):
        """Layers that it adds have the builder's defaults, and the time as seed."""
        given = content(
            mini_batch=False,
            optimization_algo="LBFGS",
            max_num_line_search_iterations=7,
            data_type="double",
        )
        given["confs"][2].update(
            seed=1795853106062,
            miniBatch=True,
            optimizationAlgo="STOCHASTIC_GRADIENT_DESCENT",
            maxNumLineSearchIterations=5,
            dataType="FLOAT",
        )
        conf = read(given)
        assert (conf.seed, conf.optimization_algo) == (12345, "LBFGS")
        assert not conf.mini_batch and conf.data_type == "DOUBLE"
        assert conf.to_dict() == given  # nothing is lost
        assert read(conf.to_dict()) == conf

    def test_what_dl4j_wrote_after_transfer_learning(self):
        """It divides the score as the new output says, gradients as the network."""
        with zipfile.ZipFile(TRANSFER) as archive:
            model = io.BytesIO(archive.read("model.zip"))
            case = np.load(io.BytesIO(archive.read("case.npz")))
        net = dl4py.restore(model)
        x, y = torch.from_numpy(case["x"]), torch.from_numpy(case["y"])
        gradient, score = net.gradient_and_score(x, y)
        assert np.abs(gradient.numpy() - case["gradient"]).max() < 1e-12
        assert abs(score - case["score"]) < 1e-12
        scores = [net.fit(x, y) for _ in case["scores"]]
        assert np.abs(np.array(scores) - case["scores"]).max() < 1e-12
        assert np.abs(net.params().numpy() - case["params"]).max() < 1e-12

    def test_counts_and_types_may_differ(self):
        given = content(seed=1)
        given.update(iterationCount=9, epochCount=3)
        given["confs"][1].update(dataType="DOUBLE", iterationCount=4)
        conf = read(given)
        assert (conf.iteration_count, conf.epoch_count) == (9, 3)
        assert conf.to_dict() == given

    def test_graphs(self):
        builder = NeuralNetConfiguration.builder().seed(5).mini_batch(False)
        graph = builder.graph_builder().add_inputs("in")
        graph.add_layer("a", Dense(n_in=2, n_out=2), "in")
        graph.add_layer("out", Output(n_in=2, n_out=2), "a").set_outputs("out")
        given = graph.build().to_dict()
        around = given["vertices"]["out"]["layerConf"]
        around.update(seed=1795853106062, miniBatch=True)
        conf = read(given)
        assert conf.to_dict() == given and conf.divides(0, "out")
        around["seed"] = 6
        with pytest.raises(DL4JFormatError, match=r"\$.vertices.out.layerConf.seed"):
            read(given)

    @pytest.mark.parametrize("name", ["updater_Adam", "lstm", "batchnorm"])
    def test_trained_files_are_written_back(self, name):
        file = catalogue.load(name).file("trained.zip")
        theirs = json.loads(zipfile.ZipFile(file).read("configuration.json"))
        assert theirs["iterationCount"] > theirs["confs"][0]["iterationCount"] == 0
        again = io.BytesIO()
        dl4py.save(dl4py.restore(file), again)
        ours = json.loads(zipfile.ZipFile(again).read("configuration.json"))
        assert ours == theirs

    def test_names_of_parameters(self):
        given = content(seed=1)
        given["confs"][0]["variables"] = []  # of a network that never had parameters
        assert read(given).to_dict() == given
        for bad in (None, {}, "W", [1], ["W", None]):
            given["confs"][0]["variables"] = bad
            with pytest.raises(
                DL4JFormatError, match=r"confs\[0\].variables: .*a list"
            ):
                read(given)


class TestStepFunctions:
    @pytest.mark.parametrize(
        "word", ["negativeDefault", "default", "negativeGradient", "gradient"]
    )
    def test_as_dl4j_writes_them(self, word):
        given = content(optimization_algo="LBFGS")
        for conf in given["confs"]:
            conf["stepFunction"] = {word: {}}
        conf = read(given)
        assert conf.to_dict() == given
        steps = conf.module().optimizer.solution.step_function
        assert steps == word.lower()
        java = f"org.deeplearning4j.nn.conf.stepfunctions.{word}StepFunction"
        for name in (word, java, f"{word}StepFunction", {word: {}}):
            built = content(optimization_algo="LBFGS", step_function=name)
            assert built["confs"][0]["stepFunction"] == {word: {}}

    @pytest.mark.parametrize("bad", [True, 1, [], {}, {"steep": {}}, "x"])
    def test_others(self, bad):
        given = content(seed=1)
        for conf in given["confs"]:
            conf["stepFunction"] = bad
        with pytest.raises(DL4JFormatError, match=r"confs\[0\].stepFunction: must be"):
            read(given)
