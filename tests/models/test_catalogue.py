"""Networks of the catalogue whose layers exist compute what the real DL4J computed.

Compared are the configuration's JSON, the output, every layer's activations, gradient
and score of a batch, and parameters, updater state and scores after the recorded fits.
"""

import copy
import json
import os

import numpy as np
import pytest
import torch

from dl4py import NativeRandom
from dl4py.config import DL4JFormatError, NeuralNetConfiguration
from tests import catalogue

DTYPES = {"DOUBLE": torch.float64, "FLOAT": torch.float32, "HALF": torch.float16}
COMPUTED = {"DOUBLE": 1e-10, "FLOAT": 1e-5, "HALF": 2e-3}  # of the largest entry
STEPPED = {"DOUBLE": 1e-9, "FLOAT": 1e-4, "HALF": 4e-3}
MISSING = None

# what is not compared, and why: DL4J failed, or the number is not what its name says
NOT_COMPARED = {
    "activation_layer": (
        {"layers/00_DenseLayer"},
        "DL4J overwrote the recorded activations of the layer before",
    ),
    **dict.fromkeys(
        ("prelu", "prelu_cnn", "prelu_cnn_shared"),
        (
            {"layers/00_DenseLayer", "layers/00_ConvolutionLayer"},
            "DL4J overwrote the recorded activations of the layer before",
        ),
    ),
    **dict.fromkeys(
        ("graph_resnet_block", "graph_resnet_block_float"),
        (
            {"layers/01_bn1"},
            "DL4J overwrote the recorded activations by the next layer's",
        ),
    ),
    "fmask_cnn_subsampling_globalpool_max": (
        {"out", "layers", "gradient", "steps"},
        "a mask [n, 1, h, 1] before a stride of 2: DL4J pools past the mask's end",
    ),
    "lmask_ff_per_output_MCXENT": (
        {"out", "layers/01_OutputLayer"},
        "DL4J refuses the mask in training and left the recorded output unmasked",
    ),
    "act_RRELU_test": (
        {"gradient", "score", "epsilon", "steps"},
        "training slopes came from a generator in a state that is not recorded",
    ),
    "dist_lstm_Orthogonal": (
        {"initial"},
        "a matrix wider than high: the basis is that of ND4J's linear algebra",
    ),
    **dict.fromkeys(
        (
            "transfer_feature_extractor",
            "transfer_graph",
            "transfer_nout_replace",
            "transfer_replace_output",
        ),
        ({"initial"}, "parameters are those of the network that was there before"),
    ),
    **dict.fromkeys(
        ("schedule_EPOCH_Ramp", "schedule_ITERATION_Ramp"),
        ({"all"}, "DL4J writes a RampSchedule without its fields"),
    ),
}


def reason(name, part):
    parts, why = NOT_COMPARED.get(name, (set(), ""))
    return why if part in parts or "all" in parts else ""


def listed(name):
    """Whether a part of the case is not compared, for a reason given here."""
    return bool(NOT_COMPARED.get(name))


def configuration(case):
    """The configuration, or MISSING where DL4J itself wrote a part that is not one."""
    try:
        return NeuralNetConfiguration.from_json(case.json)
    except DL4JFormatError:
        if not reason(case.name, "all"):
            raise
        return MISSING


def assert_close(ours, theirs, tolerance, what):
    ours = np.asarray(ours, dtype=float)
    assert ours.shape == theirs.shape, what
    scale = np.abs(theirs).max(initial=1e-30)
    error = np.abs(ours - theirs).max(initial=0.0) / scale
    assert error <= tolerance, f"{what}: off by {error:.1e} of the largest entry"


