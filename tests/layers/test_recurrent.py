"""What recurrent layers, attention and layers on series do beside their formulas."""

import copy

import numpy as np
import pytest
import torch

from dl4py import config, layers
from dl4py.config import (
    LSTM,
    ConfigurationError,
    EmbeddingSequence,
    GravesBidirectionalLSTM,
    GravesLSTM,
    InputType,
    LearnedSelfAttention,
    NeuralNetConfiguration,
    RecurrentAttention,
    RepeatVector,
    RnnLoss,
    RnnOutput,
    SelfAttention,
)
from dl4py.ops import library
from tests.models.test_catalogue import Run, configuration
from tests.references.recurrent import simple_rnn


def chain(*confs, given=None):
    chain = NeuralNetConfiguration.builder().seed(1).data_type("double")
    chain.activation("tanh")
    for conf in confs:
        chain.layer(conf)
    return chain.input_type(given or InputType.recurrent(3, 5)).build()


@pytest.mark.parametrize("kind", [LSTM, GravesLSTM, GravesBidirectionalLSTM])
def test_first_biases_are_those_of_dl4j(kind):
    """DL4J: 0 and that of the forget gate, whatever the bias init is."""
    net = chain(kind(n_out=2, bias_init=0.5, forget_gate_bias_init=3.0)).module()
    biases = [v.tensor for v in net.views() if v.kind == "bias"]
    assert len(biases) == (2 if kind is GravesBidirectionalLSTM else 1)
    for b in biases:
        assert b.tolist() == [0, 0, 3, 3, 0, 0, 0, 0]


def test_layer_norm_in_a_plain_recurrent_layer():
    """By its formula: DL4J itself cannot run it."""
    layer = layers.SimpleRnn(3, 4, activation="tanh", has_layer_norm=True).double()
    torch.manual_seed(0)
    torch.nn.init.normal_(layer.gain)
    x, mask = torch.randn(2, 3, 5).double(), torch.ones(2, 5).double()
    mask[1, 2:4] = 0
    p = {v.name: v.array.detach().numpy() for v in layer.views()}
    for m in (None, mask):
        expected = simple_rnn(
            layer.conf, p, x.numpy(), None if m is None else m.numpy()
        )
        ours = layer(x, m)[0].detach().numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-14)
    inputs = (x.requires_grad_(), *layer.parameters())
    assert torch.autograd.gradcheck(
        lambda x, *_: layer(x, mask)[0], inputs, rtol=1e-6, atol=1e-8
    )


def test_noise_on_a_gain_is_drawn_once_for_all_steps():
    layer = layers.SimpleRnn(3, 4, has_layer_norm=True, weight_noise=0.5)
    seen = []
    param = layer.param
    layer.param = lambda name: seen.append(name) or param(name)
    layer(torch.randn(2, 3, 5))
    assert seen == ["weight", "recurrent_weight", "bias", "gain"]


def test_fans_of_attention_are_those_of_dl4j():
    """Found from what DL4J draws for its seed."""

    def fans(layer):
        return {v.name: v.fans for v in layer.views() if v.kind == "weight"}

    heads = dict.fromkeys(("Wq", "Wk", "Wv"), (6, 5))
    layer = layers.RecurrentAttention(4, 5, 2, head_size=3)
    assert fans(layer) == {"W": (4, 5), "RW": (5, 5), **heads, "Wo": (4, 3)}
    layer = layers.LearnedSelfAttention(4, 5, 7, 2, head_size=3)
    assert fans(layer) == {"Q": (4, 7), **heads, "Wo": (4, 3)}


def test_peepholes_are_the_last_columns_of_rw():
    net = chain(GravesLSTM(n_out=2), RnnOutput(n_out=2)).module()
    assert list(net.views())[1].array.shape == (2, 4 * 2 + 3)


def test_a_graves_layer_in_both_directions_is_two():
    layer = layers.GravesBidirectionalLSTM(3, 2).double()
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    y, _ = layer(x)
    back, _ = layer.bwd(x.flip(2))
    torch.testing.assert_close(y, layer.fwd(x)[0] + back.flip(2))
    assert [v.name for v in layer.views()] == list(layer.conf.variables)


def test_constraints_of_both_directions():
    conf = chain(
        GravesBidirectionalLSTM(n_out=2, constraints=(config.MaxNorm(1.0, (1,)),))
    )
    views = conf.module().views()
    assert {v.name for v in views if v.constraints} == {"WF", "RWF", "WB", "RWB"}


