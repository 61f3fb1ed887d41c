"""Series in pieces: states, time steps, truncated back-propagation."""

import pytest
import torch

import dl4py
from dl4py.config import (
    LSTM,
    Bidirectional,
    Dense,
    EmbeddingSequence,
    Frozen,
    GlobalPooling,
    GravesBidirectionalLSTM,
    GravesLSTM,
    InputType,
    LastTimeStep,
    LastTimeStepVertex,
    MaskZero,
    Output,
    RnnOutput,
    SimpleRnn,
)
from dl4py.layers.recurrent import Recurrent

KEEPING = {
    "lstm": LSTM(n_out=5),
    "graves": GravesLSTM(n_out=5),
    "simple": SimpleRnn(n_out=5),
    "frozen": Frozen(underlying=LSTM(n_out=5)),
    "mask_zero": MaskZero(underlying=LSTM(n_out=5)),
}
WHOLE = {
    "bidirectional": Bidirectional(fwd=LSTM(n_out=5)),
    "graves": GravesBidirectionalLSTM(n_out=5),
    "last": LastTimeStep(underlying=LSTM(n_out=5)),
}


def chain(*layers, fwd=None, back=None, exact=False, last=None, lr=0.5, **settings):
    made = dl4py.NeuralNetConfiguration.builder().seed(5).data_type("double")
    made.activation("tanh").updater("sgd", lr=lr).input_type(InputType.recurrent(4))
    for name, value in settings.items():
        getattr(made, name)(*(value if isinstance(value, tuple) else (value,)))
    if fwd is not None:
        made.backprop_type("TruncatedBPTT").tBPTTForwardLength(fwd)
        made.tBPTTBackwardLength(back or fwd)
    for layer in layers:
        made.layer(layer)
    return made.layer(last or RnnOutput(n_out=3)).build().module(dl4j_exact=exact)


def data(time=7, n=3, size=4):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, size, time, generator=g, dtype=torch.float64)
    labels = torch.randint(3, (n, time), generator=g)
    y = torch.eye(3, dtype=torch.float64)[labels].transpose(1, 2).contiguous()
    return x, y


