"""Two verifiers compared, against a plain recomputation row by row."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlvr.comparison.comparing import Change, Comparison, compare_pairs, worst
from rlvr.comparison.verdict_pairs import KINDS, Pairs, pair, read_flips, read_verdicts
from rlvr.errors import DataError, RequestError, RunError
from rlvr.record.reading import Source, source_of
from rlvr.record.schema import GroupStats, Rollout, Score, Status
from rlvr.record.store import write_rollouts
from rlvr.verify.scoring import training_reward

LETTERS: dict[str, dict[str, Any] | None] = {
    "1": {"status": "graded", "reward": 1.0},
    "0": {"status": "graded", "reward": 0.0},
    "h": {"status": "graded", "reward": 0.5},
    "q": {"status": "graded", "reward": 0.25},
    "u": {"status": "unparsed"},
    "t": {"status": "timeout"},
    "e": {"status": "error"},
    "i": {"status": "invalid"},
    "a": {"status": "abstained"},
    "-": None,
}


def scores(**by: str) -> list[dict[str, Any]]:
    given = [(name, LETTERS[letter]) for name, letter in by.items()]
    return [{"verifier": name, "version": "1"} | score for name, score in given if score is not None]


def put(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def paired(path: Path, *groups: tuple[str, str]) -> Pairs:
    """Return pairs, given each group as letters of its rollouts' verdicts by a and by b."""
    rows = [
        {"id": f"{g}-{i}", "group_id": f"g{g}", "scores": scores(a=a, b=b)}
        for g, (by_a, by_b) in enumerate(groups)
        for i, (a, b) in enumerate(zip(by_a, by_b, strict=True))
    ]
    # A group's members need not be consecutive.
    return pair(read_verdicts(Source(put(path, rows[::2] + rows[1::2]))), a="a", b="b")


def test_a_table_counted_by_hand(tmp_path: Path) -> None:
    pairs = paired(tmp_path / "in.jsonl", ("1100", "1000"), ("1111", "1111"), ("00u0", "1000"), ("1e", "11"))
    found = compare_pairs(pairs)
    assert (found.rows, found.groups, found.paired, found.dropped_a, found.dropped_b) == (14, 4, 13, 1, 0)
    counts = {(a, b): n for a, row in zip(KINDS, found.matrix, strict=True) for b, n in zip(KINDS, row, strict=True)}
    assert {key: n for key, n in counts.items() if n} == {
        ("right", "right"): 6,
        ("right", "wrong"): 1,
        ("wrong", "wrong"): 4,
        ("wrong", "right"): 1,
        ("unparsed", "wrong"): 1,
        ("error", "right"): 1,
    }
    assert (found.gained, found.lost, found.regraded) == (2, 1, 0)
    assert (found.reward.a, found.reward.b, found.reward.difference) == pytest.approx((7 / 13, 7 / 13, 0.0))
    # pass@2, by hand: of the pairs of four with two right, 5 of 6 hold one; with one right, 3 of 6.
    assert [(at.k, at.groups) for at in found.at_k] == [(1, 4), (2, 3), (4, 3)]
    assert (found.at_k[1].passed.a, found.at_k[1].passed.b) == pytest.approx((11 / 18, 2 / 3))
    assert (found.at_k[2].passed.a, found.at_k[2].passed.b) == pytest.approx((2 / 3, 1))
    assert (found.at_k[0].avg.a, found.at_k[0].avg.b) == pytest.approx((2.5 / 4, 2.5 / 4))
    # Group 0: of 1100 and 1000, one changes its sign. Group 2 gains a signal: all four do. Group 3 has none in both.
    advantages = found.advantages
    assert (advantages.groups, advantages.signal_a, advantages.signal_b) == (4, 1, 2)
    assert (advantages.gained_signal, advantages.lost_signal) == (1, 0)
    assert (advantages.changed_groups, advantages.changed_rollouts) == (2, 5)
    assert found.agreement.raw == pytest.approx(11 / 13)