def test_dropout_in_both_directions():
    """DL4J forgets it; exact mode does too, and says so."""
    x = torch.ones(4, 3, 5)
    layer = layers.GravesBidirectionalLSTM(3, 2, dropout=0.5)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    layer = layers.GravesBidirectionalLSTM(3, 2, dropout=0.5, dl4j_exact=True)
    assert torch.equal(layer(x)[0], layer(x)[0])
    assert any("dropout" in line for line in layer.differs())


def test_rnn_loss_heeds_a_features_mask():
    from tests import catalogue

    case = catalogue.load("fmask_rnn_loss")
    run = Run(case, configuration(case))
    mask = run.masks[0]
    g, score = run.net.gradient_and_score(run.x, run.y, mask)
    # what DL4J computes with the features mask alone
    assert score == pytest.approx(4.387401946054555, rel=1e-12)
    assert g.norm().item() == pytest.approx(2.0580804600812828, rel=1e-12)


def test_learned_queries_make_a_series_of_their_own_length():
    conf = chain(
        LearnedSelfAttention(n_out=4, n_heads=2, n_queries=7),
        LSTM(n_out=2),
        RnnOutput(n_out=2),
    )
    net = conf.module()
    x, mask = torch.randn(4, 3, 5).double(), torch.ones(4, 5).double()
    y = torch.softmax(torch.randn(4, 2, 7), 1).double()
    assert net.output(x, mask).shape == (4, 2, 7)
    scores = [net.fit(x, y, mask) for _ in range(30)]
    assert scores[-1] < scores[0]


def test_an_encoder_and_a_decoder():
    """Rows become series with their mask."""
    net = chain(
        config.LastTimeStep(underlying=LSTM(n_out=4)),
        RepeatVector(n=6),
        GravesLSTM(n_out=3),
        RnnLoss(activation="softmax"),
    ).module()
    assert net.output(torch.randn(4, 3, 5).double()).shape == (4, 3, 6)


def test_indices_come_as_integers():
    confs = EmbeddingSequence(n_in=7, n_out=3), LSTM(n_out=2), RnnLoss()
    net = chain(*confs, given=InputType.feed_forward(5)).module()
    x = torch.tensor([[0, 6, 1, 2, 3], [5, 5, 0, 0, 0]])
    mask = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).double()
    y = net.output(x, mask)
    assert torch.equal(y, net.output(x.double().unsqueeze(1), mask))
    assert (net.feed_forward(x, mask)[0][1, :, 2:] == 0).all()


@pytest.mark.skipif(not library.compiled("cpu"), reason="no compiled kernels")
class TestOneKernel:
    """No loop over time, though it would give the same."""

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("kind", [layers.SimpleRnn, layers.GravesLSTM])
    def test_half_types(self, kind, dtype, monkeypatch):
        torch.manual_seed(1)
        layer = kind(4, 6, activation="softsign")
        for p in layer.parameters():
            torch.nn.init.uniform_(p, -0.5, 0.5)
        layer.to(dtype)
        x, mask = torch.randn(3, 4, 9).to(dtype), torch.rand(3, 9) > 0.3

        def results(layer, x):
            y, state = layer(x, mask)
            y.float().square().sum().backward()
            found = y, *state, *(p.grad for p in layer.parameters())
            return [t.detach() for t in found]

        expected = results(copy.deepcopy(layer).double(), x.double())
        monkeypatch.setattr(layer, "loop", None)
        rounding = 16 * torch.finfo(dtype).eps
        for ours, true in zip(results(layer, x), expected, strict=True):
            assert ours.dtype == dtype
            scale = float(true.abs().max())
            torch.testing.assert_close(
                ours.double(), true, rtol=0, atol=rounding * scale
            )

    def test_leaks_of_a_random_slope(self, monkeypatch):
        layer = layers.SimpleRnn(4, 6, activation="rrelu").eval()
        for p in layer.parameters():
            torch.nn.init.uniform_(p, -0.5, 0.5)
        x = torch.randn(3, 4, 9)
        with monkeypatch.context() as patch:
            patch.setattr(layer, "fused", lambda *_: None)
            expected, _ = layer(x)
        monkeypatch.setattr(layer, "loop", None)
        torch.testing.assert_close(layer(x)[0], expected)


