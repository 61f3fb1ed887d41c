"""DL4J's weight initialisations as scipy's distributions of one weight."""

from __future__ import annotations

import numpy as np
from scipy import stats


def _normal(std):
    return stats.norm(0, std)


def _uniform(bound):
    return stats.uniform(-bound, 2 * bound)


def _truncated(std):
    return stats.truncnorm(-2, 2, loc=0, scale=std)


def xavier(fi, fo, shape):
    return _normal(np.sqrt(2.0 / (fi + fo)))


def xavier_uniform(fi, fo, shape):
    return _uniform(np.sqrt(6.0) / np.sqrt(fi + fo))


def xavier_legacy(fi, fo, shape):
    return _normal((shape[0] + shape[1]) ** -0.5)


def normal(fi, fo, shape):
    return _normal(fi**-0.5)


def relu(fi, fo, shape):
    return _normal(np.sqrt(2.0) / np.sqrt(fi))


def relu_uniform(fi, fo, shape):
    return _uniform(np.sqrt(6.0) / np.sqrt(fi))


def sigmoid_uniform(fi, fo, shape):
    return _uniform(np.sqrt(96.0 / (fi + fo)))


def uniform(fi, fo, shape):
    return _uniform(fi**-0.5)


def lecun_uniform(fi, fo, shape):
    return _uniform(np.sqrt(9.0 / fi))


def var_scaling_normal_fan_in(fi, fo, shape, scale=1.0):
    return _truncated((scale / fi) ** 0.5)


def var_scaling_normal_fan_out(fi, fo, shape, scale=1.0):
    return _truncated((scale / fo) ** 0.5)


def var_scaling_normal_fan_avg(fi, fo, shape, scale=1.0):
    return _truncated((scale / np.mean([fi, fo])) ** 0.5)


def var_scaling_uniform_fan_in(fi, fo, shape, scale=1.0):
    return _uniform(scale * np.sqrt(9.0 / fi))


def var_scaling_uniform_fan_out(fi, fo, shape, scale=1.0):
    return _uniform(scale * np.sqrt(9.0 / fo))


def var_scaling_uniform_fan_avg(fi, fo, shape, scale=1.0):
    return _uniform(scale * np.sqrt(9.0 / np.mean([fi, fo])))


DISTRIBUTIONS = {
    "normal": lambda mean, std: stats.norm(mean, std),
    "gaussian": lambda mean, std: stats.norm(mean, std),
    "uniform": lambda lower, upper: stats.uniform(lower, upper - lower),
    "truncated_normal": lambda mean, std: stats.truncnorm(-2, 2, loc=mean, scale=std),
    "log_normal": lambda mean, std: stats.lognorm(std, scale=np.exp(mean)),
    "binomial": lambda number_of_trials, probability_of_success: stats.binom(
        number_of_trials, probability_of_success
    ),
}
