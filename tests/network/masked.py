"""Networks of every kind of layer, and batches of which a mask hides a part."""

import torch

from dl4py import config
from dl4py.config import (
    LSTM,
    ActivationLayer,
    BatchNormalization,
    Bidirectional,
    Convolution1D,
    Convolution2D,
    Dense,
    DropoutLayer,
    Embedding,
    EmbeddingSequence,
    Frozen,
    FrozenWithBackprop,
    GlobalPooling,
    GravesBidirectionalLSTM,
    GravesLSTM,
    InputType,
    LastTimeStep,
    LearnedSelfAttention,
    LossLayer,
    MaskLayer,
    MaskZero,
    Output,
    RecurrentAttention,
    RepeatVector,
    RnnLoss,
    RnnOutput,
    SelfAttention,
    SimpleRnn,
    Subsampling,
    TimeDistributed,
)
from dl4py.config.codec import replace
from dl4py.config.dropout import AlphaDropout, GaussianNoise
from tests.network import spatial
from tests.networks import builder

IMAGE = InputType.convolutional(6, 6, 2)
NHWC = InputType.convolutional(6, 6, 2, "NHWC")


def rows():
    """A mask of 5 rows."""
    return torch.tensor([1.0, 0, 1, 1, 0])


def series():
    """A mask of 5 series of 4 steps, one hidden whole."""
    return torch.tensor(
        [[1.0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1], [0, 1, 1, 1]]
    )


def pixels():
    """A mask of 5 images whose right and bottom are hidden; of the last all."""
    mask = torch.ones(5, 1, 6, 6)
    mask[1:, :, 4:] = 0
    mask[2:, :, :, 2:] = 0
    mask[4] = 0
    return mask


ROWS, SERIES, STEPS = (rows, (5, 3)), (series, (5, 3, 4)), (series, (5, 4, 3))
IMAGES, LAST, WHOLE = (pixels, (5, 2, 6, 6)), (pixels, (5, 6, 6, 2)), (rows, IMAGE)
NETS = {  # what it is made of, its input type, features mask, and shape of the input
    "output": ([Output(n_out=2)], InputType.feed_forward(3), *ROWS),
    "dense": (
        [
            Dense(n_out=4, activation="swish", dropout=0.7, has_layer_norm=True),
            Dense(n_out=4, activation="sigmoid", dropout=GaussianNoise(0.3)),
            Output(n_out=2),
        ],
        InputType.feed_forward(3),
        *ROWS,
    ),
    "batch_norm": (
        [
            BatchNormalization(),
            ActivationLayer(activation="tanh"),
            DropoutLayer(dropout=AlphaDropout(0.8)),
            Dense(n_out=2),
            BatchNormalization(use_log_std=False),
            LossLayer(loss="mse"),
        ],
        InputType.feed_forward(3),
        *ROWS,
    ),
    "embedding": (
        [Embedding(n_in=7, n_out=3), Output(n_out=2)],
        InputType.feed_forward(1),
        rows,
        (5, 1),
    ),
    "lstm": (
        [LSTM(n_out=4, activation="tanh", dropout=0.8), RnnOutput(n_out=2)],
        InputType.recurrent(3),
        *SERIES,
    ),
    "lstm_nwc": (
        [LSTM(n_out=4, activation="tanh"), RnnOutput(n_out=2)],
        InputType.recurrent(3, format="NWC"),
        *STEPS,
    ),
    "dense_in_time": (
        [
            Dense(n_out=3, activation="tanh"),
            BatchNormalization(),
            LSTM(n_out=4),
            RnnOutput(n_out=2),
        ],
        InputType.recurrent(3),
        *SERIES,
    ),
    **{
        f"pool_{kind}": (
            [
                LSTM(n_out=4, activation="tanh"),
                GlobalPooling(pooling_type=kind),
                Output(n_out=2),
            ],
            InputType.recurrent(3),
            *SERIES,
        )
        for kind in ("MAX", "AVG", "SUM", "PNORM")
    },
    **{
        f"cnn_{kind}_{format}": (
            [
                Convolution2D(n_out=3, kernel_size=3, convolution_mode="Same"),
                BatchNormalization(),
                Subsampling(pooling_type=kind, kernel_size=2, pnorm=2),
                GlobalPooling(pooling_type=kind),
                Output(n_out=2),
            ],
            given,
            *where,
        )
        for kind in ("MAX", "AVG", "SUM", "PNORM")
        for format, given, where in (("NCHW", IMAGE, IMAGES), ("NHWC", NHWC, LAST))
    },
    "whole_images": (
        [Convolution2D(n_out=3, kernel_size=3), BatchNormalization(), Output(n_out=2)],
        IMAGE,
        rows,
        (5, 2, 6, 6),
    ),
    "plain_rnn": (
        [
            SimpleRnn(n_out=4, activation="tanh"),
            TimeDistributed(underlying=Dense(n_out=3, activation="tanh")),
            RnnOutput(n_out=2),
        ],
        InputType.recurrent(3),
        *SERIES,
    ),
    "convolution_in_time": (
        [
            Convolution1D(n_out=4, kernel_size=3, convolution_mode="Causal"),
            GlobalPooling(pooling_type="AVG"),
            Output(n_out=2),
        ],
        InputType.recurrent(3),
        *SERIES,
    ),
    "both_directions": (
        [
            Bidirectional(fwd=LSTM(n_out=4, activation="tanh")),
            LastTimeStep(underlying=SimpleRnn(n_out=3)),
            Output(n_out=2),
        ],
        InputType.recurrent(3),
        *SERIES,
    ),
    "frozen": (
        [
            Frozen(underlying=LSTM(n_out=4)),
            FrozenWithBackprop(underlying=LSTM(n_out=3)),
            MaskZero(underlying=LSTM(n_out=3)),
            RnnOutput(n_out=2),
        ],
        InputType.recurrent(3),
        *SERIES,
    ),
    "peepholes": (
        [
            GravesLSTM(n_out=4, activation="tanh", dropout=0.8),
            GravesBidirectionalLSTM(n_out=3, activation="softsign", dropout=0.8),
            MaskLayer(),
            LSTM(n_out=2),
            RnnLoss(activation="softmax"),
        ],
        InputType.recurrent(3),
        *SERIES,
    ),
    "attention": (
        [
            SelfAttention(n_out=4, n_heads=2),
            RecurrentAttention(n_out=3),
            RnnOutput(n_out=2),
        ],
        InputType.recurrent(3),
        *SERIES,
    ),
    "learned_attention": (
        [LearnedSelfAttention(n_out=4, n_heads=2, n_queries=4), RnnOutput(n_out=2)],
        InputType.recurrent(3),
        *SERIES,
    ),
    "indices": (
        [
            EmbeddingSequence(n_in=7, n_out=3, has_bias=True),
            GravesLSTM(n_out=4, activation="tanh"),
            RnnOutput(n_out=2),
        ],
        InputType.recurrent(1),
        series,
        (5, 1, 4),
    ),
    "repeated": (
        [RepeatVector(n=4), SimpleRnn(n_out=3), RnnOutput(n_out=2)],
        InputType.feed_forward(3),
        *ROWS,
    ),
    "flat_images": (
        [Convolution2D(n_out=3, kernel_size=3), GlobalPooling(), Output(n_out=2)],
        InputType.convolutional_flat(6, 6, 2),
        rows,
        (5, 72),
    ),
    **spatial.NETS,
}

