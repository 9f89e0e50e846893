"""Test bench for verifiers: labeled cases, and checks that need no labels, all through the real worker pool.

    cases       false positives and negatives by category, with Wilson intervals
    answers     a gold answer accepts itself, another is refused, formatting around an answer changes nothing
    attacks     completions that only a mistaken verifier rewards (`rlvr.bench.attacks`): none may win
    rewards     not all the same, of a sane size, and alike for wrong answers, since GRPO trains on differences
    statuses    a row without a gold answer is `invalid`, an empty completion `unparsed`
    hostile     completions that break programs end in a verdict, unrewarded, within the time limit
    repeats     the same verdicts again, from other processes, in reverse order and with other random draws

A verifier is tested only if checks tried both right and wrong answers; otherwise it has not passed.

A completion is accepted if its verdict is `graded` and its reward reaches a threshold. One fault fails a check, except
for the labeled cases, whose error rates have limits.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr.bench.attacks import ATTACKS
from rlvr.bench.cases import read_cases
from rlvr.bench.report import Category, Check, Judged, Latency, Limits, Report, Result
from rlvr.bench.trials import (
    ALONE,
    ATTACK,
    CASES,
    CLAIMS,
    COSTLY,
    FORMATTING,
    GOLD,
    HOSTILITY,
    NOVEL,
    PADDED,
    STATUSES,
    SYMMETRY,
    WRONG,
    BenchQuestion,
    Trial,
    Trials,
    as_training_row,
    spread,
)
from rlvr.evaluation.intervals import Share, quantile
from rlvr.record.schema import Status
from rlvr.verify.loaded import Claims
from rlvr.verify.reward_limit import MAX_REWARD
from rlvr.verify.scoring import Scorer
from rlvr.verify.verifying import require_place

REPEATED = 256
"""Completions that are scored a second time."""
MOST_TIMEOUTS = 5
"""Time-outs after which the bench stops: a verifier that always hangs would take hours."""

FALSE_POSITIVES, FALSE_NEGATIVES = "false positives", "false negatives"
BREAKAGE = "no errors, no time-outs"
REPEATS = "the same verdict again"
REWARDS = "rewards"
SPREAD = "rewards among wrong answers"
LARGEST_REWARD = 100.0
"""Largest absolute reward. A larger one dominates the others if advantages are not divided by the standard
deviation."""
SMALL_SPREAD = 0.2
"""Largest spread of the rewards of wrong answers, as a share of the distance to a right answer's reward."""

_BROKEN = (Status.ERROR, Status.TIMEOUT)


