"""Shadow verifiers: what they score, that nothing is trained on it, and when the gap to the reward is an alarm."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

import small_runs
from rlvr.alarms import Alarms, fired
from rlvr.errors import ConfigError
from rlvr.record.store import read_rollouts
from rlvr.run.groups import by_group, stats_of
from rlvr.run.plan import make_plan
from rlvr.run.shadow import WINDOW, Gap

SHADOW = """
import rlvr

@rlvr.verifier(name="half", version="1", needs_answer=False)
def half(completion, task):
    return 0.5
"""


def filled(*gaps: float) -> Gap:
    gap = Gap()
    for each in gaps:
        gap.add(each)
    return gap


def test_growth_is_measured_in_its_own_standard_errors() -> None:
    first, newest = [0.0, 0.5] * (WINDOW // 2), [0.5, 1.0] * (WINDOW // 2)
    assert math.isnan(filled(*first, *newest[:-1]).excess), "the second window is not full"
    variance = 0.25**2 * WINDOW / (WINDOW - 1)
    assert filled(*first, *newest).excess == pytest.approx(0.5 / math.sqrt(2 * variance / WINDOW))
    assert filled(*first, *[9.0] * 50, *newest).excess == filled(*first, *newest).excess, "only the newest count"
    assert filled(*[0.0] * WINDOW, *[0.0] * (WINDOW - 1), 0.5).excess == 1.0, "one group after none is no alarm"


def test_noise_sets_no_alarm_off_and_a_policy_that_exploits_its_verifier_does() -> None:
    draw = random.Random(3)
    gap, worst = Gap(), 0.0
    for _ in range(1500):
        gap.add(draw.choice([-0.25, 0.0, 0.0, 0.25]))
        worst = max(worst, gap.excess if not math.isnan(gap.excess) else 0.0)
    assert not fired({"shadow/excess": worst}, Alarms()), worst
    for _ in range(WINDOW):
        gap.add(draw.choice([0.0, 0.25, 0.25, 0.5]))
    (alarm,) = fired({"shadow/excess": gap.excess}, Alarms())
    assert (alarm.alarm, alarm.consequence) == ("hacking", "warn")


def test_a_gap_continues_from_its_state() -> None:
    gap = filled(*[0.1 * i for i in range(WINDOW + 5)])
    again = Gap(**gap.state())
    for each in (gap, again):
        each.add(1.0)
    assert gap.state() == again.state()


def test_a_share_of_the_groups_is_scored_and_nothing_is_trained_on_it(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(SHADOW)
    shadow = {"verifier__shadow": [f"{tmp_path}/half.py:half"], "verifier__shadow_share": 0.5}
    config = small_runs.small_config(tiny_model, steps=3, eval__questions=0, checkpoint__every=1, **shadow)
    small_runs.start(config, tmp_path / "run")
    lines = small_runs.metrics_of(tmp_path / "run")
    for step, line in enumerate(lines):
        rollouts = list(read_rollouts(tmp_path / "run" / "rollouts" / f"step-{step:06d}.parquet"))
        rewards = [rollout.scores[0].reward or 0.0 for rollout in rollouts]
        assert line["reward/mean"] == pytest.approx(sum(rewards) / len(rewards)), "of the training verifier alone"
    rollouts = list(read_rollouts(sorted((tmp_path / "run" / "rollouts").glob("*.parquet"))))
    for members in by_group(rollouts):
        assert {rollout.group_stats for rollout in members} == {stats_of(r.scores[0].reward for r in members)}
    scored = {rollout.group_id for rollout in rollouts if len(rollout.scores) == 2}
    assert 0 < len(scored) < 9
    assert all((len(rollout.scores) == 2) == (rollout.group_id in scored) for rollout in rollouts)
    assert {rollout.scores[1].verifier for rollout in rollouts if rollout.group_id in scored} == {"half"}
    seen = [line for line in lines if line["shadow/half/reward"] is not None]
    assert seen
    assert all(line["shadow/half/reward"] == 0.5 for line in seen)
    # A resumed run goes on with its gaps, which the checkpoint holds.
    small_runs.resume(tmp_path / "run", steps=4)
    assert len(small_runs.metrics_of(tmp_path / "run")) == 4


def test_a_shadow_that_is_the_verifier_is_refused(tiny_model: Path) -> None:
    config = small_runs.small_config(tiny_model, verifier__shadow=[f"{small_runs.REWARDS}:digits"])
    with pytest.raises(ConfigError, match="as another verifier does"):
        make_plan(config)
    with pytest.raises(ConfigError, match=r"verifier\.shadow_share .* does nothing without verifier\.shadow"):
        small_runs.small_config(tiny_model, verifier__shadow_share=0.5)
