"""Random numbers inside compiled loops: a stream for every row, so that draws do not depend on who works on a row. Internal.

A stream is the generator SplitMix64 (Steele, Lea and Flood 2014) started at a mix of a key, drawn once an update from NumPy's
generator, and the row's number. Normals are Marsaglia and Tsang's (2000a) ziggurat with 256 layers, gammas are from their
rejection of cubed normals (2000b).
"""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled

__all__ = ["gamma", "normals", "start", "uniform"]

_STEP, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-53
LAYERS = 256
TAIL, AREA = 3.6541528853610088, 0.00492867323399  # where the base layer ends; area of each layer


def _layers() -> tuple[np.ndarray, np.ndarray]:
    """Right ends of the layers, the widest first and 0 last, and the density exp(-x^2 / 2) there."""
    x = np.zeros(LAYERS + 1)
    x[0], x[1] = AREA / np.exp(-0.5 * TAIL**2), TAIL
    for i in range(2, LAYERS):
        x[i] = np.sqrt(-2.0 * np.log(AREA / x[i - 1] + np.exp(-0.5 * x[i - 1] ** 2)))
    return x, np.exp(-0.5 * x**2)


_ENDS, _HEIGHTS = _layers()


@compiled
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


@compiled
def _unit(z):
    """A number in [0, 1) from the upper bits."""
    return np.float64(z >> np.uint64(11)) * _UNIT


@compiled
def start(key, row):
    """Where the stream of a row starts, for a key (uint64)."""
    return _mix(key ^ _mix(np.uint64(row) * _STEP + _STEP))


@compiled
def uniform(state, k):
    """The k-th number in [0, 1) of a stream."""
    return _unit(_mix(state + np.uint64(k + 1) * _STEP))


@compiled
def _normal(state):
    """A standard normal, and where the stream goes on."""
    while True:
        state += _STEP
        z = _mix(state)
        layer = np.int64(z & np.uint64(LAYERS - 1))
        u = 2.0 * _unit(z) - 1.0
        x = u * _ENDS[layer]
        if abs(x) < _ENDS[layer + 1]:
            return x, state
        state += _STEP
        v = _unit(_mix(state))
        if layer > 0:
            if _HEIGHTS[layer] + v * (_HEIGHTS[layer + 1] - _HEIGHTS[layer]) < np.exp(-0.5 * x * x):
                return x, state
            continue
        # the tail beyond the base layer (Marsaglia 1964)
        state += _STEP
        beyond = -np.log(1.0 - v) / TAIL
        if -2.0 * np.log(1.0 - _unit(_mix(state))) > beyond * beyond:
            return (TAIL + beyond if u > 0.0 else -TAIL - beyond), state


@compiled
def normals(key, out, first, last):
    """Fill rows first..last of ``out`` (row, size) with standard normals, each row from its stream."""
    for row in range(first, last):
        state = start(key, row)
        for k in range(out.shape[1]):
            out[row, k], state = _normal(state)


@compiled
def gamma(state, shape):
    """A gamma variable with this shape, at least 1, and scale 1, from a stream."""
    d = shape - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    while True:
        x, state = _normal(state)
        state += _STEP
        u = 1.0 - _unit(_mix(state))
        v = (1.0 + c * x) ** 3
        if v > 0.0 and np.log(u) < 0.5 * x * x + d - d * v + d * np.log(v):
            return d * v
