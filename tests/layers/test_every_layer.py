"""What every kind of layer promises; a new kind is tested by being registered.

Each kind names a small layer and an input for it (``example()`` of its configuration);
``tests/references/layers.py`` has its formula in NumPy.
"""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

from dl4py.config import ConfigurationError, NeuralNetConfiguration
from dl4py.config.inputs import Recurrent
from dl4py.config.layer import DEFAULTS
from dl4py.layers import Scored, module_of
from dl4py.registry import LAYERS
from tests.references import layers as references

KINDS = list(LAYERS)
SERIES = [k for k in KINDS if isinstance(LAYERS[k].example()[1], Recurrent)]
SERIES = [k for k in SERIES if LAYERS[k].family != "capsules"]  # of DL4J's type


def own(key):
    """Whether the kind is dl4py's: others may stand in the registry."""
    return LAYERS[key].__module__.startswith("dl4py.")


KINDS = [key for key in KINDS if own(key)]
SERIES = [key for key in SERIES if own(key)]


def configured(key, format=None):
    """(final configuration, input type) of the kind's example."""
    layer, given = LAYERS[key].example()
    if format:
        given = Recurrent(given.size, given.length, format)
    layer = layer.resolved({**DEFAULTS, "activation": "tanh"})
    return layer.with_input(given), given


def made(key, format=None, dtype=torch.float64):
    """(layer in test mode with drawn parameters, an input)."""
    conf, given = configured(key, format)
    layer = module_of(conf).from_config(conf).to(dtype)
    torch.manual_seed(3)
    layer.reset_parameters()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, *given.shape, generator=g, dtype=torch.float64).to(dtype)
    if layer.takes_indices:
        x = x.mul(10).round().remainder(conf.n_in)
    return layer.eval(), x


def activations(layer, x, mask=None, **options):
    """What the layer gives, without its state."""
    y = layer(x, mask, **options)
    return y[0] if layer.recurrent else y


@pytest.fixture
def mask():
    return torch.tensor(
        [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    ).double()


@pytest.mark.parametrize("key", KINDS)
class TestEveryLayer:
    def test_equals_the_formula(self, key):
        layer, x = made(key)
        p = {v.name: v.array.detach().numpy() for v in layer.views()}
        expected = getattr(references, key)(layer.conf, p, x.numpy())
        ours = activations(layer, x).detach().numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-14)

    def test_gradients(self, key):
        layer, x = made(key)
        if layer.takes_indices:
            pytest.skip("class indices have no gradient")
        if key == "frozen":
            pytest.skip("no gradient goes through it, which test_frozen shows")
        parameters = [p for p in layer.parameters() if p.requires_grad]
        x.requires_grad_()
        assert torch.autograd.gradcheck(
            lambda *_: activations(layer, x), (x, *parameters), rtol=1e-6, atol=1e-8
        )

    def test_hooks_fire(self, key):
        layer, x = made(key)
        seen = []
        layer.register_forward_hook(lambda m, given, y: seen.append(y))
        y = activations(layer, x)
        assert len(seen) == 1
        if isinstance(layer, Scored):
            given = getattr(references, f"{key}_labels", None)
            labels = given(layer.conf, y) if given else torch.softmax(y, -1)
            score = layer(x, labels=labels)
            assert score.dim() == 0 and len(seen) == 2

    def test_refuses_masks_that_do_not_fit(self, key):
        """Whether it changes something or not; DL4J's broadcasting would be silent."""
        layer, x = made(key)
        n, *sizes = x.shape
        wrong = [[n + 1], [1], [n, *(1,) * 5], [7, n], [n, 7]]
        wrong += [[n, 1, *sizes[1:-1], sizes[-1] + 1]] if len(sizes) > 1 else []
        for shape in wrong:
            with pytest.raises(ValueError, match="mask: .*expected|mask.*one entry"):
                layer(x, torch.ones(shape, dtype=x.dtype))

    def test_refuses_inputs_that_do_not_fit(self, key):
        """Used alone: the layer's own words, and none of torch's."""
        layer, x = made(key)
        name = type(layer).__name__
        shapes = layer.conf.shapes
        wrong = [x[None, None, None], x[..., 0, None, None, None, None, None]]
        wrong += [x[0, 0]] * (1 not in map(len, shapes)) + [x.sum()]
        for axis in range(1, x.dim()):  # a size too many, where sizes are fixed
            if all(len(s) != x.dim() or isinstance(s[axis], int) for s in shapes):
                wrong.append(torch.cat([x, x.narrow(axis, 0, 1)], axis))
        for odd in wrong if shapes else ():
            with pytest.raises(ValueError, match=rf"^x: {name} expects \[n.*, got \["):
                layer(odd)
        if not layer.takes_indices:
            for odd in (x.long(), x.bool(), x.to(torch.complex64)):
                with pytest.raises(ValueError, match=rf"^x: {name} .*, got torch\."):
                    layer(odd)
        for odd in (x.numpy(), x.tolist(), 3, None):
            with pytest.raises(TypeError, match=rf"^x: {name} expects a torch.Tensor"):
                layer(odd)
        layer(x)  # and is as it was

    def test_copies(self, key):
        layer, x = made(key)
        y = activations(layer, x)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(activations(other, x), y)
            assert repr(other) == repr(layer)

    def test_stands_alone(self, key):
        conf, given = LAYERS[key].example()
        module = module_of(conf)
        names = module.__signature__.parameters
        fields = {
            name: getattr(conf, name)
            for name in names
            if name != "dl4j_exact" and getattr(conf, name) is not None
        }
        layer = module(**fields)
        x = torch.rand(2, *given.shape).round()
        assert activations(layer, x).shape[0] == layer.count(2)
        assert (
            module.__doc__ and "Example" in module.__doc__ and "DL4J" in module.__doc__
        )

    def test_json_round_trip(self, key):
        conf = network(key).conf
        text = conf.to_json()
        again = NeuralNetConfiguration.from_json(text)
        assert again == conf and again.to_json() == text

    def test_compiles(self, key):
        layer, x = made(key)
        torch.compiler.reset()  # one template serves all kinds
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        y = compiled(x)
        y = y[0] if layer.recurrent else y
        torch.testing.assert_close(y, activations(layer, x))

    def test_exports(self, key):
        layer, x = made(key)
        y = torch.export.export(layer, (x,), strict=False).module()(x)
        y = y[0] if layer.recurrent else y
        torch.testing.assert_close(y, activations(layer, x))

    def test_building_leaves_the_global_generator(self, key):
        torch.manual_seed(5)
        expected = torch.rand(1)
        torch.manual_seed(5)
        network(key)
        assert torch.equal(torch.rand(1), expected)