class TestTimeSteps:
    @pytest.mark.parametrize("exact", [False, True])
    @pytest.mark.parametrize("kind", KEEPING)
    def test_pieces_give_the_whole(self, kind, exact):
        net = chain(KEEPING[kind], Dense(n_out=4), SimpleRnn(n_out=2), exact=exact)
        x, _ = data()
        whole = net.output(x)
        parts = [net.rnn_time_step(part) for part in x.split((3, 1, 2, 1), 2)[:3]]
        parts.append(net.rnn_time_step(x[..., 6]).unsqueeze(2))
        torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=1e-13, atol=1e-13)
        net.rnn_clear_previous_state()
        torch.testing.assert_close(net.rnn_time_step(x), whole, rtol=1e-13, atol=1e-13)

    def test_masks_and_channels_last(self):
        net = chain(LSTM(n_out=5), input_type=InputType.recurrent(4, None, "NWC"))
        x = data()[0].transpose(1, 2).contiguous()
        mask = torch.ones(3, 7, dtype=torch.float64)
        mask[1, 4:] = 0
        whole = net.output(x, mask)
        first = net.rnn_time_step(x[:, :5], mask[:, :5])
        rest = net.rnn_time_step(x[:, 5:], mask[:, 5:])
        torch.testing.assert_close(torch.cat([first, rest], 1), whole)
        net.rnn_clear_previous_state()
        torch.testing.assert_close(net.rnn_time_step(x[:, 0]), whole[:, 0])

    def test_exact_mode_masks_nothing_in_pieces(self):
        """DL4J steps what is inside MaskZero, and does not see its mask."""
        x, _ = data()
        x[:, :, 2] = 0
        net = chain(MaskZero(underlying=LSTM(n_out=5)), exact=True)
        plain = chain(LSTM(n_out=5), exact=True)
        torch.testing.assert_close(net.rnn_time_step(x), plain.output(x))
        assert not torch.equal(net.output(x), plain.output(x))
        default = chain(MaskZero(underlying=LSTM(n_out=5)))
        torch.testing.assert_close(default.rnn_time_step(x), default.output(x))

    def test_graphs_take_steps_and_series(self):
        made = dl4py.NeuralNetConfiguration.builder().seed(5).data_type("double")
        graph = made.activation("tanh").graph_builder().add_inputs("a", "b")
        graph.set_input_types(InputType.recurrent(4), InputType.recurrent(4))
        graph.add_layer("x", LSTM(n_out=3), "a").add_layer("y", LSTM(n_out=2), "b")
        graph.add_layer("p", RnnOutput(n_out=3), "x", "y")
        graph.add_layer("q", RnnOutput(n_out=2), "y").set_outputs("p", "q")
        net = graph.build().module()
        a, b = data()[0], data()[0] + 1
        whole = net.output((a, b))
        net.rnn_time_step((a[..., :6], b[..., :6]))
        both = net.rnn_time_step({"a": a[..., 6], "b": b[..., 6]})
        for found, expected in zip(both, whole, strict=True):
            torch.testing.assert_close(found, expected[..., 6])
        assert set(net.rnn_get_previous_states()) == {"x", "y"}

    def test_states_are_got_and_set(self):
        net = chain(LSTM(n_out=5), SimpleRnn(n_out=2))
        x, _ = data()
        assert net.rnn_get_previous_state(0) == {}
        net.rnn_time_step(x[..., :4])
        states = net.rnn_get_previous_states()
        assert [list(s) for s in states.values()] == [
            ["prevAct", "prevMem"],
            ["prevAct"],
        ]
        after = net.rnn_time_step(x[..., 4:])
        assert not torch.equal(net.rnn_get_previous_state(1)["prevAct"], after[..., -1])
        net.rnn_set_previous_states(states)
        assert torch.equal(net.rnn_time_step(x[..., 4:]), after)
        net.rnn_set_previous_state("layer0", states["layer0"])
        net.rnn_set_previous_state(1, {})
        assert list(net.rnn_get_previous_states()) == ["layer0"]
        assert not torch.equal(net.rnn_time_step(x[..., 4:]), after)

    def test_refusals_leave_the_states(self):
        net = chain(LSTM(n_out=5), SimpleRnn(n_out=2))
        x, _ = data()
        net.rnn_time_step(x)
        before = net.rnn_get_previous_states()
        state = before["layer0"]
        for call, message in {
            lambda: net.rnn_time_step(x[:2]): r"'layer0' \(LSTM\): state: expected "
            r"prevAct, prevMem of shape \[2, 5\].*rnn_clear_previous_state",
            lambda: net.rnn_time_step(x, torch.ones(3, 6)): "features_mask: expected",
            lambda: net.rnn_get_previous_state(2): r"\(layer0, layer1\), got 2",
            lambda: net.rnn_set_previous_state("out", state): "keeps a state",
            lambda: net.rnn_set_previous_state(1, state): r"has \('prevAct',\), got",
            lambda: net.rnn_set_previous_states(
                {"layer1": {}, "layer0": {k: s[:, :4] for k, s in state.items()}}
            ): r"\[n, 5\], got \[\[3, 4\], \[3, 4\]\]",
            lambda: net.rnn_set_previous_state(1, {"prevAct": 0.5}): "'prevAct' of "
            "'layer1': expected a torch.Tensor.*got float",
        }.items():
            with pytest.raises((ValueError, TypeError), match=message):
                call()
            now = net.rnn_get_previous_states()
            assert all(
                torch.equal(now[n][k], t) for n in now for k, t in before[n].items()
            )
        assert set(now) == set(before)

    @pytest.mark.parametrize("kind", WHOLE)
    def test_what_needs_a_series_whole_is_refused(self, kind):
        net = chain(WHOLE[kind], last=Output(n_out=3) if kind == "last" else None)
        with pytest.raises(ValueError, match="rnn_time_step: 'layer0' .* series whole"):
            net.rnn_time_step(data()[0])


def by_hand(net, x, y, fwd, back, exact):
    """The parameters after a batch, by autograd of whole networks of steps."""
    lstm, out = net.layers.values()
    params = [p for p in net.parameters()]
    state = (torch.zeros(3, 5, dtype=torch.float64),) * 2
    for start in range(0, x.shape[2], fwd):
        window = slice(start, min(start + fwd, x.shape[2]))
        zero = tuple(torch.zeros_like(s) for s in state)
        hs, errors = [], []
        for t in range(window.start, window.stop):
            if window.stop - t == back:
                state = tuple(s.detach() for s in state)
            h, state = lstm(x[:, :, t : t + 1], None, state)
            if window.stop - t > back and not exact:
                h = h.detach()
            again, zero = lstm(x[:, :, t : t + 1], None, zero)
            hs.append(h)
            errors.append(again)
        state = tuple(s.detach() for s in state)
        h = torch.cat(hs, 2)
        if exact:
            whole = torch.cat(errors, 2)
            h = whole + (h - whole).detach()
        loss = out(h, labels=y[:, :, window]) / 3
        grads = torch.autograd.grad(loss, params)
        with torch.no_grad():
            for p, g in zip(params, grads, strict=True):
                p -= 0.5 * g