class TestBadInput:
    @pytest.mark.parametrize(
        "kind", [SelfAttention, LearnedSelfAttention, RecurrentAttention]
    )
    def test_heads(self, kind):
        with pytest.raises(ConfigurationError, match="head_size: .* n_out = 5 .* = 2"):
            kind(n_out=5, n_heads=2)
        with pytest.raises(ConfigurationError, match="project_input: .*n_heads = 2"):
            chain(kind(n_out=4, n_heads=2, project_input=False))
        with pytest.raises(ConfigurationError, match="project_input: .*equal"):
            chain(kind(n_out=4, project_input=False))
        with pytest.raises(ConfigurationError, match="n_in: the layer before gives 3"):
            chain(kind(n_in=4, n_out=4))
        with pytest.raises(ConfigurationError, match="n_out: expected a whole"):
            chain(kind())

        with pytest.raises(ValueError, match="n_heads: must be a whole number >= 1"):
            chain(kind(n_out=4, n_heads=0))

    @pytest.mark.parametrize(
        "kind",
        [
            layers.LSTM,
            layers.SimpleRnn,
            layers.GravesLSTM,
            layers.SelfAttention,
            layers.LearnedSelfAttention,
            layers.RecurrentAttention,
        ],
    )
    def test_series_of_layers_alone(self, kind):
        """torch.lstm itself reads what lies behind weights of another size."""
        layer = kind(3, 4)
        for shape in ((2, 5, 6), (2, 3), (2, 3, 6, 1)):
            with pytest.raises(ValueError, match=r"x: .* expects \[n, 3, time\], got"):
                layer(torch.zeros(shape))
        last = layers.GravesBidirectionalLSTM(3, 2, format="NWC")
        with pytest.raises(ValueError, match=r"x: .* expects \[n, time, 3\], got"):
            last(torch.zeros(2, 3, 6))

    def test_an_attention_vertex_alone(self):
        sizes = {"n_in_queries": 2, "n_in_keys": 2, "n_in_values": 2, "n_out": 2}
        layer, x = layers.AttentionVertex(**sizes), torch.zeros(2, 2, 4)
        for name in ("query_mask", "key_mask", "value_mask"):
            for shape in ((2, 3), (3, 4), (2,)):
                with pytest.raises(ValueError, match=name + r": expected .* \[2, 4\]"):
                    layer(x, x, x, **{name: torch.ones(shape)})
        with pytest.raises(ValueError, match=r"keys: expected \[n, 2, time\]"):
            layer(x, x[:, :1], x)
        for keys, values in ((x[:1], x[:1]), (x, x[..., :3])):
            with pytest.raises(ValueError, match="equally many examples, and keys"):
                layer(x, keys, values)

    def test_indices_that_are_no_numbers(self):
        for exact in (False, True):
            layer = layers.Embedding(4, 2, dl4j_exact=exact)
            for bad in (float("nan"), float("inf")):
                with pytest.raises(ValueError, match="got NaN or an infinity"):
                    layer(torch.tensor([1.0, bad]))
            with pytest.raises(TypeError, match="class indices, got torch.complex64"):
                layer(torch.tensor([1j]))

    def test_indices(self):
        layer = layers.EmbeddingSequence(4, 2)
        with pytest.raises(ValueError, match="must be in 0 to 3, got 0 to 4"):
            layer(torch.tensor([[0, 4]]))
        with pytest.raises(ValueError, match="in 0 to 3, got -1 to 2"):
            layer(torch.tensor([[-1, 2]]))
        with pytest.raises(ValueError, match="whole numbers"):
            layer(torch.tensor([[0.5, 1.0]]))
        with pytest.raises(ValueError, match=r"\[n, time\] or \[n, 1, time\]"):
            layer(torch.zeros(2, 3, 4))

    def test_a_series_of_vectors_is_no_series_of_indices(self):
        with pytest.raises(ConfigurationError, match=r"InputType\.recurrent\(1\)"):
            chain(EmbeddingSequence(n_in=4, n_out=2))

    def test_masks_at_the_door(self):
        net = chain(
            EmbeddingSequence(n_in=7, n_out=3),
            RnnLoss(),
            given=InputType.feed_forward(5),
        ).module()
        with pytest.raises(ValueError, match=r"features_mask: expected .*\[2, 5\]"):
            net.output(torch.zeros(2, 5).double(), torch.ones(2, 4).double())

    def test_repeat_vector(self):
        with pytest.raises(ValueError, match=r"x: .*\[n, features\], got \[2, 3, 4\]"):
            layers.RepeatVector(2)(torch.zeros(2, 3, 4))
        with pytest.raises(ValueError, match="whole number >= 1"):
            layers.RepeatVector(0)