def network(key):
    layer, given = LAYERS[key].example()
    chain = NeuralNetConfiguration.builder().seed(1).activation("tanh")
    return chain.input_type(given).layer(layer).build().module()


@pytest.mark.parametrize("key", SERIES)
class TestSeries:
    def test_equals_the_formula_under_a_mask(self, key, mask):
        if "convolution" in key:
            pytest.skip("its output at masked steps is not covered")
        layer, x = made(key)
        p = {v.name: v.array.detach().numpy() for v in layer.views()}
        expected = getattr(references, key)(layer.conf, p, x.numpy(), mask.numpy())
        ours = activations(layer, x, mask).detach().numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-14)

    def test_masked_steps_reach_nothing(self, key, mask):
        """What stands at masked steps of the input changes no other output."""
        if key == "mask_zero":
            pytest.skip("it makes its mask of its input")
        layer, x = made(key)
        odd = torch.full_like(x, 0.0 if layer.takes_indices else 1e3)
        other = torch.where(mask.unsqueeze(1) == 0, odd, x)
        y, z = (activations(layer, t, mask) for t in (x, other))
        left = layer.feed_mask(mask, x.shape)  # what is masked afterwards
        left = mask if left is None else left
        if y.dim() == 3 and y.shape[2] == left.shape[1]:
            shown = left.unsqueeze(1) != 0
            y, z = y.where(shown, 0.0), z.where(shown, 0.0)
        assert torch.equal(y, z)

    def test_features_last_is_a_permutation(self, key):
        layer, x = made(key)
        if key == "global_pooling":
            layer, _ = made(key, "NWC")
            y = activations(layer, x.transpose(1, 2))
            assert torch.equal(y, activations(made(key)[0], x))
            return
        if not hasattr(layer.conf, "format") and key != "mask_layer":
            with pytest.raises(ConfigurationError, match="NCW"):
                made(key, "NWC")
            return
        last, _ = made(key, "NWC")
        if getattr(last.conf, "format", "NWC") != "NWC":  # it has its own
            conf = dataclasses.replace(last.conf, format="NWC")
            last = type(last).from_config(conf).double().eval()
        last.load_state_dict(layer.state_dict())
        turned = x if layer.takes_indices else x.transpose(1, 2).contiguous()
        y, z = activations(layer, x), activations(last, turned)
        torch.testing.assert_close(z.transpose(1, 2) if z.dim() == 3 else z, y)

    def test_refuses_a_mask_of_another_length(self, key, mask):
        layer, x = made(key)
        with pytest.raises(ValueError, match=r"mask.*\[4, 4\]"):
            layer(x, mask[:, :4])

    def test_a_series_cut_in_two(self, key):
        layer, x = made(key)
        if not layer.recurrent or "bidirectional" in key:
            pytest.skip("it has no state that goes forwards")
        whole, _ = layer(x)
        first, state = layer(x[..., :3])
        second, _ = layer(x[..., 3:], state=state)
        torch.testing.assert_close(torch.cat([first, second], 2), whole)


def test_frozen():
    for key, goes in (("frozen", False), ("frozen_with_backprop", True)):
        layer, x = made(key)
        layer.train()
        x.requires_grad_()
        assert activations(layer, x).requires_grad == goes
        assert not any(module.training for module in layer.inner.modules())
        assert all(view.trained in ("never", "still") for view in layer.views())