def test_a_threshold_says_what_is_right(tmp_path: Path) -> None:
    pairs = paired(tmp_path / "in.jsonl", ("hq1", "qh1"))
    assert (compare_pairs(pairs).gained, compare_pairs(pairs).lost, compare_pairs(pairs).regraded) == (1, 1, 0)
    strict = compare_pairs(pairs, threshold=1.0)
    assert (strict.gained, strict.lost, strict.regraded) == (0, 0, 2)


def test_one_group_has_no_interval_and_one_answer_has_no_kappa(tmp_path: Path) -> None:
    found = compare_pairs(paired(tmp_path / "in.jsonl", ("11", "11")))
    assert found.reward == Change(1.0, 1.0, 0.0, None)
    assert (found.agreement.raw, found.agreement.kappa, found.agreement.kappa_interval) == (1.0, None, None)


def test_nothing_that_training_keeps(tmp_path: Path) -> None:
    found = compare_pairs(paired(tmp_path / "in.jsonl", ("ea", "i-"), ("1", "a")))
    assert (found.paired, found.dropped_a, found.dropped_b) == (0, 2, 3)
    assert found.reward == Change(None, None, None, None)
    assert found.at_k == ()


def test_a_mean_that_is_rounded_has_no_sign(tmp_path: Path) -> None:
    """The mean of 0.1, 0.2 and 0.3 is 0.19999999999999998, but the advantage of 0.2 is 0."""
    rows = []
    for i, (a, b) in enumerate([(0.1, 0.25), (0.2, 0.5), (0.3, 0.75)]):
        by = [{"verifier": name, "version": "1", "status": "graded", "reward": r} for name, r in (("a", a), ("b", b))]
        rows.append({"id": str(i), "group_id": "g", "scores": by})
    pairs = pair(read_verdicts(Source(put(tmp_path / "in.jsonl", rows))))
    assert compare_pairs(pairs).advantages.changed_rollouts == 0


tables = st.lists(
    st.integers(1, 5).flatmap(lambda size: st.tuples(*[st.text("".join(LETTERS), min_size=size, max_size=size)] * 2)),
    min_size=1,
    max_size=6,
).filter(lambda groups: all(any(set(group[side]) - {"-"} for group in groups) for side in (0, 1)))
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(groups=tables)
def test_counts_are_those_of_a_plain_loop(tmp_path: Path, groups: list[tuple[str, str]]) -> None:
    found = compare_pairs(paired(tmp_path / "in.jsonl", *groups), resamples=10)

    def kind(letter: str) -> str:
        score = LETTERS[letter]
        if score is None or score["status"] != "graded":
            return "unscored" if score is None else str(score["status"])
        return "right" if score["reward"] >= 0.5 else "wrong"

    def reward(letter: str) -> float | None:
        score = LETTERS[letter]
        return None if score is None else training_reward(Score(verifier="v", version="1", **score))

    def signs(letters: str) -> list[int]:
        rewards = [reward(letter) for letter in letters]
        known = [r for r in rewards if r is not None]
        if not known or GroupStats.of(known).std == 0:
            return [0] * len(rewards)
        mean = GroupStats.of(known).mean
        return [
            0 if r is None or math.isclose(r, mean, abs_tol=1e-9) else int(math.copysign(1, r - mean)) for r in rewards
        ]

    rows = [pair for by_a, by_b in groups for pair in zip(by_a, by_b, strict=True)]
    expected = Counter((kind(a), kind(b)) for a, b in rows)
    counts = {(a, b): n for a, row in zip(KINDS, found.matrix, strict=True) for b, n in zip(KINDS, row, strict=True)}
    assert {key: n for key, n in counts.items() if n} == dict(expected)
    kept = [(x, y) for a, b in rows if (x := reward(a)) is not None and (y := reward(b)) is not None]
    assert found.paired == len(kept)
    if kept:
        assert found.reward.difference == pytest.approx(sum(y - x for x, y in kept) / len(kept))
    moved = [sum(x != y for x, y in zip(signs(a), signs(b), strict=True)) for a, b in groups]
    assert found.advantages.changed_rollouts == sum(moved)
    assert found.advantages.changed_groups == sum(map(bool, moved))