class TestTruncation:
    @pytest.mark.parametrize("exact", [False, True])
    @pytest.mark.parametrize("fwd, back", [(3, 3), (3, 2), (7, 4), (2, 9)])
    def test_equals_the_definition(self, fwd, back, exact):
        net = chain(LSTM(n_out=5), fwd=fwd, back=back, exact=exact)
        same = chain(LSTM(n_out=5))
        x, y = data()
        by_hand(same, x, y, fwd, fwd if exact else back, exact)
        net.fit(x, y)
        torch.testing.assert_close(net.params(), same.params(), rtol=1e-12, atol=1e-13)
        assert net.clock.iteration == -(-7 // fwd)
        assert net.rnn_get_previous_states() == {}

    def test_the_score_is_that_of_the_last_window(self):
        net = chain(SimpleRnn(n_out=5), fwd=3, l2=0.1, lr=0.0)
        x, y = data()
        net.rnn_time_step(x[..., :6])
        last = net.rnn_time_step(x[..., 6:])
        expected = -(y[..., 6:] * last.log()).sum() / 3 + net.penalty()
        assert net.fit([(x, y)]) == pytest.approx(expected.item())
        assert (net.clock.iteration, net.clock.epoch) == (3, 1)

    def test_dl4j_takes_features_of_channels_last_for_time(self):
        """It trains nothing where their numbers differ, else in one window."""
        last = InputType.recurrent(4, None, "NWC"), InputType.recurrent(3, None, "NWC")
        x, y = (t.transpose(1, 2) for t in data())
        net = chain(LSTM(n_out=5), fwd=3, exact=True, input_type=last[0])
        before = net.params()
        with pytest.warns(UserWarning, match=r"trains nothing .* differ, \[4, 3\]"):
            assert net.fit(x, y) == 0.0
        assert torch.equal(net.params(), before) and net.clock.iteration == 0
        assert any("NWC series for time" in line for line in net.differs())
        nets = [
            chain(LSTM(n_out=5), fwd=fwd, exact=True, input_type=last[1])
            for fwd in (3, None)
        ]
        scores = [net.fit(x[..., :3], y) for net in nets]
        assert scores[0] == scores[1] and nets[0].clock.iteration == 1
        assert torch.equal(nets[0].params(), nets[1].params())

    def test_masks_are_cut_with_their_series(self):
        """What is masked does not count, so that its values do not."""
        x, y = data()
        mask = torch.ones(3, 7, dtype=torch.float64)
        mask[0, 5:] = mask[2, 2:] = 0
        nets = [chain(LSTM(n_out=5), fwd=3) for _ in "ab"]
        hidden = mask.unsqueeze(1) == 0
        nets[0].fit(x.masked_fill(hidden, float("nan")), y, mask, mask)
        nets[1].fit(x.masked_fill(hidden, 7.0), y, mask, mask)
        assert torch.equal(nets[0].params(), nets[1].params())
        assert nets[0].params().isfinite().all()

    def test_rows_beside_a_series_are_in_every_window(self):
        made = dl4py.NeuralNetConfiguration.builder().seed(5).data_type("double")
        graph = made.backprop_type("TruncatedBPTT").tBPTTLength(3).graph_builder()
        graph.add_inputs("s", "r").set_input_types(
            InputType.recurrent(4), InputType.feed_forward(4)
        )
        graph.add_layer("a", LSTM(n_out=3), "s").add_layer("b", Dense(n_out=3), "r")
        graph.add_vertex("t", dl4py.config.DuplicateToTimeSeriesVertex("s"), "b")
        graph.add_layer("o", RnnOutput(n_out=3), "a", "t")
        net = graph.set_outputs("o").build().module()
        x, y = data()
        before = net.params()
        net.fit((x, x[..., 0].contiguous()), y)
        assert net.clock.iteration == 3 and (net.params() != before).any()

    def test_numbers_of_words(self):
        first = EmbeddingSequence(n_in=6, n_out=4)
        net = chain(first, LSTM(n_out=5), fwd=3, input_type=InputType.feed_forward(6))
        words = torch.randint(6, (3, 7), generator=torch.Generator().manual_seed(0))
        net.fit(words, data()[1])
        assert net.clock.iteration == 3

    def test_solvers(self):
        net = chain(LSTM(n_out=5), fwd=3, optimization_algo="LBFGS")
        x, y = data()
        before = net.score(x, y)
        for _ in range(3):
            net.fit(x, y)
        assert net.score(x, y) < before and net.clock.iteration == 9
        net = chain(LSTM(n_out=5), fwd=3, optimization_algo="LBFGS", exact=True)
        with pytest.raises(ValueError, match="LBFGS: what DL4J's own solvers do"):
            net.fit(x, y)

    @pytest.mark.parametrize("kind", [*WHOLE, "pooling"])
    def test_the_builder_refuses_what_needs_a_series_whole(self, kind):
        layers = [WHOLE[kind]] if kind in WHOLE else [LSTM(n_out=5), GlobalPooling()]
        last = Output(n_out=3) if kind in ("pooling", "last") else None
        with pytest.raises(ValueError, match="TruncatedBPTT: .* reads a series whole"):
            chain(*layers, last=last, fwd=3)

    def test_so_does_that_of_graphs(self):
        made = dl4py.NeuralNetConfiguration.builder().backprop_type("TruncatedBPTT")
        graph = made.graph_builder().add_inputs("s")
        graph.set_input_types(InputType.recurrent(4))
        graph.add_layer("a", LSTM(n_out=3), "s")
        graph.add_vertex("last", LastTimeStepVertex("s"), "a")
        graph.add_layer("o", Output(n_out=3), "last").set_outputs("o")
        with pytest.raises(ValueError, match=r"'last' \(LastTimeStepVertex\) reads"):
            graph.build()

    @pytest.mark.parametrize("graph", [False, True])
    def test_the_builder_tells_of_lengths_without_windows(self, graph):
        made = dl4py.NeuralNetConfiguration.builder().t_bptt_length(3)
        layers = LSTM(n_in=4, n_out=5), RnnOutput(n_in=5, n_out=3)
        if graph:
            made = made.graph_builder().add_inputs("s").add_layer("a", layers[0], "s")
            made.add_layer("o", layers[1], "a").set_outputs("o")
        else:
            made.layer(layers[0]).layer(layers[1])
        with pytest.warns(UserWarning, match="without backprop_type.*trained on whole"):
            conf = made.build()
        assert not conf.truncated and conf.tbptt_fwd_length == 3

    def test_bad_batches_are_refused_before_anything_moves(self):
        net = chain(LSTM(n_out=5), fwd=3)
        x, y = data()
        before = net.params()
        ones = torch.ones(3, 7, dtype=torch.float64)
        for batch, message in {
            (x, y[..., 0]): r"of one length, got \[7, 3\] time steps",
            (x, y[..., :6]): r"of one length, got \[7, 6\] time steps",
            (x[..., :2], y[..., :2]): "tbptt_fwd_length: windows of 3 .* series of 2",
            (x, y, ones[:, :6]): r"features_mask: expected \[3, 7\]",
            (x, y, ones, ones[:, :6]): r"labels_mask: .* \[n, 7\], got \[3, 6\]",
        }.items():
            with pytest.raises(ValueError, match=message):
                net.fit(*batch)
        assert torch.equal(net.params(), before) and net.clock.iteration == 0
        exact = chain(LSTM(n_out=5), fwd=3, exact=True)
        exact.fit(x[..., :2], y[..., :2])  # DL4J: one window of what there is
        assert exact.clock.iteration == 1

    def test_a_score_that_is_no_number_ends_training_before_its_step(self):
        net = chain(LSTM(n_out=5), fwd=3)
        x, y = data()
        x[0, 0, 4] = float("inf")
        y[..., 4] = float("nan")
        with pytest.raises(FloatingPointError, match="score is nan at iteration 1"):
            net.fit(x, y)
        assert net.params().isfinite().all() and net.rnn_get_previous_states() == {}
        assert all(
            layer.back_length is None
            for layer in net.modules()
            if isinstance(layer, Recurrent)
        )

    def test_an_output_that_is_frozen_is_refused(self):
        net = chain(LSTM(n_out=5), fwd=3, last=Frozen(underlying=RnnOutput(n_out=3)))
        with pytest.raises(ValueError, match="Frozen, is frozen, and behind"):
            net.fit(*data())