NETS |= {
    "elementwise": (
        [
            config.PReLU(),
            config.ElementWiseMultiplication(),
            config.AutoEncoder(n_out=4),
            config.CenterLossOutput(n_out=2),
        ],
        InputType.feed_forward(3),
        *ROWS,
    ),
    "one_class": (
        [
            config.VariationalAutoencoder(n_out=3, encoder_layer_sizes=4),
            config.OCNNOutput(hidden_size=4),
        ],
        InputType.feed_forward(3),
        *ROWS,
    ),
    "capsules": (
        [
            config.PrimaryCapsules(capsule_dimensions=2, channels=2, kernel_size=3),
            config.Capsule(capsules=2, capsule_dimensions=3),
            config.CapsuleStrength(),
            LossLayer(loss="mse"),
        ],
        IMAGE,
        rows,
        (5, 2, 6, 6),
    ),
    "objects": (
        [
            Convolution2D(n_out=7, kernel_size=3, convolution_mode="Same"),
            config.Yolo2Output(bounding_boxes=(1.0, 2.0)),
        ],
        IMAGE,
        rows,
        (5, 2, 6, 6),
    ),
}


def network(name, exact=False, dtype="double", noise=True):
    layers, given, *_ = NETS[name]
    chain = builder(dtype).updater("adam", lr=0.05).l2(0.01).list()
    for layer in layers:
        chain.layer(layer if noise else replace(layer, dropout=None))
    return chain.input_type(given).build().module(exact)


def batch(name, dtype=torch.float64):
    """Features with 0 where the mask hides them, labels, mask, and where that is."""
    layers, _, mask, shape = NETS[name]
    g = torch.Generator().manual_seed(5)
    x = torch.randn(shape, generator=g, dtype=dtype)
    if isinstance(layers[0], (Embedding, EmbeddingSequence)):
        x = torch.randint(1, 7, shape, generator=g).to(dtype)
    mask = mask()
    y = torch.eye(2, dtype=dtype)[torch.randint(2, (5,), generator=g)]
    if isinstance(layers[-1], (RnnLoss, RnnOutput)):
        y = torch.eye(2, dtype=dtype)[torch.randint(2, (5, 4), generator=g)]
        y = y if name.endswith("nwc") else y.transpose(1, 2)
    if isinstance(layers[-1], config.Yolo2Output):
        y = torch.zeros(5, 6, 6, 6, dtype=dtype)  # nothing to be seen
    if name in spatial.PLACES:
        y = torch.eye(2, dtype=dtype)[
            torch.randint(2, spatial.PLACES[name], generator=g)
        ]
        y = y.movedim(-1, 1)
    if mask.dim() > 3:
        hidden = (mask.movedim(1, -1) if name.endswith("NHWC") else mask) == 0
    elif mask.dim() == 2:
        hidden = (mask == 0).unsqueeze(2 if name.endswith("nwc") else 1)
    else:
        hidden = (mask == 0).reshape(-1, *(1,) * (len(shape) - 1))
    hidden = hidden.expand(shape)
    return x.masked_fill(hidden, 0), y, mask, hidden