@quick
@given(groups=tables)
def test_a_file_against_itself_differs_in_nothing(tmp_path: Path, groups: list[tuple[str, str]]) -> None:
    path = tmp_path / "in.jsonl"
    paired(path, *groups)
    pairs = pair(read_verdicts(Source(path)), read_verdicts(Source(path)), a="a", b="a")
    found = compare_pairs(pairs, resamples=20)
    changes = [found.reward, *(change for at in found.at_k for change in (at.avg, at.passed))]
    assert all(change.difference in (0.0, None) and change.interval in ((0.0, 0.0), None) for change in changes)
    assert (found.gained, found.lost, found.regraded, found.advantages.changed_rollouts) == (0, 0, 0, 0)
    assert found.agreement.raw in (1.0, None)
    assert found.agreement.kappa is None or found.agreement.kappa == pytest.approx(1.0)
    assert worst(pairs, 5) == []


@quick
@given(groups=tables)
def test_swapping_the_sides_mirrors_everything(tmp_path: Path, groups: list[tuple[str, str]]) -> None:
    path = tmp_path / "in.jsonl"
    forth = paired(path, *groups)
    back = pair(read_verdicts(Source(path)), a="b", b="a")
    there, again = compare_pairs(forth, resamples=50), compare_pairs(back, resamples=50)
    assert close(asdict(mirrored(again)), asdict(there))
    assert sorted(worst(forth, 99)) == sorted(worst(back, 99))


def mirrored(found: Comparison) -> Comparison:
    def turned(change: Change) -> Change:
        low_high = change.interval and (-change.interval[1], -change.interval[0])
        return Change(change.b, change.a, change.difference and -change.difference, low_high)

    advantages = found.advantages
    return Comparison(
        rows=found.rows,
        groups=found.groups,
        paired=found.paired,
        dropped_a=found.dropped_b,
        dropped_b=found.dropped_a,
        matrix=tuple(zip(*found.matrix, strict=True)),
        gained=found.lost,
        lost=found.gained,
        regraded=found.regraded,
        reward=turned(found.reward),
        at_k=tuple(type(at)(at.k, at.groups, turned(at.avg), turned(at.passed)) for at in found.at_k),
        advantages=type(advantages)(
            advantages.groups,
            advantages.signal_b,
            advantages.signal_a,
            advantages.lost_signal,
            advantages.gained_signal,
            advantages.changed_groups,
            advantages.changed_rollouts,
        ),
        agreement=found.agreement,
    )


