"""Statistics of two verdicts on the same rollouts. Rollouts of one prompt are not independent of each other.

Every statistic is a function of sums over clusters (the rollouts of one prompt), so a bootstrap that draws whole
clusters is one matrix product.

Shapes: N = rollouts; G = clusters; M = sums that a statistic is made of; B = resamples.
"""

from __future__ import annotations

import numpy as np

from rlvr.draws import Key, draw
from rlvr.evaluation.figures import Floats, ratio

AT_ONCE = 1 << 22  # drawn clusters held at a time: 32 MiB


def resampled_sums(sums_GM: Floats, resamples: int, *key: Key, at_once: int = AT_ONCE) -> Floats:
    """Return column sums (B, M) over G clusters drawn with replacement, for each resample. `key` determines the draws.

    At most `at_once` drawn clusters are held at a time, but at least those of one resample.

    The cluster bootstrap: Field and Welsh, "Bootstrapping clustered data", 2007, §3.1.
    """
    clusters = len(sums_GM)
    generator = np.random.default_rng(draw("paired", *key))
    step = max(1, at_once // max(1, clusters))
    chunks = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters)
        chunks.append(times.astype(np.float64) @ sums_GM)
    return np.concatenate(chunks) if chunks else np.empty((0, sums_GM.shape[1]))


def interval(samples: Floats, level: float = 0.95) -> tuple[float, float] | None:
    """Return the percentile interval of a resampled statistic. Samples that are not defined (NaN) are left out.

    None if no sample is defined.
    """
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def kappa(both: Floats, only_a: Floats, only_b: Floats, neither: Floats) -> Floats:
    """Return Cohen's κ = (p_o - p_e) / (1 - p_e) of two yes-or-no raters, from the counts of the four cases.

    Written out, it is one fraction of whole numbers, so only the division rounds. Cohen, "A coefficient of agreement
    for nominal scales", 1960. NaN if both raters gave every item the same answer: there is no agreement beyond chance.
    """
    apart = (both + only_a) * (only_a + neither) + (both + only_b) * (only_b + neither)
    return ratio(2 * (both * neither - only_a * only_b), apart)
