"""A ``torch.nn.Sequential`` in DL4J's words: the door from torch to Java."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dl4py import config
from dl4py.config import InputType, NeuralNetConfiguration
from dl4py.config.codec import brief, replace
from dl4py.network import Network
from dl4py.registry import ACTIVATIONS

Word = tuple[Any, nn.Module | None]  # a configuration, and whose parameters it takes
Writer = Callable[[Any], Any]

_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Any]] = {
    nn.ReLU: lambda m: "relu",
    nn.ReLU6: lambda m: "relu6",
    nn.LeakyReLU: lambda m: _named("leakyrelu", alpha=m.negative_slope),
    nn.ELU: lambda m: _named("elu", alpha=m.alpha),
    nn.SELU: lambda m: "selu",
    nn.SiLU: lambda m: "swish",
    nn.Mish: lambda m: "mish",
    nn.Sigmoid: lambda m: "sigmoid",
    nn.Tanh: lambda m: "tanh",
    nn.Softsign: lambda m: "softsign",
    nn.Softplus: lambda m: _only(m, "softplus", beta=1),
    nn.Hardtanh: lambda m: _only(m, "hardtanh", min_val=-1, max_val=1),
    nn.Softmax: lambda m: "softmax",
}
_LOSSES = {"softmax": "mcxent", "sigmoid": "xent"}  # of a last activation; else mse


def from_torch(
    module: nn.Module,
    input_type: InputType,
    loss: Any = None,
    activation: Any = None,
    updater: Any = None,
    dl4j_exact: bool = False,
) -> Network:
    """The network that computes what a chain of torch's modules computes.

    Saved, it is a zip that Java opens. Known are Linear, Conv1d, Conv2d, MaxPool2d,
    AvgPool2d, adaptive pooling to one cell, BatchNorm1d and BatchNorm2d, Flatten,
    Dropout, Identity, and the activations that DL4J has too. A random batch is sent
    through both before the network is returned.

    Args:
        module: an ``nn.Sequential``, nested or not; the last Linear becomes the output
            layer. It is left as it is.
        input_type: the shape of one example.
        loss: of the output layer; default: MCXENT after a softmax, XENT after a
            sigmoid, else MSE.
        activation: of the output layer, where the module ends with logits, e.g.
            ``"softmax"`` for what was trained with ``nn.CrossEntropyLoss``.
        updater: to go on training with, a name or an updater; default: DL4J's, SGD.
        dl4j_exact: whether training reproduces DL4J's faults too.

    Raises:
        ValueError: where a module has no word in DL4J, or not with its arguments; names
            it and its place. Where the two compute different things.

    torch's running variances are unbiased, DL4J's are not: the networks differ in that
    as they go on training.

    Example:
        >>> module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> net = from_torch(module, InputType.feed_forward(4), activation="softmax")
        >>> [type(layer).__name__ for layer in net.conf.layers]
        ['Dense', 'Output']
        >>> x = torch.rand(2, 4)
        >>> torch.allclose(net.output(x), module(x).softmax(1))
        True
    """
    module = getattr(module, "_orig_mod", module)  # of what torch.compile wraps
    if any(p.is_meta for p in module.parameters()):
        raise ValueError(
            "from_torch(module): parameters on the meta device hold no numbers; load "
            "them first"
        )
    words = list(_merged(_words(module)))
    sources = [source for _, source in words if source is not None]
    if len({id(source) for source in sources}) < len(sources):
        raise ValueError(
            "from_torch(module): a module with parameters stands at two places; DL4J "
            "shares none between layers, copy it (copy.deepcopy)"
        )
    words = _ended(words, loss, activation)
    first = next(module.parameters(), torch.zeros(()))
    builder = NeuralNetConfiguration.builder().activation("identity")
    builder = builder.data_type(_data_type(first)).input_type(input_type)
    if updater is not None:
        builder = builder.updater(updater)
    for conf, _ in words:
        builder = builder.layer(conf)
    net: Network = builder.build().module(dl4j_exact)
    for node, (_, source) in zip(net.nodes, words, strict=True):
        if source is not None:
            _copy(source, node.layer)
    _compare(module, net, input_type, activation, first)
    return net.eval()


def _words(module: nn.Module, place: str = "module") -> Iterator[Word]:
    """The layers that modules stand for, in their order."""
    if isinstance(module, nn.Sequential):
        for name, child in module._modules.items():  # one may stand there twice
            yield from _words(child, f"{place}[{name}]")
        return
    writer = _LAYERS.get(type(module))
    if type(module) in _ACTIVATIONS:
        writer = _activation
    if writer is None:
        known = ", ".join(sorted(t.__name__ for t in (*_LAYERS, *_ACTIVATIONS)))
        raise ValueError(
            f"from_torch: {place}: {type(module).__name__} has no word in DL4J here; "
            f"known are Sequential, {known}"
        )
    try:
        conf = writer(module)
    except ValueError as error:
        raise ValueError(f"from_torch: {place}: {module}: {error}") from None
    if conf is not None:
        with_state = any(True for _ in module.state_dict())
        yield conf, module if with_state else None


def _merged(words: Iterator[Word]) -> Iterator[Word]:
    """Activations inside the layers before them."""
    last: Word | None = None
    for conf, source in words:
        if isinstance(conf, config.ActivationLayer) and last is not None:
            before = last[0]
            if isinstance(before, _ACTIVATED) and before.activation == "identity":
                last = (replace(before, activation=conf.activation), last[1])
                continue
        if last is not None:
            yield last
        last = conf, source
    if last is not None:
        yield last


def _ended(words: list[Word], loss: Any, activation: Any) -> list[Word]:
    """The last Dense as an output layer."""
    conf, source = words[-1] if words else (None, None)
    if not isinstance(conf, config.Dense):
        raise ValueError(
            "from_torch(module): expected a Linear, with or without an activation, at "
            f"the end, got {type(conf).__name__ if words else 'no module'}"
        )
    own = conf.activation
    if activation is not None:
        if own != "identity":
            raise ValueError(
                f"from_torch(activation={activation!r}): the module ends with one of "
                f"its own, {own}; leave the argument out"
            )
        own = activation
    if loss is None:
        loss = _LOSSES.get(own if isinstance(own, str) else "", "mse")
    last = config.Output(
        n_in=conf.n_in,
        n_out=conf.n_out,
        has_bias=conf.has_bias,
        loss=loss,
        activation=own,
    )
    return [*words[:-1], (last, source)]


def _copy(source: nn.Module, layer: nn.Module) -> None:
    """Parameters and statistics by their names there and here."""
    with torch.no_grad():
        for name, value in source.state_dict().items():
            here = _NAMES.get(name, name)
            if here is not None and getattr(layer, here, None) is not None:
                getattr(layer, here).copy_(value)


_NAMES: dict[str, str | None] = {
    "running_mean": "mean",
    "running_var": "var",
    "num_batches_tracked": None,
}


def _compare(
    module: nn.Module, net: Network, given: InputType, activation: Any, like: Tensor
) -> None:
    """A random batch through both; flags and generator stay as they were."""
    noise = torch.Generator().manual_seed(0)
    shape = [2, *(5 if size is None else size for size in given.shape)]
    x = torch.randn(shape, generator=noise, dtype=torch.float64).to(like)
    flags = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            try:
                expected = module(x)
            except RuntimeError as failed:
                raise ValueError(
                    f"from_torch(module, input_type): the module does not take {shape} "
                    f"itself: {brief(failed)}; a Flatten may be missing before a Linear"
                ) from failed
            if activation is not None:
                last: Any = net.nodes[-1].layer
                expected = last.activation(expected)
    finally:
        for m, flag in flags:
            m.training = flag
    found = net.to(like.device).output(x)
    if not bool(torch.isfinite(expected).all()):
        raise ValueError(
            "from_torch(module): what it computes of a random batch is not finite, so "
            "nothing can be compared; are there NaN among its parameters?"
        )
    error = (found - expected).abs().max() if found.shape == expected.shape else None
    allowed = 100 * torch.finfo(like.dtype).eps * max(1.0, float(expected.abs().max()))
    if error is None or not error <= allowed:
        how = "shapes" if error is None else f"numbers, up to {float(error):.1e} apart"
        raise ValueError(
            f"from_torch: the network in DL4J's words and the module give different "
            f"{how}: {list(found.shape)} and {list(expected.shape)} for an input "
            f"{list(x.shape)}; a Flatten may be missing before a Linear"
        )


def _data_type(like: Tensor) -> str:
    names = {torch.float64: "double", torch.float32: "float", torch.float16: "half"}
    if like.dtype not in names:
        raise ValueError(f"from_torch: parameters of {like.dtype} have no word in DL4J")
    return names[like.dtype]


def _named(name: str, **args: Any) -> Any:
    return ACTIVATIONS.named(name, **args)


def _only(module: Any, word: Any, **values: Any) -> Any:
    """``word``, if the module's arguments have the values that it stands for."""
    for name, expected in values.items():
        got = getattr(module, name)
        if got not in (expected if isinstance(expected, tuple) else (expected,)):
            raise ValueError(f"DL4J has {name}={expected!r} only, got {got!r}")
    return word