def close(left: Any, right: Any) -> bool:
    """Assert equal structure and integers, and close floats."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(close(left[key], right[key]) for key in left)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(close, left, right))
    return left == right or (left is not None and right is not None and math.isclose(left, right, abs_tol=1e-9))


def test_the_interval_covers_what_it_should(tmp_path: Path) -> None:
    """If all rows of a group are equal, the interval is that of 40 groups, not of 320 rows."""
    groups = [("0" * 8, "1" * 8) if g % 2 else ("0" * 8, "0" * 8) for g in range(40)]
    found = compare_pairs(paired(tmp_path / "in.jsonl", *groups))
    deviation = math.sqrt(0.25 / 40)  # of the mean of 40 coins, in closed form
    assert found.reward.interval == pytest.approx((0.5 - 1.96 * deviation, 0.5 + 1.96 * deviation), abs=0.03)
    assert compare_pairs(paired(tmp_path / "in.jsonl", *groups)) == found


# --- reading --------------------------------------------------------------------------------------------------------


def record(name: str, by: list[dict[str, Any]], **fields: Any) -> Rollout:
    return Rollout.model_validate({"id": name, "prompt": "p", "completion": "c", "scores": by} | fields)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_records_and_their_segments(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"in.{ending}"
    first = {"token_ids": [1, 2], "loss_mask": [False, True], "policy_versions": [{"version": 1, "count": 1}]}
    write_rollouts(
        path,
        [
            record("x", scores(a="1", b="0"), group_id="g", segment=0, **first),
            record("x", scores(a="0", b="0"), group_id="g", segment=1),
            record("y", scores(a="0", b="e"), group_id="g"),
        ],
    )
    found = read_verdicts(Source(path))
    assert (found.ids, found.groups, list(found.places)) == (["x", "y"], ["g", "g"], [0, 2])
    assert compare_pairs(pair(found)).matrix[0][1] == 1


def test_the_last_score_by_a_verifier_counts(tmp_path: Path) -> None:
    rows = [{"id": "x", "scores": scores(a="0") + scores(b="1") + scores(a="1")}]
    assert compare_pairs(pair(read_verdicts(Source(put(tmp_path / "in.jsonl", rows))))).matrix[0][0] == 1


def test_two_files_are_matched_by_id(tmp_path: Path) -> None:
    old = put(
        tmp_path / "old.jsonl",
        [
            {"id": name, "group_id": "g", "scores": scores(math=letter)}
            for name, letter in zip("xyz", "110", strict=True)
        ],
    )
    new = put(tmp_path / "new.jsonl", [{"id": name, "scores": scores(math="0")} for name in "zyw"])  # no groups
    pairs = pair(read_verdicts(Source(old)), read_verdicts(Source(new)))
    assert (sorted(map(str, pairs.ids)), pairs.only_a, pairs.only_b, pairs.without_group) == (["y", "z"], 1, 1, 0)
    assert compare_pairs(pairs).lost == 1


def test_ids_that_several_rows_have_are_named(tmp_path: Path) -> None:
    path = put(tmp_path / "in.jsonl", [{"id": name, "scores": scores(a="1", b="1")} for name in "xyxzxy"])
    with pytest.raises(DataError, match=r"line 3: an earlier row has the id 'x' too \(also 'y': 2 in all\)"):
        read_verdicts(Source(path))
    write_rollouts(tmp_path / "in.parquet", [record("x", []), record("x", [])])
    with pytest.raises(DataError, match="row 2: an earlier row has the id 'x'"):
        read_verdicts(Source(tmp_path / "in.parquet"))


def test_rows_without_an_id_compare_within_one_file_only(tmp_path: Path) -> None:
    path = put(tmp_path / "in.jsonl", [{"scores": scores(a="1", b="0")}] * 2)
    pairs = pair(read_verdicts(Source(path)))
    assert (len(pairs.ids), pairs.without_group, compare_pairs(pairs).groups) == (2, 2, 2)
    with pytest.raises(DataError, match="row 1 has no id"):
        pair(read_verdicts(Source(path)), read_verdicts(Source(path)), a="a", b="b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, r"--a: which verifier\? .* has scores by: math \(1\), math@strict \(1\), mine \(1\)"),
        ({"a": "math"}, "--b: which verifier"),
        ({"a": "math", "b": "math@strickt"}, "--b math@strickt: .*: no score by 'math@strickt'; the scores there"),
        ({"b": "maht"}, r"--b maht: .* by: math \(1\), math@strict \(1\), mine \(1\)"),
        ({"a": "nothing", "b": "math"}, "--a nothing: .* no score by 'nothing'"),
    ],
)
def test_wrong_names_are_requests(tmp_path: Path, names: dict[str, str], message: str) -> None:
    rows = [{"id": "x", "scores": scores(**{"math": "1", "math@strict": "0", "mine": "1"})}]
    with pytest.raises(RequestError, match=message):
        pair(read_verdicts(Source(put(tmp_path / "in.jsonl", rows))), **names)


def test_of_two_verifiers_the_other_one(tmp_path: Path) -> None:
    scored = read_verdicts(Source(put(tmp_path / "in.jsonl", [{"id": "x", "scores": scores(a="1", b="0")}])))
    for names in ({}, {"a": "a"}, {"b": "b"}):
        pairs = pair(scored, **names)
        assert (pairs.a.verifier, pairs.b.verifier) == ("a", "b")
    assert pair(scored, a="b").b.verifier == "a"


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("none", "line 1: the column 'scores' is text and not a list of scores"),
        (["1"], "the column 'scores' is a list and not a list of scores"),
        ([{"verifier": "a", "status": "fine"}], "verifier 'a' and status 'fine'"),
        ([{"status": "error"}], "verifier None and status 'error'"),
        ([{"verifier": "a", "status": "graded"}], "by 'a' is graded with the reward None"),
        ([{"verifier": "a", "status": "error", "reward": 1}], "by 'a' is error with the reward 1"),
        ([{"verifier": "a", "status": "graded", "reward": 10**400}], "by 'a' is graded with the reward 1000"),
        ([{"verifier": "a", "status": "graded", "reward": float("nan")}], "by 'a' is graded with the reward nan"),
        ([{"verifier": "a", "status": ["graded"]}], "verifier 'a' and status"),
    ],
)
def test_scores_that_are_none_are_faults_of_the_file(tmp_path: Path, by: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_verdicts(Source(put(tmp_path / "in.jsonl", [{"id": "x", "scores": by}])))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": 7}, "line 1: id is a number"),
        ({}, "line 1: id is null"),
        ({"id": "x", "group_id": ["g"]}, "line 1: group_id is a list"),
        ({"id": "x", "segment": [0]}, "line 1: segment is a list"),
        ({"id": "x", "schema_version": 99}, "line 1 was written with version 99"),
    ],
)
def test_records_that_are_none_are_faults_of_the_file(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_verdicts(Source(put(tmp_path / "in.jsonl", [{"schema_version": 1} | fields])))


def test_a_file_that_shrinks_between_the_readings(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    pairs = paired(path, ("11", "00"))
    put(path, [])
    with pytest.raises(RunError, match="changed while it was read"):
        read_flips(pairs, worst(pairs, 1))


def test_every_status_has_a_kind() -> None:
    assert set(KINDS) == {"right", "wrong", "unscored"} | {s.value for s in Status} - {"graded"}


# --- flips ----------------------------------------------------------------------------------------------------------


def test_the_worst_flips_first(tmp_path: Path) -> None:
    groups = [("1111", "h111"), ("1000", "0000"), ("11111111", "01111111"), ("10", "10"), ("e0", "i0")]
    pairs = paired(tmp_path / "in.jsonl", *groups)
    # By difference; of the two that lose 1, the one in the group where more is lost; of a difference of 0 last.
    assert [pairs.ids[i] for i in worst(pairs, 9)] == ["2-0", "1-0", "0-0", "4-0"]
    assert [pairs.ids[i] for i in worst(pairs, 1)] == ["2-0"]


def test_a_flip_says_what_was_asked_and_what_both_made_of_it(tmp_path: Path) -> None:
    by_a = scores(math="1")[0] | {"extracted": "2", "reason": "equal"}
    by_b = scores(strict="u")[0] | {"reason": "no box"}
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "long " * 100 + "1 + 1?"}]
    rollout = record("x", [], prompt=None, messages=messages, task={"answer": "2"}, group_id="g")
    path = tmp_path / "in.parquet"
    write_rollouts(path, [record("w", scores(math="1", strict="1")), rollout.model_copy(
        update={"scores": tuple(Score.model_validate(score) for score in (by_a, by_b))}
    )])  # fmt: skip
    pairs = pair(read_verdicts(Source(path)))
    (flip,) = read_flips(pairs, worst(pairs, 5))
    assert (flip.id, flip.group_id, flip.gold) == ("x", "g", "2")
    assert flip.prompt is not None
    assert flip.prompt.startswith("…")
    assert flip.prompt.endswith("long 1 + 1?")
    assert asdict(flip.a) == {"status": "graded", "reward": 1.0, "extracted": "2", "reason": "equal"}
    assert asdict(flip.b) == {"status": "unparsed", "reward": None, "extracted": None, "reason": "no box"}


def test_a_flip_of_two_files_takes_each_side_from_its_own(tmp_path: Path) -> None:
    old = put(tmp_path / "old.jsonl", [{"id": "x", "q": "1+1?", "gold": 2.5, "scores": scores(math="1")}])
    new = put(tmp_path / "new.jsonl", [{"id": "y"}, {"id": "x", "group_id": "g", "scores": scores(math="0")}])
    columns = {"prompt": "q", "answer": "gold"}
    pairs = pair(read_verdicts(source_of(old, columns)), read_verdicts(source_of(new, columns)))
    (flip,) = read_flips(pairs, worst(pairs, 5))
    assert (flip.id, flip.group_id, flip.prompt, flip.gold) == ("x", "g", "1+1?", "2.5")
    assert (flip.a.reward, flip.b.reward) == (1.0, 0.0)
