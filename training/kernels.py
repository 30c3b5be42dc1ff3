"""Kernels of a train step on a CPU: the passes between products of matrices, each over its memory once.

torch without compilation makes several passes of every such part (widen, compute, add, narrow), and on a CPU they took
half of a train step of a small model. Values are read as they lie, bfloat16 (its bits as uint16) or float32, are
computed in float32 and rounded once at the end. Sums run in 16 or 64 partial sums of a fixed order: the same bits on
any machine and for any number of threads. NaN and infinity come out where they went in.

Every kernel works on rows `first` to `last`, so that threads can share them (`training.fused`).
Shapes: N tokens, D width, C tokens of a chunk, V vocabulary, B sequences, T tokens of one, H heads, E width of a head,
S documents of a group, L tokens of its longest, P pairs of document and head, R keys of a block, Q queries from its
first key on.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import float32, uint16, uint32
from numba.extending import intrinsic, overload

from curation.kernels import inline_kernel, kernel

# Rows whose gradients of a norm's weights are added up in one partial sum.
NORM_ROWS = 32


@intrinsic
def _float_of(context: Any, bits: Any) -> Any:
    """The float32 of 32 bits."""
    return float32(uint32), lambda _context, builder, _signature, values: builder.bitcast(values[0], ir.FloatType())


@intrinsic
def _bits_of(context: Any, value: Any) -> Any:
    """The 32 bits of a float32."""
    return uint32(float32), lambda _context, builder, _signature, values: builder.bitcast(values[0], ir.IntType(32))


@intrinsic
def _quotient(context: Any, above: Any, below: Any) -> Any:
    """A float32 by another, without numba's look for a zero, which would keep loops from being vectorised."""
    return float32(float32, float32), lambda _context, builder, _signature, values: builder.fdiv(*values)


def wide(stored):
    """A stored value as float32."""


@overload(wide)
def _wide(stored):
    if stored == numba.types.uint16:
        return lambda stored: _float_of(uint32(stored) << uint32(16))
    return lambda stored: stored


def narrow(value, like):
    """A float32 as it is stored beside `like`, rounded to nearest even."""


@overload(narrow)
def _narrow(value, like):
    def bfloat16(value, like):
        bits = _bits_of(value)
        # A NaN of the processor's (0x7FC00000) or of bfloat16 stays one: nothing is carried into its sign.
        return uint16((bits + uint32(0x7FFF) + ((bits >> uint32(16)) & uint32(1))) >> uint32(16))

    if like == numba.types.uint16:
        return bfloat16
    return lambda value, like: value


@inline_kernel
def exponential(value):
    """e^value for float32, wrong by at most 1.2e-7 of it; below -87 as at -87, above 88 as at 88.

    2^n times e^r, where n is the whole part of value / ln 2 and e^r a polynomial (Cephes, expf).
    """
    value = float32(-87.0) if value < float32(-87.0) else value
    value = float32(88.0) if value > float32(88.0) else value
    # Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
    shifted = value * float32(1.44269504) + float32(12582912.0)
    whole = shifted - float32(12582912.0)
    rest = value - whole * float32(0.693359375)
    rest = rest - whole * float32(-2.12194440e-4)
    power = float32(1.9875691500e-4)
    power = power * rest + float32(1.3981999507e-3)
    power = power * rest + float32(8.3334519073e-3)
    power = power * rest + float32(4.1665795894e-2)
    power = power * rest + float32(1.6666665459e-1)
    power = power * rest + float32(5.0000001201e-1)
    power = power * rest * rest + rest + float32(1.0)
    return power * _float_of((_bits_of(shifted) + uint32(127)) << uint32(23))


@kernel
def cross_entropy(first, last, scores_CV, targets_C, weights_C, told_C2, z_loss, grads):
    """Write each token's nats and log(Z) and, with `grads`, the gradients of its logits in place of the logits."""
    V = scores_CV.shape[1]
    whole = V // 64 * 64
    exact_V, lanes = np.empty(V, np.float32), np.empty(64, np.float32)
    for token in range(first, last):
        row, target = scores_CV[token], targets_C[token]
        lanes[:] = float32(-np.inf)
        for start in range(0, whole, 64):
            for lane in range(64):
                value = wide(row[start + lane])
                exact_V[start + lane] = value
                lanes[lane] = lanes[lane] if lanes[lane] > value else value
        for place in range(whole, V):
            exact_V[place] = wide(row[place])
            lanes[0] = max(lanes[0], exact_V[place])
        highest = lanes[0]
        for lane in range(1, 64):
            highest = max(highest, lanes[lane])
        at_target = exact_V[target] - highest
        lanes[:] = float32(0.0)
        for start in range(0, whole, 64):
            for lane in range(64):
                value = exponential(exact_V[start + lane] - highest)
                exact_V[start + lane] = value
                lanes[lane] += value
        for place in range(whole, V):
            exact_V[place] = exponential(exact_V[place] - highest)
            lanes[0] += exact_V[place]
        total = float32(0.0)
        for lane in range(64):
            total += lanes[lane]
        log_total = float32(math.log(total))
        log_z = highest + log_total
        told_C2[token, 0], told_C2[token, 1] = log_total - at_target, log_z
        if grads:
            weight = weights_C[token]
            scale = weight * (float32(1.0) + float32(2.0) * z_loss * log_z) / total
            for place in range(V):
                row[place] = narrow(exact_V[place] * scale, row[0])
            row[target] = narrow(exact_V[target] * scale - weight, row[0])


