"""Names, aliases, arguments and JSON keys of registered items."""

import dataclasses
import re

import pytest
import torch
import torch.nn.functional as F

import dl4py.normalizers  # noqa: F401  they register when they are first used
from dl4py import activations, losses, weight_init
from dl4py.registry import REGISTRIES, Named, Registry, canonical, json_key, option


@pytest.fixture
def registry():
    return Registry("activation", "org.example")


def test_names_ignore_case_space_underscore_and_dash():
    spellings = ("MEAN_ABSOLUTE_ERROR", "mean absolute error", "Mean-Absolute-Error")
    assert len({canonical(s) for s in spellings}) == 1
    assert canonical("DenseLayer") == canonical("dense")
    assert canonical("Layer") == "layer"


def test_item_is_found_by_key_alias_and_java_class(registry):
    @registry.add("leakyrelu", "lrelu", java="ActivationLReLU")
    def item(x, alpha=0.1): ...

    for name in ("LEAKYRELU", "leaky_relu", "lrelu", "ActivationLReLU"):
        assert registry[name] is item
    assert registry.entry_of(item).java == "org.example.ActivationLReLU"
    assert registry.by_java("some.other.package.ActivationLReLU").item is item
    assert list(registry) == ["leakyrelu"]


def test_unknown_name_suggests_the_nearest(registry):
    registry.add("softsign")(lambda x: x)
    with pytest.raises(ValueError, match="unknown activation 'softsing': did you mean"):
        registry["softsing"]


def test_a_name_is_registered_once_but_a_cell_may_run_twice(registry):
    def first(x): ...

    registry.add("a")(first)
    registry.add("a")(first)
    with pytest.raises(ValueError, match="'A' is already registered"):
        registry.add("A")(lambda x: x)


def test_arguments_are_checked_against_the_signature():
    activations = REGISTRIES["activation"]
    named = activations.named("LeakyReLU", alpha=0.2)
    assert named == Named("activation", "leakyrelu", (("alpha", 0.2),))
    with pytest.raises(ValueError, match="unknown argument 'alhpa': did you mean"):
        activations.named("leakyrelu", alhpa=0.2)


def test_json_key_is_camel_case_unless_stated():
    @dataclasses.dataclass
    class Example:
        clip_eps: float = 0.1
        n_in: int = option(1, json="nin")

    assert [json_key(f) for f in dataclasses.fields(Example)] == ["clipEps", "nin"]


@pytest.mark.parametrize("kind", [k for k in REGISTRIES if k != "layer module"])
def test_java_classes_are_unique(kind):
    registry = REGISTRIES[kind]
    java = [registry.entry(key).java for key in registry]
    java = [j for j in java if j is not None]
    assert len(java) == len(set(java)) or kind == "weight init"
    assert list(registry), f"nothing is registered as {kind}"


def test_a_name_of_something_else_says_what_differs(registry):
    registry.add("elu", near={"celu relu_e": "its slope differs"})(lambda x: x)
    for name in ("CELU", "Relu-E", "celu_loss"):
        with pytest.raises(ValueError, match="nearest is 'elu'; its slope differs"):
            registry[name]
    registry.add("celu")(abs)  # one's own item may be called so
    assert registry["celu"] is abs


@pytest.mark.parametrize("kind", REGISTRIES)
def test_names_near_an_item_are_of_no_item(kind):
    registry = REGISTRIES[kind]
    assert not [name for name in registry._near if name in registry]


@pytest.mark.parametrize(
    "kind, name, way",
    [
        ("activation", "soft_shrink", "torch.nn.Softshrink"),
        ("loss", "TripletMarginLoss", "torch.nn.TripletMarginLoss"),
        ("updater", "radam", "torch.optim.RAdam"),
        ("weight init", "dirac_", "torch.nn.init.dirac_"),
    ],
)
def test_what_only_torch_has_is_to_be_passed_itself(kind, name, way):
    with pytest.raises(ValueError, match=f"DL4J has none; pass {re.escape(way)} in"):
        REGISTRIES[kind][name]


X = torch.tensor([[-3.0, -0.5, 0.0, 2.0]], dtype=torch.float64)
Y = torch.tensor([[1.0, -2.0, 0.0, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    "name, theirs", [("silu", F.silu), ("linear", torch.nn.Identity())]
)
def test_names_of_the_same_activation(name, theirs):
    torch.testing.assert_close(activations.get(name)(X), theirs(X), rtol=1e-14, atol=0)


def test_names_of_the_same_loss():
    torch.testing.assert_close(losses.get("mse_loss")(X, Y), F.mse_loss(X, Y))


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("xavier_normal", torch.nn.init.xavier_normal_),
        ("glorot_uniform", torch.nn.init.xavier_uniform_),
        ("kaiming_normal", torch.nn.init.kaiming_normal_),
        ("kaiming_uniform", torch.nn.init.kaiming_uniform_),
        ("he_uniform", torch.nn.init.kaiming_uniform_),
        ("zeros", torch.nn.init.zeros_),
    ],
)
def test_names_of_the_same_weight_init(name, theirs):
    ours = weight_init.get(name)
    args = {} if name == "zeros" else {"generator": torch.Generator().manual_seed(1)}
    expected = theirs(torch.empty(30, 20), **args)
    found = ours(torch.empty(30, 20), 20, 30, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, expected)