class Run:
    """One case: a network with DL4J's parameters and its batch."""

    def __init__(self, case, conf):
        self.case, self.arrays = case, case.arrays
        self.dtype = DTYPES[case.meta["dtype"]]
        self.net = conf.module(dl4j_exact=True)
        self.net.set_params(self.tensor("params"))
        ins, outs = len(self.net.plan.inputs), len(self.net.plan.outputs)
        self.x, self.y = self.tensors("in", ins), self.tensors("labels", outs)
        self.masks = self.tensors("fmask", ins), self.tensors("lmask", outs)
        self.compared = []

    def tensors(self, key, count):
        """What stands for several inputs or outputs: a tuple, a single one plain."""
        found = tuple(self.tensor(f"{key}_{i}") for i in range(count))
        return found if count > 1 else found[0]

    def tensor(self, key):
        if key not in self.arrays:
            return None
        return torch.from_numpy(np.array(self.arrays[key])).to(self.dtype)

    def check(self, key, ours, tolerance):
        if key in self.arrays:
            name = self.case.name
            theirs = self.arrays[key]
            if key.startswith("updater_after"):
                theirs = theirs.reshape(-1)
            assert_close(ours, theirs, tolerance, f"{name}: {key}")
            self.compared.append(key)

    def initial(self):
        """Drawn from the configuration's seed alone, equal to the last bit."""
        before = self.net.params()
        self.net.reset_parameters(NativeRandom(self.net.conf.seed))
        ours, theirs = self.net.params(), self.tensor("params").view(-1)
        if "Orthogonal" in self.case.name:  # but for the signs of columns
            tolerance = {"DOUBLE": 1e-12, "FLOAT": 1e-6}[self.case.meta["dtype"]]
            assert_close(ours.abs(), theirs.abs().numpy(), tolerance, "parameters")
        else:
            assert torch.equal(ours, theirs)
        self.net.set_params(before)
        self.compared.append("params")

    def seed(self):
        """What DL4J did before this part, where it draws."""
        if self.case.meta["seed"] is not None:
            self.net.set_noise(NativeRandom(self.case.meta["seed"]))

    def outputs(self, key="out", tolerances=COMPUTED):
        self.seed()
        found = self.net.output(self.x, *self.masks)
        for i, y in enumerate(found if isinstance(found, tuple) else (found,)):
            self.check(f"{key}_{i}", y, tolerances[self.case.meta["dtype"]])

    def layers(self, without=()):
        self.seed()
        tolerance = COMPUTED[self.case.meta["dtype"]]
        keys = sorted(k for k in self.arrays if k.startswith("layers/"))
        ours = self.net.feed_forward(self.x, *self.masks)
        if isinstance(ours, dict):  # a graph's: DL4J's order is its own
            ours = [ours[key.partition("_")[2]] for key in keys]
        for key, activations in zip(keys, ours, strict=True):
            listed = reason(self.case.name, key)
            if not listed and key[: len("layers/00")] not in without:
                self.check(key, activations, tolerance)

    def gradient(self):
        if "gradient" not in self.arrays:
            return
        tolerance = COMPUTED[self.case.meta["dtype"]]
        before = self.net.params()
        self.seed()
        g, score = self.net.gradient_and_score(self.x, self.y, *self.masks)
        self.check("gradient", g, tolerance)
        self.check("score", [score], tolerance)
        assert torch.equal(before, self.net.params())

    def epsilon(self):
        """The gradient at the input, of the examples' sum as DL4J has it.

        Where a series has a mask and its labels have none, DL4J masks the loss here,
        though not when it trains.
        """
        if "epsilon_0" not in self.arrays:
            return
        dtype = self.case.meta["dtype"]
        # rounded by every layer on its way back: halves are then 2 or 3 units off
        tolerance = (STEPPED if dtype == "HALF" else COMPUTED)[dtype]
        x = self.x.clone().requires_grad_()
        self.seed()
        before = copy.deepcopy(self.net.state_dict())
        self.net.train()
        shown, labelled = self.masks
        if labelled is None and self.y.dim() == 3:
            labelled = shown
        count = len(self.y) if self.net.conf.mini_batch else 1
        (count * self.net.objective(x, self.y, shown, labelled)).backward()
        self.net.eval()
        self.net.optimizer.zero_grad()
        self.net.load_state_dict(before)
        self.check("epsilon_0", x.grad, tolerance)

    def time_steps(self):
        """Pieces of a series in turn."""
        tolerance = COMPUTED[self.case.meta["dtype"]]
        for i in range(sum(key.startswith("step_in_") for key in self.arrays)):
            y = self.net.rnn_time_step(self.tensor(f"step_in_{i}"))
            self.check(f"step_{i}", y, tolerance)

    def vae(self):
        """What a variational autoencoder says of its input; draws where at hand."""
        if "vae_z" not in self.arrays:
            return
        tolerance = COMPUTED[self.case.meta["dtype"]]
        (layer, *_) = self.net.layers.values()
        layer.eval()
        x, z = self.x, self.tensor("vae_z")
        with torch.no_grad():
            self.check("vae_generate_at_mean", layer.generate_at_mean(z), tolerance)

            def log_p(draws):
                return layer.reconstruction_log_probability(x, draws).unsqueeze(1)

            for key, draw in {
                "generate_random": lambda: layer.generate_random(z),
                "log_probability_1": lambda: log_p(1),
                "log_probability_5": lambda: log_p(5),
                "probability_5": lambda: log_p(5).exp(),
            }.items():
                layer.noise = NativeRandom(123)
                self.check(f"vae_{key}", draw(), tolerance)

    def pretraining(self):
        """The first layer on the input alone, three times."""
        told = self.case.meta.get("pretrain_scores")
        if told is None:
            return
        tolerance = STEPPED[self.case.meta["dtype"]]
        (layer, *_) = self.net.layers.values()
        layer.noise = NativeRandom(123)
        scores = []
        for k in (1, 2, 3):
            scores.append(self.net.pretrain_layer(0, self.x))
            self.check(f"pretrain_params_{k}", self.net.params(), tolerance)
        theirs = np.array(told.split(), float)
        assert_close(scores, theirs, tolerance, f"{self.case.name}: pretrain_scores")
        layer.noise = self.net.noise
        self.net.set_params(self.tensor("params"))  # DL4J trained another copy

    def steps(self):
        meta = self.case.meta
        tolerance = STEPPED[meta["dtype"]]
        scores = []
        self.seed()
        for k in range(1, meta["fits"] + 1):
            batch = (self.x, self.y, *self.masks)
            fit = self.net.fit
            scores.append(fit([batch]) if meta["epochs"] else fit(*batch))
            self.check(f"params_after_{k}", self.net.params(), tolerance)
            self.check(f"updater_after_{k}", self.net.updater_state(), tolerance)
            if f"out_after_{k}_0" in self.arrays:
                self.outputs(f"out_after_{k}", STEPPED)
        self.check("scores", scores, tolerance)


