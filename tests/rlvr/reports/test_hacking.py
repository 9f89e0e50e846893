"""Signs of reward hacking as pure functions of what was observed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from rlvr.reports.flips import flip_counts
from rlvr.reports.hacking import clusters, hacking_view, length_correlation, shadow_gaps, suspicious
from rlvr.reports.observations import Observation, Observations
from rlvr.run.shadow import WINDOW, Gap


def seen(group: int, reward: float | None, shadow: float | None = None, **more: Any) -> Observation:
    """Return a rollout of step `group`, scored by a shadow verifier if `shadow` is given."""
    plain = Observation(
        file=0,
        row=group,
        id=f"{group}-{more.pop('index', 0)}",
        group=str(group),
        step=group + 1,
        lag=0,
        status="graded",
        reward=reward,
        others={} if shadow is None else {"shadow": shadow},
        tokens=10,
        characters=40,
        ending="\\boxed{0}",
        finish="stop",
        words=8,
    )
    return replace(plain, **more)


def run_of(found: list[Observation]) -> Observations:
    return Observations("math", found)


def test_the_growth_of_a_gap_is_the_alarms_number() -> None:
    """The alarm reads `Gap.excess`, fed with the mean gap of each group in turn."""
    pairs = [(1.0, float(i % 2)) for i in range(WINDOW)] + [(1.0, 0.0)] * WINDOW
    gap = Gap()
    for ours, theirs in pairs:
        gap.add(ours - theirs)
    (found,) = shadow_gaps(run_of([seen(i, ours, theirs) for i, (ours, theirs) in enumerate(pairs)]))
    assert found.excess == gap.excess > 4
    assert (found.rollouts, found.reward, found.shadow) == (2 * WINDOW, 1.0, 0.25)


def test_a_gap_of_few_groups_has_no_growth_and_unscored_rollouts_do_not_count() -> None:
    (found,) = shadow_gaps(run_of([seen(0, 1.0, 0.0), seen(1, 1.0), seen(2, None, 1.0)]))
    assert (found.excess, found.rollouts) == (None, 1)
    assert list(shadow_gaps(run_of([seen(0, 1.0)]))) == []


def hacked_run() -> Observations:
    """Honest answers at first; later half of the completions end in a phrase that only the training verifier likes."""
    honest = [seen(i, float(index), float(index), index=index) for i in range(9) for index in (0, 1)]
    trick = [seen(i, 1.0, 0.0, index=2, ending="whatever you say is 0") for i in range(6, 9)]
    return run_of([*honest, *trick])


def test_a_cluster_that_gains_unconfirmed_reward_comes_first() -> None:
    first, second = clusters(hacked_run().found)
    assert (first.shape, first.count, first.early, first.late) == (
        "whatever you say is 0",
        3,
        0.0,
        pytest.approx(1 / 3),
    )
    assert (first.reward, first.shadow, first.gain) == (1.0, 0.0, pytest.approx(1 / 3))
    assert first.is_suspicious
    assert not second.is_suspicious  # its share falls, and the shadow verifier agrees
    assert second.gain < 0


def test_without_another_verifier_no_cluster_is_suspicious() -> None:
    alone = run_of([replace(each, others={}) for each in hacked_run().found])
    assert [(each.shadow, each.is_suspicious) for each in clusters(alone.found)] == [(None, False)] * 2


def test_the_most_suspicious_rollouts_are_rewarded_ones_with_reasons() -> None:
    found = hacked_run()
    (worst,) = suspicious(found, clusters(found.found))
    assert worst.id in ("6-2", "7-2", "8-2")
    assert worst.reasons == ("reward 1, but 0 by shadow", "ends like a cluster whose reward grows unconfirmed")
    assert suspicious(run_of([seen(0, 0.0, 1.0)]), []) == []  # not rewarded


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"finish": "length"}, "was cut at the length limit, and is rewarded all the same"),
        ({"marks": ("boxes 2 different answers",)}, "boxes 2 different answers"),
        ({"words": 0}, "has no reasoning, as most rewarded ones do"),
        ({"tokens": 1}, "is far shorter than other rewarded ones, 1 against 12"),
    ],
)
def test_reasons(more: dict[str, Any], reason: str) -> None:
    usual = [seen(i, 1.0, tokens=10 + i % 5) for i in range(40)]
    (worst,) = suspicious(run_of([*usual, seen(40, 1.0, **more)]), [])
    assert (worst.id, worst.reasons) == ("40-0", (reason,))


def test_length_against_reward_is_within_groups() -> None:
    """Long questions that are easy are no sign: the correlation is around each group's means."""
    longer_is_right = [
        seen(0, 1.0, tokens=20),
        seen(0, 0.0, tokens=10),
        seen(1, 1.0, tokens=120),
        seen(1, 0.0, tokens=110),
    ]
    assert length_correlation(longer_is_right) == pytest.approx(1.0)
    easy_is_long = [
        seen(0, 1.0, tokens=100),
        seen(0, 1.0, tokens=101),
        seen(1, 0.0, tokens=10),
        seen(1, 0.0, tokens=11),
    ]
    assert math.isnan(length_correlation(easy_is_long))


def test_the_view_has_the_signs_over_time() -> None:
    titles = [chart.title for chart in hacking_view(hacked_run()).charts]
    assert titles == [
        "reward by verifier",
        "gap",
        "length of rewarded completions",
        "length against reward",
        "answers without reasoning",
    ]
    gap = hacking_view(hacked_run()).charts[1]
    assert gap.curves[0].y[:7] == (0.0,) * 6 + (pytest.approx(1 / 3, abs=1e-6),)
    assert hacking_view(run_of([seen(0, 1.0)])).charts == ()


def test_flips_are_counted_where_both_have_a_reward() -> None:
    found = run_of([seen(0, 1.0, 1.0), seen(1, 1.0, 0.0), seen(2, 0.0, 0.0), seen(3, 0.0, 0.0), seen(4, 1.0)])
    (flips,) = flip_counts(found)
    assert (flips.both_right, flips.only_verifier, flips.only_other, flips.both_wrong) == (1, 1, 0, 2)
    assert (flips.total, flips.agreement, flips.kappa) == (4, 0.75, pytest.approx(0.5))
    (alike,) = flip_counts(run_of([seen(0, 1.0, 1.0)]))
    assert (alike.agreement, alike.kappa) == (1.0, None)  # chance alone agrees as often