def run_bench(
    verifier: str,
    options: Mapping[str, Any] | None = None,
    *,
    cases: Sequence[Path] = (),
    questions: Sequence[BenchQuestion] = (),
    answer_form: str | None = None,
    workers: int | None = None,
    timeout: float = 5.0,
    max_reward: float = MAX_REWARD,
    write_protect: bool = False,
    limits: Limits | None = None,
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> Report:
    r"""Test a verifier with every check that applies to it.

    Args:
        verifier, options, workers, timeout, max_reward, write_protect: Arguments of `Scorer`.
        cases: Files of labeled cases (`rlvr.bench.cases`), instead of the one that the verifier brings.
        questions: Rows of a data set, each with a gold answer.
        answer_form: How a completion states its answer, with `{answer}` in its place. By default what the verifier
            declares, or `\boxed{answer}`.
        limits: What counts as correct, and how often cases may be misjudged.
        advance: Called after each verdict with the number of verdicts so far and the total.

    Raises the errors of `Scorer` and `read_cases`, RequestError if no row has a column that the verifier declares, and
    PluginError for an answer form without `{answer}`.
    """
    if answer_form is not None:
        require_place(answer_form, "the answer form")
    settings: dict[str, Any] = {"timeout": timeout, "max_reward": max_reward, "write_protect": write_protect}
    settings["warn_escaped"] = False  # cases contain lone surrogates on purpose
    with Scorer(verifier, options, workers=workers, **settings) as scorer:
        claims = scorer.claims
        trials = Trials(
            answer_form or claims.answer_form, scorer.wants_rollout, scorer.min_group, columns=claims.columns
        )
        files = cases or ([Path(claims.cases)] if claims.cases else [])
        trials.fill([case for file in files for case in read_cases(file, trials.say)], questions)
        total = len(trials.all) + min(REPEATED, len(trials.all))
        judged = _judged(scorer, trials.all, lambda done: advance(done, total))
    repeatable = [each for each in judged if each.trial.check != HOSTILITY and each.score.status is not Status.TIMEOUT]
    first = spread(repeatable, REPEATED)[::-1]
    # New processes: without the state of the first ones, and with other random numbers.
    with Scorer(verifier, options, workers=workers, **settings, seed=1) as scorer:
        again = _judged(scorer, in_training(first), lambda done: advance(len(judged) + done, total))
        findings = _Findings(judged, list(zip(first, again, strict=False)), len(trials.all), limits or Limits())
        return Report(
            verifier=scorer.name,
            version=scorer.version,
            config=scorer.config,
            answer_form=trials.form,
            timeout=timeout,
            limits=findings.limits,
            categories=tuple(findings.categories()),
            total=findings.total(),
            checks=tuple(findings.checks(claims, claims.compares_answers or answer_form is not None)),
            tested=findings.tested,
            latency=Latency.of(each for each in judged if each.trial.check != HOSTILITY),
        )


def in_training(judged: Sequence[Judged]) -> list[Trial]:
    """Return the trials again, as if their rows came from a training set."""
    return [as_training_row(each.trial) for each in judged]


def _judged(scorer: Scorer, trials: Sequence[Trial], advance: Callable[[int], object]) -> list[Judged]:
    """Return the verdicts in order; fewer after too many time-outs."""
    judged: list[Judged] = []
    timeouts = 0
    scores = scorer.score_groups((trial.item, *trial.companions) for trial in trials)
    for trial in trials:
        score, *_ = itertools.islice(scores, 1 + len(trial.companions))
        judged.append(Judged(trial, score))
        advance(len(judged))
        timeouts += score.status is Status.TIMEOUT and trial.check not in COSTLY
        if timeouts >= MOST_TIMEOUTS:
            break
    return judged


class _Findings:
    """Turn verdicts into checks."""

    def __init__(
        self, judged: Sequence[Judged], repeats: Sequence[tuple[Judged, Judged]], planned: int, limits: Limits
    ) -> None:
        self.limits = limits
        self._judged, self._repeats, self._planned = judged, repeats, planned
        self.tested = False
        """Whether checks tried the verifier on right answers and on wrong ones."""
        self._by_check: dict[str, list[Judged]] = {}
        for each in judged:
            self._by_check.setdefault(each.trial.check, []).append(each)
        self._separated = {each.trial.row for each in self.of(ALONE) if self._accepted(each)} - {
            each.trial.row for each in self.of(WRONG) if self._accepted(each) and each.trial.row is not None
        }
        """Attacked rows whose gold answer is accepted and whose wrong one is not; others prove nothing."""

    def of(self, check: str) -> list[Judged]:
        return self._by_check.get(check, [])

    def _accepted(self, judged: Judged) -> bool:
        return judged.score.reward is not None and judged.score.reward >= self.limits.threshold

    # --- labeled cases

    def categories(self) -> list[Category]:
        names = sorted({each.trial.what for each in self.of(CASES)}, key=str.casefold)
        return [self.category(name, [each for each in self.of(CASES) if each.trial.what == name]) for name in names]

    def total(self) -> Category | None:
        """Return all labeled cases; None if there are none."""
        return self.category("all", self.of(CASES)) if self.of(CASES) else None

    def category(self, name: str, judged: Sequence[Judged]) -> Category:
        wrong, right = self._labeled(judged, False), self._labeled(judged, True)
        return Category(
            name,
            Share(sum(map(self._accepted, wrong)), len(wrong)),
            Share(sum(not self._accepted(each) for each in right), len(right)),
            Latency.of(judged),
        )

    @staticmethod
    def _labeled(judged: Sequence[Judged], expected: bool) -> list[Judged]:
        return [each for each in judged if each.trial.case is not None and each.trial.case.expected is expected]

    def _rate(self, name: str, expected: bool, most: float) -> Check:
        labeled = self._labeled(self.of(CASES), expected)
        faults = [each for each in labeled if self._accepted(each) is not expected]
        share = Share(len(faults), len(labeled))
        if not labeled:
            return Check(name, Result.SKIPPED, 0, detail=f"no case is labeled {str(expected).lower()}")
        result = Result.FAILED if share.value > most else Result.PASSED
        return Check(name, result, share.trials, tuple(faults), f"{share.value:.1%}, at most {most:.1%} allowed")

    # --- the rest

    def checks(self, claims: Claims, compares_answers: bool) -> list[Check]:
        found = [self._rate(FALSE_POSITIVES, False, self.limits.false_positives)]
        found.append(self._rate(FALSE_NEGATIVES, True, self.limits.false_negatives))
        about_answers = [
            self._gold(),
            self._novel(),
            self._wrong(),
            self._formatting(),
            self._padded(),
            *map(self._attack, ATTACKS),
        ]
        if not compares_answers:
            why = "it compares no final answers"
            about_answers = [Check(check.name, Result.SKIPPED, 0, detail=why) for check in about_answers]
        found += [*about_answers, self._claims(compares_answers)]
        if claims.needs_answer:
            found.append(self._statuses())
        else:
            found.append(Check(STATUSES, Result.SKIPPED, 0, detail="it needs no gold answer"))
        found += [
            self._hostility(compares_answers),
            self._breakage(),
            self._repeated(claims.deterministic),
            self._symmetry(),
            self._rewards(),
            self._spread(compares_answers, claims.partial_credit),
        ]
        right = (FALSE_NEGATIVES, GOLD)
        wrong = (FALSE_POSITIVES, WRONG)
        tried = {check.name for check in found if check.tried}
        self.tested = not tried.isdisjoint(right) and not tried.isdisjoint(wrong)
        return found

    def _verdict(self, name: str, tried: Sequence[Judged], faults: Sequence[Judged], detail: str = "") -> Check:
        result = Result.FAILED if faults else Result.PASSED if tried else Result.SKIPPED
        return Check(name, result, len(tried), tuple(faults), detail, Latency.of(tried))

    def _gold(self) -> Check:
        invalid = [each for each in self.of(GOLD) if each.score.status is Status.INVALID]
        tried = [each for each in self.of(GOLD) if each.score.status is not Status.INVALID]
        detail = f"{len(invalid)} more are invalid" if invalid else ""
        if not tried and invalid:
            return Check(GOLD, Result.FAILED, len(invalid), tuple(invalid), "every gold answer is invalid")
        return self._verdict(GOLD, tried, [each for each in tried if not self._accepted(each)], detail)

    def _novel(self) -> Check:
        """Check that most golds which no case has are accepted."""
        tried = [each for each in self.of(NOVEL) if each.score.status is not Status.INVALID]
        if sum(map(self._accepted, self.of(GOLD))) * 2 < len(self.of(GOLD)):
            return Check(NOVEL, Result.SKIPPED, 0, detail="the golds of its cases are refused too")
        refused = [each for each in tried if not self._accepted(each)]
        return self._verdict(NOVEL, tried, refused if 2 * len(refused) > len(tried) else ())

    def _claims(self, compares_answers: bool) -> Check:
        """Check that no claim of success is accepted where the same case with a text of that shape is not."""
        if compares_answers:
            return Check(CLAIMS, Result.SKIPPED, 0, detail="it compares final answers")
        tried = self.of(CLAIMS)
        plain, claiming = ([each for each in tried if each.trial.right is claims] for claims in (False, True))
        won = [b for a, b in zip(plain, claiming, strict=False) if self._accepted(b) and not self._accepted(a)]
        return self._verdict(CLAIMS, tried, won, "" if tried else "no case is labeled false")

    def _wrong(self) -> Check:
        return self._verdict(WRONG, self.of(WRONG), list(filter(self._accepted, self.of(WRONG))))

    def _padded(self) -> Check:
        return self._verdict(PADDED, self.of(PADDED), list(filter(self._accepted, self.of(PADDED))))

    def _formatting(self) -> Check:
        """Check that the right answer stays right, and the wrong one wrong."""
        tried = [each for each in self.of(FORMATTING) if each.trial.row in self._separated]
        faults = [each for each in tried if self._accepted(each) is not each.trial.right]
        return self._verdict(FORMATTING, tried, faults)

    def _attack(self, name: str) -> Check:
        tried = [each for each in self.of(ATTACK + name) if each.trial.row in self._separated]
        won = [each for each in tried if self._accepted(each)]
        detail = "" if tried else "no row's gold is accepted and its wrong answer refused"
        return self._verdict(ATTACK + name, tried, won, detail)

    def _statuses(self) -> Check:
        tried = self.of(STATUSES)
        return self._verdict(STATUSES, tried, [each for each in tried if each.score.status is not each.trial.status])

    def _hostility(self, compares_answers: bool) -> Check:
        """Check that hostile completions get no reward. A verifier that compares no answers must only survive them."""
        tried = self.of(HOSTILITY)
        bad = (*_BROKEN, Status.INVALID)
        faults = [each for each in tried if each.score.status in bad or (compares_answers and self._accepted(each))]
        return self._verdict(HOSTILITY, tried, faults)

    def _breakage(self) -> Check:
        tried = [each for each in self._judged if each.trial.check != HOSTILITY]
        faults = [each for each in tried if each.score.status in _BROKEN]
        counts = Counter(each.score.status.value for each in faults)
        detail = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        if len(self._judged) < self._planned:
            detail += f"; stopped there: {self._planned - len(self._judged)} completions were not tried"
        return self._verdict(BREAKAGE, tried, faults, detail)

    def _repeated(self, deterministic: bool) -> Check:
        """Check that verdicts repeat; if the verifier is declared as not deterministic, only count those that do
        not."""
        tried = [second for _, second in self._repeats]
        faults = [
            second
            for first, second in self._repeats
            if (first.score.status, first.score.reward) != (second.score.status, second.score.reward)
        ]
        detail = "in other processes, in reverse order, with other draws, as rows of a training set"
        if deterministic or not faults:
            return self._verdict(REPEATS, tried, faults, detail)
        return Check(REPEATS, Result.NOTE, len(tried), tuple(faults), f"{len(faults):,} change {detail}")

    def _symmetry(self) -> Check:
        """Note labeled pairs whose verdict changes if gold and answer are swapped.

        That is no fault: a rounded gold answer accepts what an exact one does not, and a letter may stand for its text.
        """
        straight = {id(each.trial.case): self._accepted(each) for each in self.of(CASES)}
        tried = [each for each in self.of(SYMMETRY) if id(each.trial.case) in straight]
        differ = [each for each in tried if self._accepted(each) is not straight[id(each.trial.case)]]
        result = Result.NOTE if tried else Result.SKIPPED
        detail = f"{len(differ):,} of the labeled pairs get another verdict" if tried else ""
        return Check(SYMMETRY, result, len(tried), tuple(differ), detail)

    def _rewards(self) -> Check:
        rewards = [each.score.reward for each in self._judged if each.score.reward is not None]
        if not rewards:
            return Check(REWARDS, Result.FAILED, 0, detail="no completion was given a reward")
        low, high = min(rewards), max(rewards)
        if low == high:
            detail = f"all {len(rewards):,} are {low:g}: a policy learns nothing from a constant"
            return Check(REWARDS, Result.FAILED, len(rewards), detail=detail)
        detail = f"{low:g} to {high:g}; correct at {self.limits.threshold:g} or more"
        if low < 0 or high > 1:
            detail += " (outside of 0 to 1: check the threshold)"
        large = [each for each in self._judged if abs(each.score.reward or 0.0) > LARGEST_REWARD]
        if large:
            detail += f"; beyond ±{LARGEST_REWARD:g}, one reward drowns the others"
            return Check(REWARDS, Result.FAILED, len(rewards), tuple(large), detail)
        return Check(REWARDS, Result.NOTE, len(rewards), detail=detail)

    def _spread(self, compares_answers: bool, partial_credit: bool) -> Check:
        """Check that wrong answers earn the same, and not half of what a right one earns.

        GRPO trains on differences within a group: among wrong answers it follows whatever makes them differ. An answer
        that cannot be read counts as 0, so a wrong one that earns more is paid for its form.
        """
        wrong = [each for each in self._wrong_ones(compares_answers) if not self._accepted(each)]
        right = [each.score.reward or 0.0 for each in self._right_ones(compares_answers) if self._accepted(each)]
        if not wrong or not right:
            return Check(SPREAD, Result.SKIPPED, 0, detail="no right and wrong answers to compare")
        rewards = [each.score.reward or 0.0 for each in wrong]
        floor, low, high, top = min(0.0, *rewards), min(rewards), max(rewards), quantile(right, 0.5)
        share = (high - floor) / (top - floor) if top > floor else 1.0
        detail = f"{low:g} to {high:g}; a right answer gets {top:g}"
        if low < 0:
            detail += "; an unreadable one counts as 0 in training, which is more (verifier.rewards)"
        if share <= SMALL_SPREAD:
            return Check(SPREAD, Result.PASSED, len(wrong), detail=detail)
        detail += f"; that is {share:.0%} of the way, at most {SMALL_SPREAD:.0%} unless it declares partial_credit"
        faults = [each for each in wrong if (each.score.reward or 0.0) - floor > SMALL_SPREAD * (top - floor)]
        result = Result.NOTE if partial_credit else Result.FAILED
        return Check(SPREAD, result, len(wrong), tuple(faults), detail)

    def _wrong_ones(self, compares_answers: bool) -> list[Judged]:
        """Return the graded completions that are surely wrong."""
        found = self._labeled(self.of(CASES), False)
        if compares_answers:
            found += [*self.of(WRONG), *self.of(PADDED), *self.of(HOSTILITY)]
            found += [each for name in ATTACKS for each in self.of(ATTACK + name)]
        return [each for each in found if each.score.reward is not None]

    def _right_ones(self, compares_answers: bool) -> list[Judged]:
        """Return the graded completions that are surely right."""
        found = self._labeled(self.of(CASES), True)
        found += [*self.of(GOLD), *self.of(ALONE)] if compares_answers else []
        return [each for each in found if each.score.reward is not None]
