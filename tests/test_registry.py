"""Names, aliases, arguments and JSON keys of registered items."""

import dataclasses

import pytest

import dl4py.normalizers  # noqa: F401  they register when they are first used
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