@kernel
def add_into(first, last, sums_ND, start, parts_NP):
    """Add rows of float32 or bfloat16 to rows of float32, from column `start` on."""
    for row in range(first, last):
        sums, parts = sums_ND[row, start:], parts_NP[row]
        for place in range(parts.shape[0]):
            sums[place] += wide(parts[place])


@kernel
def norm_forward(first, last, x_ND, weight_D, epsilon, out_ND, inverse_N):
    """Divide rows by their root mean square and keep what was multiplied with."""
    D = x_ND.shape[1]
    lanes = np.empty(16, np.float32)
    for token in range(first, last):
        row, out = x_ND[token], out_ND[token]
        lanes[:] = float32(0.0)
        for start in range(0, D // 16 * 16, 16):
            for lane in range(16):
                value = wide(row[start + lane])
                lanes[lane] += value * value
        for place in range(D // 16 * 16, D):
            value = wide(row[place])
            lanes[0] += value * value
        total = float32(0.0)
        for lane in range(16):
            total += lanes[lane]
        inverse = float32(1.0) / float32(math.sqrt(total / float32(D) + epsilon))
        inverse_N[token] = inverse
        for place in range(D):
            out[place] = narrow(wide(row[place]) * inverse * weight_D[place], out[0])


@kernel
def norm_backward(first, last, x_ND, weight_D, inverse_N, grad_ND, grad_x_ND, grad_weight_SD):
    """Gradients of `norm_forward`; S sums of `NORM_ROWS` rows each for the weights, `first` and `last` count those."""
    N, D = x_ND.shape
    lanes = np.empty(16, np.float32)
    for part in range(first, last):
        sums = grad_weight_SD[part]
        sums[:] = float32(0.0)
        for token in range(part * NORM_ROWS, min(N, (part + 1) * NORM_ROWS)):
            row, grad, out, inverse = x_ND[token], grad_ND[token], grad_x_ND[token], inverse_N[token]
            lanes[:] = float32(0.0)
            for start in range(0, D // 16 * 16, 16):
                for lane in range(16):
                    place = start + lane
                    lanes[lane] += wide(grad[place]) * weight_D[place] * wide(row[place])
            for place in range(D // 16 * 16, D):
                lanes[0] += wide(grad[place]) * weight_D[place] * wide(row[place])
            along = float32(0.0)
            for lane in range(16):
                along += lanes[lane]
            along = along * inverse * inverse / float32(D)
            for place in range(D):
                value, slope = wide(row[place]), wide(grad[place])
                sums[place] += slope * value * inverse
                out[place] = narrow((slope * weight_D[place] - value * along) * inverse, out[0])


@kernel
def swiglu_forward(first, last, gate_ND, up_ND, out_ND):
    """Multiply gate, sigmoid(gate) and up."""
    for token in range(first, last):
        for place in range(gate_ND.shape[1]):
            gate = wide(gate_ND[token, place])
            passed = _quotient(gate, float32(1.0) + exponential(-gate))
            out_ND[token, place] = narrow(passed * wide(up_ND[token, place]), out_ND[0, 0])


@kernel
def swiglu_backward(first, last, gate_ND, up_ND, grad_ND, grad_gate_ND, grad_up_ND):
    """Gradients of `swiglu_forward`."""
    for token in range(first, last):
        for place in range(gate_ND.shape[1]):
            gate, up, grad = wide(gate_ND[token, place]), wide(up_ND[token, place]), wide(grad_ND[token, place])
            open_ = _quotient(float32(1.0), float32(1.0) + exponential(-gate))
            slope = open_ * (float32(1.0) + gate * (float32(1.0) - open_))
            grad_gate_ND[token, place] = narrow(grad * up * slope, grad_gate_ND[0, 0])
            grad_up_ND[token, place] = narrow(grad * gate * open_, grad_up_ND[0, 0])


@kernel
def gather(first, last, x_NHE, starts_S, lengths_S, out_PLE):
    """Bring documents from tokens of heads to heads of tokens, with zeros behind the end of shorter ones."""
    H = x_NHE.shape[1]
    for pair in range(first, last):
        start, length, head, rows = starts_S[pair // H], lengths_S[pair // H], pair % H, out_PLE[pair]
        for token in range(length):
            x, out = x_NHE[start + token, head], rows[token]
            for place in range(x.shape[0]):
                out[place] = x[place]
        rows[length:] = narrow(float32(0.0), out_PLE[0, 0, 0])


@kernel
def scatter(first, last, x_PLE, starts_S, lengths_S, out_NHE):
    """The inverse of `gather`, which leaves out what stands behind a document's end."""
    H = out_NHE.shape[1]
    for pair in range(first, last):
        start, head = starts_S[pair // H], pair % H
        for token in range(lengths_S[pair // H]):
            x, out = x_PLE[pair, token], out_NHE[start + token, head]
            for place in range(x.shape[0]):
                out[place] = narrow(wide(x[place]), out[0])


@kernel
def rotate(first, last, x_NHE, starts_S, lengths_S, cos_TE, sin_TE, out_PLE):
    """As `gather`, and turn pairs (e, e + E/2) by the angle of their token's position in its sequence of T tokens."""
    T, H, half = cos_TE.shape[0], x_NHE.shape[1], x_NHE.shape[2] // 2
    for pair in range(first, last):
        start, length, head, rows = starts_S[pair // H], lengths_S[pair // H], pair % H, out_PLE[pair]
        for token in range(length):
            x, out = x_NHE[start + token, head], rows[token]
            cosines, sines = cos_TE[(start + token) % T], sin_TE[(start + token) % T]
            for place in range(half):
                cos, sin = cosines[place], sines[place]
                left, right = wide(x[place]), wide(x[place + half])
                out[place] = narrow(left * cos - right * sin, out[0])
                out[place + half] = narrow(right * cos + left * sin, out[0])
        rows[length:] = narrow(float32(0.0), out_PLE[0, 0, 0])


@kernel
def rotate_back(first, last, x_PLE, starts_S, lengths_S, cos_TE, sin_TE, out_NHE):
    """The inverse of `rotate`, and so its backward."""
    T, H, half = cos_TE.shape[0], out_NHE.shape[1], out_NHE.shape[2] // 2
    for pair in range(first, last):
        start, head = starts_S[pair // H], pair % H
        for token in range(lengths_S[pair // H]):
            x, out = x_PLE[pair, token], out_NHE[start + token, head]
            cosines, sines = cos_TE[(start + token) % T], sin_TE[(start + token) % T]
            for place in range(half):
                cos, sin = cosines[place], sines[place]
                left, right = wide(x[place]), wide(x[place + half])
                out[place] = narrow(left * cos + right * sin, out[0])
                out[place + half] = narrow(right * cos - left * sin, out[0])


@kernel
def gather_heads(first, last, y_NHE, grad_NHE, starts_S, lengths_S, grad_PLE, delta_PL):
    """As `gather` for an output's gradient, and add up output times gradient."""
    H, E = y_NHE.shape[1:]
    lanes = np.empty(16, np.float32)
    for pair in range(first, last):
        start, length, head = starts_S[pair // H], lengths_S[pair // H], pair % H
        grad_PLE[pair, length:] = narrow(float32(0.0), grad_PLE[0, 0, 0])
        delta_PL[pair, length:] = float32(0.0)
        for token in range(length):
            y, grad, out = y_NHE[start + token, head], grad_NHE[start + token, head], grad_PLE[pair, token]
            lanes[:] = float32(0.0)
            for lanes_start in range(0, E // 16 * 16, 16):
                for lane in range(16):
                    lanes[lane] += wide(y[lanes_start + lane]) * wide(grad[lanes_start + lane])
            for place in range(E // 16 * 16, E):
                lanes[0] += wide(y[place]) * wide(grad[place])
            total = float32(0.0)
            for lane in range(16):
                total += lanes[lane]
            delta_PL[pair, token] = total
            for place in range(E):
                out[place] = grad[place]


@kernel
def softmax_backward(first, last, scores_GRQ, grads_GRQ, log_z_GQ, delta_GQ, scale):
    """Scores to probabilities, and gradients of probabilities to gradients of scores, both in their place.

    Rows are keys, columns the queries from the block's first key on: in the square that comes first, queries before a
    key do not see it. `first` and `last` count rows of all G pairs together.
    """
    R, Q = scores_GRQ.shape[1:]
    for row in range(first, last):
        pair, key = row // R, row % R
        scores, grads = scores_GRQ[pair, key], grads_GRQ[pair, key]
        for query in range(key):
            scores[query] = narrow(float32(0.0), scores[0])
            grads[query] = narrow(float32(0.0), grads[0])
        # Counted from 0: an index that might be negative keeps numba's loops from being vectorised.
        seen, slopes, log_zs, deltas = scores[key:], grads[key:], log_z_GQ[pair, key:], delta_GQ[pair, key:]
        for query in range(Q - key):
            weight = exponential(wide(seen[query]) * scale - log_zs[query])
            seen[query] = narrow(weight, seen[0])
            slopes[query] = narrow(weight * (wide(slopes[query]) - deltas[query]) * scale, slopes[0])
