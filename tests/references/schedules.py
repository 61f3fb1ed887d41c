"""DL4J's schedules, written from their definitions with NumPy and plain loops."""

from __future__ import annotations

import numpy as np


def fixed(i, value):
    return value


def exponential(i, initial_value, gamma):
    out = np.float64(initial_value)
    for _ in range(i):
        out = out * gamma
    return out


def inverse(i, initial_value, gamma, power):
    return initial_value * np.exp(-power * np.log1p(gamma * i))


def poly(i, initial_value, power, max_iter):
    left = np.clip((max_iter - i) / max_iter, 0, None)
    return initial_value * np.power(left, power) * (i < max_iter)


def exact_poly(i, initial_value, power, max_iter):
    return initial_value * np.power((max_iter + i) / max_iter, power) * (i < max_iter)


def sigmoid(i, initial_value, gamma, step_size):
    return initial_value * (1 + np.tanh(gamma * (i - step_size) / 2)) / 2


def step(i, initial_value, decay_rate, step):
    out = np.float64(initial_value)
    for _ in range(int(i // step)):
        out = out * decay_rate
    return out


def map(i, values):  # noqa: A001
    keys = np.array(sorted(values))
    return values[int(keys[np.searchsorted(keys, i, side="right") - 1])]


def cycle(
    i,
    initial_learning_rate,
    max_learning_rate,
    cycle_length,
    annealing_length,
    annealing_decay,
):
    half = (cycle_length - annealing_length) // 2
    corners = [initial_learning_rate, max_learning_rate, initial_learning_rate]
    position = i % cycle_length
    if position < 2 * half:
        return np.interp(position, [0, half, 2 * half], corners)
    start = cycle_length - annealing_length
    return initial_learning_rate * np.power(annealing_decay, float(position - start))


def ramp(i, base_schedule, num_iter):
    return base_schedule(i, i) * (min(i + 1, num_iter) / num_iter)
