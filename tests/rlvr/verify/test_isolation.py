"""Isolation of rows: leaked state, forged answers, retries, and time limits under load."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.record.item import Item
from rlvr.record.schema import Rollout, Score, Status, Task, Verdict
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.verify import process_state
from rlvr.verify.results import EXTRACTED_LIMIT, REASON_LIMIT
from rlvr.verify.scoring import Scorer, usable_cpus
from rlvr.verify.verifying import FunctionVerifier

MISBEHAVING = str(Path(__file__).parents[1] / "misbehaving.py")


def item(completion: str, **extra: Any) -> Item:
    return Item(completion, Task(answer="1", extra=extra))


@pytest.fixture
def scorer() -> Iterator[Scorer]:
    with Scorer(f"{MISBEHAVING}:check", workers=1, timeout=30) as scorer:
        yield scorer


def among_neighbors(scorer: Scorer, deed: str, times: int = 5) -> tuple[list[Score], list[Score]]:
    """Return the scores of some rows with the fault, and of many that report whether their process state is
    unchanged."""
    items = [item(f"!pristine#{i}") for i in range(200)]
    places = [20 + 30 * i for i in range(times)]
    for place in places:
        items[place] = item(f"!{deed}#{place}")
    scores = list(scorer.score(items))
    return [scores[place] for place in places], [score for i, score in enumerate(scores) if i not in places]


@pytest.mark.parametrize(
    ("deed", "change"),
    [
        ("chdir", "working directory"),
        ("quiet chdir", "working directory"),
        ("environment", "environment"),
        ("decimal", "decimal context"),
        ("handler", "signal handlers"),
        ("recursion limit", "recursion limit"),
        ("module", "modules"),
        ("no modules", "modules"),
        ("umask", "umask"),
        ("import path", "import path"),
        ("digits", "limit of digits"),
        ("patched modules", "attributes of modules"),
        ("patched class", "attributes of modules"),
        ("limits", "resource limits"),
    ],
)
def test_what_a_row_changes_is_nothing_to_its_neighbors(
    scorer: Scorer, deed: str, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "rlvr"):
        deeds, neighbors = among_neighbors(scorer, deed)
    assert [score.reward for score in neighbors] == [1.0] * len(neighbors)
    assert {score.status for score in deeds} <= {Status.GRADED, Status.ERROR}
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("verifier 'misbehaving' leaks state between rows (")
    assert change in message


def test_settings_of_numeric_libraries_are_put_back() -> None:
    """Unless a row imports the library and sets them at once: that is how a verifier prepares itself."""
    state = process_state.ProcessState()
    before = np.geterr(), mpmath.mp.prec
    assert not state.differences().all
    np.seterr(divide="raise", invalid="ignore")
    mpmath.mp.dps = 5
    assert state.differences().restorable == ["NumPy error handling", "mpmath precision"]
    state.restore()
    assert (np.geterr(), mpmath.mp.prec) == before
    assert not state.differences().all


def test_leaked_descriptors_replace_the_worker(scorer: Scorer) -> None:
    limit = process_state.MAY_KEEP["open descriptors"]
    scores = list(scorer.score(item(f"!descriptor#{i}") for i in range(20 * limit)))
    assert {score.reward for score in scores} == {1.0}
    after = list(scorer.score(item(f"!pristine#{i}") for i in range(50)))
    assert {score.reward for score in after} == {1.0}


def test_children_are_reaped_and_few(scorer: Scorer) -> None:
    list(scorer.score(item(f"!zombie#{i}") for i in range(300)))
    list(scorer.score(item(f"!child#{i}") for i in range(60)))
    (left,) = scorer.score([item("!children")])
    assert left.reward is not None
    assert left.reward <= process_state.MAY_KEEP["child processes"]


def test_draws_are_the_row_s_own(caplog: pytest.LogCaptureFixture) -> None:
    """Equal rows draw equal numbers, whoever their neighbors are and however many workers there are."""
    items = [item(f"!draw#{i % 40}") for i in range(120)]
    with Scorer(f"{MISBEHAVING}:check", workers=1) as scorer:
        one = [score.reward for score in scorer.score(items)]
    with Scorer(f"{MISBEHAVING}:check", workers=3) as scorer:
        three = [score.reward for score in scorer.score(reversed(items))][::-1]
    assert one == three
    assert len(set(one)) == 40
    assert not caplog.records


def test_an_error_is_tried_once_more_in_a_fresh_process(tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text(
        "from pathlib import Path\n"
        "def check(completion, task):\n"
        "    log = Path(task.extra['log'])\n"
        "    with log.open('a') as file: file.write(f'{completion}\\n')\n"
        "    if log.read_text().split().count(completion) <= task.extra['fails']: raise OSError('not now')\n"
        "    return True\n"
    )
    with Scorer(f"{tmp_path / 'flaky.py'}:check", workers=2) as scorer:
        log = str(tmp_path / "log")
        scores = list(scorer.score(item(text, log=log, fails=fails) for text, fails in [("a", 1), ("b", 0), ("c", 9)]))
    assert [score.reward for score in scores] == [1.0, 1.0, None]
    assert sorted((tmp_path / "log").read_text().split()) == ["a", "a", "b", "c", "c"]


def test_a_verifier_that_raises_on_many_rows_stays_quick(tmp_path: Path) -> None:
    (tmp_path / "raising.py").write_text(
        "from pathlib import Path\n"
        "def check(completion, task):\n"
        "    with Path(task.extra['log']).open('a') as file: file.write('x')\n"
        "    raise ValueError(completion)\n"
    )
    with Scorer(f"{tmp_path / 'raising.py'}:check", workers=1) as scorer:
        scores = list(scorer.score(item(str(i), log=str(tmp_path / "log")) for i in range(1000)))
    assert {score.status for score in scores} == {Status.ERROR}
    assert [score.reason.split(" (")[0] for score in scores if score.reason] == [
        f"ValueError: {i}" for i in range(1000)
    ]
    assert len((tmp_path / "log").read_text()) < 1300


@pytest.mark.parametrize("frame", ["empty", "nothing", "no answers", "nested", "NaN", "forged"])
def test_a_forged_answer_costs_its_row_alone(scorer: Scorer, frame: str) -> None:
    items = [item("0"), item("1"), item(f"!frame: {frame}"), item("0"), item("1")]
    scores = list(scorer.score(items))
    assert [score.reward for score in scores] == [0.0, 1.0, None, 0.0, 1.0]
    assert scores[2].status is Status.ERROR
    assert scores[2].reason == "it wrote into its worker's channel"


def test_long_texts_are_cut_in_the_worker(scorer: Scorer) -> None:
    (score,) = scorer.score([item("!long")])
    assert score.extracted is not None
    assert score.reason is not None
    assert (len(score.extracted), len(score.reason)) == (EXTRACTED_LIMIT, REASON_LIMIT)
    assert score.extracted.endswith("x…")
    assert score.reason.endswith("y…")


class _Saying:
    """Verifier that returns given texts."""

    said: tuple[str, str] = ("", "")

    def check(self, completion: str, task: Task) -> Verdict:
        extracted, reason = self.said
        if completion == "raise":
            raise ValueError(reason)
        return Verdict(status=Status.GRADED, reward=1.0, extracted=extracted, reason=reason)


ANY_TEXT = st.text(st.characters(exclude_categories=[]))
"""Texts with lone surrogates, NULs and other special characters."""


@given(extracted=ANY_TEXT, reason=ANY_TEXT)
def test_every_store_holds_whatever_a_verifier_says(extracted: str, reason: str) -> None:
    saying = _Saying()
    saying.said = extracted, reason
    loaded = FunctionVerifier(saying.check, "saying", "1", {})
    verdicts = [loaded.verify(completion, Task(answer="1")) for completion in ("say", "raise")]
    assert [verdict.status for verdict in verdicts] == [Status.GRADED, Status.ERROR]
    if extracted.isascii() and len(extracted) <= EXTRACTED_LIMIT:
        assert verdicts[0].extracted == extracted
    scores = tuple(Score(**vars(verdict), verifier="saying", version="1") for verdict in verdicts)
    rollout = Rollout(id="0", prompt="", completion="", scores=scores)
    with TemporaryDirectory() as folder:
        for name in ("rollouts.parquet", "rollouts.jsonl"):
            write_rollouts(Path(folder) / name, [rollout])
            assert [each.scores for each in read_rollouts(Path(folder) / name)] == [scores]


# --- time under load ------------------------------------------------------------------------------------------------


def test_waiting_for_a_cpu_is_no_part_of_the_time_limit() -> None:
    """Four workers for each CPU, whose rows need less than the limit of CPU time and more than it of wall clock."""
    workers = 4 * usable_cpus()
    with Scorer(f"{MISBEHAVING}:check", workers=workers, timeout=0.75) as scorer:
        list(scorer.score(item(f"!nap#{i}") for i in range(workers)))  # all are forked
        scores = list(scorer.score(item(f"!burn 0.3#{i}") for i in range(3 * workers)))
        assert [score.status for score in scores] == [Status.GRADED] * len(scores)
        (late,) = scorer.score([item("!burn 60")])
    assert late.status is Status.TIMEOUT, "it would be graded after a minute of work"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "max 100000", "a/cpu.max": "250000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ({"a/b/cpu.max": "50000 100000"}, 1),
        ({"cpu/a/b/cpu.cfs_quota_us": "210000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}, 8),
        ({}, 8),
    ],
)
def test_usable_cpus_are_those_of_the_tightest_quota(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text("3:cpu:/a/b\n2:memory:/elsewhere\n0::/a/b\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cpus(tmp_path / "root", tmp_path / "own") == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_verdicts_whose_text_was_escaped_are_counted_and_said_once(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    deeds = ["!surrogates#1", "!raise surrogates#2", "!pristine#3", "!surrogates#4"]
    with (
        caplog.at_level(logging.WARNING, "rlvr"),
        Scorer(f"{MISBEHAVING}:check", workers=workers, timeout=60) as scorer,
    ):
        scores = list(scorer.score(map(item, deeds)))
        assert scorer.escaped == 3
        assert len(list(scorer.score([item("!surrogates#5")]))) == 1
        assert scorer.escaped == 4
    assert all((score.reason or "").isascii() for score in scores)
    assert [record.message for record in caplog.records if "surrogates" in record.message] == [
        f"verifier {scorer.name!r} gave text with lone surrogates, which no file can hold: it is escaped, here and "
        "elsewhere"
    ]