def _activation(module: Any) -> Any:
    if isinstance(module, nn.Softmax):
        _only(module, None, dim=(1, -1))
    return config.ActivationLayer(activation=_ACTIVATIONS[type(module)](module))


def _linear(m: nn.Linear) -> Any:
    return config.Dense(
        n_in=m.in_features,
        n_out=m.out_features,
        has_bias=m.bias is not None,
        activation="identity",
    )


def _convolution(kind: str) -> Writer:
    def write(m: Any) -> Any:
        _only(m, None, groups=1, padding_mode="zeros")
        same = m.padding == "same"
        rank = len(m.kernel_size)
        padding = (0,) * rank if m.padding in ("valid", "same") else m.padding
        sizes = {
            "kernel_size": m.kernel_size,
            "stride": m.stride,
            "padding": padding,
            "dilation": m.dilation,
        }
        if rank == 1:
            sizes = {name: size[0] for name, size in sizes.items()}
        return getattr(config, kind)(
            n_in=m.in_channels,
            n_out=m.out_channels,
            **sizes,
            convolution_mode="Same" if same else "Truncate",
            has_bias=m.bias is not None,
            activation="identity",
        )

    return write


def _pool(pooling: str) -> Writer:
    def write(m: Any) -> Any:
        _only(m, None, ceil_mode=False)
        values: dict[str, Any] = {}
        if pooling == "MAX":
            _only(m, None, return_indices=False)
            values["dilation"] = m.dilation
        else:
            _only(m, None, divisor_override=None)
            values["avg_pool_include_pad_in_divisor"] = m.count_include_pad
        return config.Subsampling(
            pooling_type=pooling,
            kernel_size=m.kernel_size,
            stride=m.stride,
            padding=m.padding,
            convolution_mode="Truncate",
            **values,
        )

    return write


