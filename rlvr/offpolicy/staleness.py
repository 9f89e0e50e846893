"""Distances between samples and a policy, by lag: pure functions of numpy arrays, in float64.

Shapes: N = sampled tokens of all rollouts, flat; P = parts that tokens are divided into (buckets of lag, files);
R = rollouts.

w = π/α is the importance weight under π of what α sampled. log w of a token is the difference of its log-probabilities;
log w of a rollout (a sequence) is the sum over its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

LAG_STARTS = (0, 1, 4, 8, 16, 32, 64)
BUCKETS = ("0", "1-3", "4-7", "8-15", "16-31", "32-63", "64-up", "newer", "unknown")
"""Lag in optimizer steps: the model's version minus the version that sampled. `newer` is a lag below 0. `unknown` is a
record without versions, or with those of another lineage."""
NEWER, UNKNOWN = BUCKETS.index("newer"), BUCKETS.index("unknown")


def bucket_of(lag_N: npt.ArrayLike, known_N: npt.ArrayLike) -> Ints:
    """Return the (N,) index into `BUCKETS`. The lag is ignored where `known_N` is False."""
    lag_N = np.asarray(lag_N)
    bucket_N = np.searchsorted(LAG_STARTS, lag_N, side="right") - 1
    return np.where(known_N, np.where(lag_N < 0, NEWER, bucket_N), UNKNOWN).astype(np.int64)


def oldest(part_N: Ints, row_N: Ints, rows: int) -> Ints:
    """Return the (rows,) part that a rollout counts in: the last of its tokens' parts; -1 without tokens.

    For buckets of lag that is the oldest token's, and `unknown` if any token's is unknown.
    """
    part_R = np.full(rows, -1, dtype=np.int64)
    np.maximum.at(part_R, row_N, part_N)
    return part_R


def means(values_N: npt.ArrayLike, part_N: Ints, parts: int) -> Floats:
    """Return the (P,) means of the parts' values; NaN for an empty part."""
    with np.errstate(all="ignore"):
        return _sums(np.asarray(values_N, dtype=np.float64), part_N, parts) / np.bincount(part_N, minlength=parts)


def effective_sample_size(log_w_N: Floats, part_N: Ints, parts: int) -> Floats:
    """Return the (P,) effective sample sizes (Σw)² / (n Σw²), in (0, 1]; NaN where n is 0.

    It is the share of n samples that on-policy data would be worth. Computed through logarithms, since a weight may be
    e^1000.
    """
    with np.errstate(all="ignore"):
        n_P = np.bincount(part_N, minlength=parts)
        log_sum_P, log_squares_P = (_log_sum_exp(scale * log_w_N, part_N, parts) for scale in (1, 2))
        ess_P: Floats = np.exp(2 * log_sum_P - log_squares_P) / n_P
    return ess_P


def distances(log_w_N: Floats, row_N: Ints, part_N: Ints, parts: int) -> Mapping[str, Floats]:
    """Return name → (P,) distance of each part; NaN for a part without tokens.

    - log_w_mean, log_w_square: mean log w and (log w)² per token.
    - ratio_mean, ratio_max: mean and largest w of a token.
    - kl_k1 = mean(-log w), kl_k3 = mean(w - 1 - log w): estimates of KL(α‖π) in nats per token; k3 is never negative.
    - chi2 = mean(w²) - 1 per token: an estimate of χ²(π‖α).
    - ess_token, ess_sequence: effective sample size over the weights of tokens, and over those of rollouts, which are
      products over tokens. A rollout counts in its `oldest` part.

    Args:
        log_w_N: log π - log α of each sampled token.
        row_N: Rollout of the token, counted from 0.
        part_N: Part of the token.
        parts: P.
    """
    rows = int(row_N.max(initial=-1)) + 1
    part_R = oldest(part_N, row_N, rows)
    log_w_R = _sums(log_w_N, row_N, rows)
    has_tokens_R = part_R >= 0
    with np.errstate(all="ignore"):
        w_N = np.exp(log_w_N)
        return {
            "log_w_mean": means(log_w_N, part_N, parts),
            "log_w_square": means(np.square(log_w_N), part_N, parts),
            "ratio_mean": means(w_N, part_N, parts),
            "ratio_max": np.exp(_max(log_w_N, part_N, parts)),
            "kl_k1": means(-log_w_N, part_N, parts),
            "kl_k3": means(np.expm1(log_w_N) - log_w_N, part_N, parts),
            "chi2": means(np.square(w_N), part_N, parts) - 1,
            "ess_token": effective_sample_size(log_w_N, part_N, parts),
            "ess_sequence": effective_sample_size(log_w_R[has_tokens_R], part_R[has_tokens_R], parts),
        }


def _sums(values_N: Floats, part_N: Ints, parts: int) -> Floats:
    sums: Any = np.bincount(part_N, weights=values_N, minlength=parts)  # numpy's types forget that weights make floats
    return np.asarray(sums, dtype=np.float64)


def _max(values_N: Floats, part_N: Ints, parts: int) -> Floats:
    """Return the (P,) maxima; NaN for an empty part."""
    top_P = np.full(parts, -np.inf)
    np.maximum.at(top_P, part_N, values_N)
    return np.where(np.bincount(part_N, minlength=parts) > 0, top_P, np.nan)


def _log_sum_exp(values_N: Floats, part_N: Ints, parts: int) -> Floats:
    top_P = _max(values_N, part_N, parts)
    shift_P = np.where(np.isfinite(top_P), top_P, 0.0)
    return shift_P + np.log(_sums(np.exp(values_N - shift_P[part_N]), part_N, parts))