@pytest.mark.parametrize("name", catalogue.names())
def test_equals_dl4j(name):
    case = catalogue.load(name)
    conf = configuration(case)
    if conf is MISSING:
        pytest.skip(reason(name, "all"))
    ours, theirs = json.loads(conf.to_json()), json.loads(case.json)
    assert ours == theirs and json.dumps(ours) == json.dumps(theirs)  # keys' order
    run = Run(case, conf)
    parts = {
        "initial": run.initial,
        "out": run.outputs,
        "layers": run.layers,
        "gradient": run.gradient,
        "epsilon": run.epsilon,
        "pretraining": run.pretraining,
        "vae": run.vae,
        "time_steps": run.time_steps,
    }
    if case.meta["trains"]:
        parts["steps"] = run.steps
    for part, check in parts.items():
        if not reason(name, part):
            check()
    assert run.compared or reason(name, "all")


def test_nothing_is_left_out_unseen():
    """Every case is read and compared, but for what is listed with its reason."""
    names = catalogue.names()
    unread = {n for n in names if configuration(catalogue.load(n)) is MISSING}
    if catalogue.WHOLE.is_dir():
        assert len(names) == 642 and set(NOT_COMPARED) <= set(names)
        assert set(catalogue.copied()) == set(names) - unread


def test_catalogue_is_there_in_ci():
    if not catalogue.WHOLE.is_dir():
        if os.environ.get("CI"):
            pytest.fail("the whole catalogue must be at hand in CI: set DL4PY_SHARED")
        pytest.skip("the whole catalogue is not at hand; its copy was used")