def _global(pooling: str) -> Writer:
    def write(m: Any) -> Any:
        _only(m, None, output_size=(1, (1, 1), (1,)))
        return config.GlobalPooling(pooling_type=pooling)

    return write


def _batch_norm(m: Any) -> Any:
    _only(m, None, track_running_stats=True)
    if m.momentum is None:
        raise ValueError("DL4J has no cumulative average, give it a momentum")
    return config.BatchNormalization(
        n_out=m.num_features,
        decay=1 - m.momentum,
        eps=m.eps,
        lock_gamma_beta=not m.affine,
        use_log_std=False,
    )


def _dropout(m: nn.Dropout) -> Any:
    if m.p == 1:
        raise ValueError("DL4J keeps some values, p must be below 1")
    return config.DropoutLayer(dropout=1 - m.p) if m.p else None


def _flatten(m: nn.Flatten) -> Any:
    return _only(m, None, start_dim=1, end_dim=-1)  # DL4J's preprocessor does it


_ACTIVATED = (config.Dense, config.Convolution1D, config.Convolution2D)
_LAYERS: dict[type[nn.Module], Writer] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution("Convolution1D"),
    nn.Conv2d: _convolution("Convolution2D"),
    nn.MaxPool2d: _pool("MAX"),
    nn.AvgPool2d: _pool("AVG"),
    nn.AdaptiveAvgPool1d: _global("AVG"),
    nn.AdaptiveAvgPool2d: _global("AVG"),
    nn.AdaptiveMaxPool1d: _global("MAX"),
    nn.AdaptiveMaxPool2d: _global("MAX"),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Flatten: _flatten,
    nn.Dropout: _dropout,
    nn.Identity: lambda m: None,
}
