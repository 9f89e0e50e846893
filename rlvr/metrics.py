"""The metrics of a run: every name in `metrics.jsonl`, with unit, healthy range and meaning.

Plots, alarms and the table in `docs/instruments.md` take names and units from here. A plugin may log further names.

π is the policy that learns, α the one that sampled (the behavior policy), w = π/α the importance weight of a token, and
A its advantage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.errors import DataError
from rlvr.files import decoded, from_json, raw_lines_of


@dataclass(frozen=True)
class Metric:
    """One metric, or the metrics of one pattern."""

    name: str
    """Key in `metrics.jsonl`. `{part}` stands for a part of a verdict, `{bucket}` for a bucket of lag."""
    unit: str
    doc: str
    """One line: what is measured."""
    low: float | None = None
    """Lower end of the healthy range; None if there is none."""
    high: float | None = None
    """Upper end of the healthy range; None if there is none."""
    by_lag: str = ""
    """Name of the same metric within a bucket of lag; empty if it is not logged by lag."""

    @property
    def healthy(self) -> str:
        """Healthy range in words: `≥ 0.9`, `0`, `0.99 to 1.01`; empty if none is known."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"≥ {self.low:g}"
        if self.high is not None:
            return "0" if self.high == 0 else f"≤ {self.high:g}"
        return ""

    def matches(self, name: str) -> bool:
        """Return True if `name` is this metric, or one of its pattern."""
        parts = (r"[\w.-]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", self.name))
        return re.fullmatch("".join(parts), name) is not None


_TOKENS, _GROUPS, _VERDICTS, _NATS = "share of tokens", "share of groups", "share of verdicts", "nats per token"

CATALOG: tuple[Metric, ...] = (
    Metric("step", "batches", "Number of the batch, counted from 0."),
    Metric("policy_version", "optimizer steps", "Optimizer steps completed after the batch."),
    Metric("alarms", "list", "Alarms that fired: `{alarm, value, threshold, consequence}`."),
    # Rewards and verdicts of everything sampled for the batch
    Metric("reward/mean", "reward", "Mean reward of the rollouts that training uses."),
    Metric("signal/groups", _GROUPS, "Groups whose rewards differ; others teach nothing.", low=0.3, by_lag="signal"),
    Metric("signal/none_in_a_row", "batches", "Batches without any such group, up to this one.", high=0),
    Metric("verdict/graded", _VERDICTS, "Verdicts with a reward."),
    Metric("verdict/unparsed", _VERDICTS, "Completions without a readable answer."),
    Metric("verdict/abstained", _VERDICTS, "Verdicts where the verifier had no opinion."),
    Metric("verdict/timeout", _VERDICTS, "Verdicts that took too long.", high=0),
    Metric("verdict/invalid", _VERDICTS, "Rows that cannot be scored.", high=0),
    Metric("verdict/error", _VERDICTS, "Verifier errors.", high=0),
    Metric("part/{part}/reward", "reward", "Mean reward of a verdict's part, unweighted; `unparsed` is 0."),
    Metric("part/{part}/share", _VERDICTS, "Verdicts whose part is `graded` or `unparsed`."),
    Metric("shadow/{verifier}/reward", "reward", "Mean reward by a shadow verifier, which is not trained on."),
    Metric("shadow/{verifier}/gap", "reward", "Mean training reward less the shadow verifier's."),
    Metric("shadow/excess", "standard errors", "Growth of the largest gap since the run began.", high=3),
    Metric("seconds/verdict", "seconds", "Mean time per verdict, without queueing."),
    # Of each data set of a mixture
    Metric("dataset_{name}/groups", "groups", "Groups of the batch from this data set (`dataset.mix`)."),
    Metric("dataset_{name}/reward", "reward", "Mean reward of these groups."),
    Metric("dataset_{name}/signal", _GROUPS, "Groups of this data set whose rewards differ.", low=0.3),
    # Lengths
    Metric("length/mean", "sampled tokens", "Mean length of a completion.", by_lag="length"),
    Metric("length/max", "sampled tokens", "Length of the longest completion."),
    Metric(
        "length/truncated",
        "share of completions",
        "Completions cut at the length limit.",
        high=0.05,
        by_lag="truncated",
    ),
    Metric("length/finished", "sampled tokens", "`mode: async`: mean length of what finished, dropped groups too."),
    Metric("length/learned", "sampled tokens", "`mode: async`: mean length of what training uses."),
    # Distance between the policy that samples and the one that learns
    Metric("lag/max", "optimizer steps", "Lag of the oldest token."),
    Metric("lag/mean", "optimizer steps", "Mean lag of tokens of known lag."),
    Metric("ess/token", "share of samples", "(Σw)² / (n Σw²) over tokens.", low=0.9, by_lag="ess_token"),
    Metric("ess/sequence", "share of samples", "The same over completions.", by_lag="ess_sequence"),
    Metric(
        "ratio/log_square",
        "nats²",
        "Mean (log w)²; grows before ESS falls.",
        high=0.04,
        by_lag="log_w_square",
    ),
    Metric("ratio/mean", "π/α of a token", "Mean w.", low=0.99, high=1.01, by_lag="ratio_mean"),
    Metric("ratio/max", "π/α of a token", "Largest w.", high=10, by_lag="ratio_max"),
    Metric("kl/k1", _NATS, "mean(-log w), an estimate of KL(α‖π).", by_lag="kl_k1"),
    Metric("kl/k3", _NATS, "mean(w - 1 - log w), an estimate of KL(α‖π).", high=0.01, by_lag="kl_k3"),
    Metric("chi2/token", "mean w² - 1, tokens", "Estimate of χ²(π‖α); about 1/ESS - 1.", high=0.1, by_lag="chi2"),
    Metric("mismatch/mean", _NATS, "Mean |log π - log α| at lag 0 (float32: 1e-5).", high=0.02),
    Metric("mismatch/max", _NATS, "Largest |log π - log α| at lag 0."),
    Metric("weights/difference", _NATS, "Mean |log π - log α| of probes after a weight sync."),
    Metric("weights/worst", _NATS, "Largest |log π - log α| of probes after a weight sync."),
    Metric("weights/excess", "times the dtype's rounding", "The mean difference in units of rounding.", high=5),
    # What the loss leaves out
    Metric("clip/high", _TOKENS, "Tokens with A > 0 that the clip band cuts.", by_lag="clip_high"),
    Metric("clip/low", _TOKENS, "Tokens with A ≤ 0 that the clip band cuts.", by_lag="clip_low"),
    Metric("clip/fraction", _TOKENS, "Tokens that the clip band cuts.", high=0.1),
    Metric("clip/width", "log w", "Width of a clip band that is solved for each batch."),
    Metric("mask/high", _TOKENS, "Tokens with A > 0 removed by masks or corrections.", by_lag="mask_high"),
    Metric("mask/low", _TOKENS, "Tokens with A ≤ 0 removed by masks or corrections.", by_lag="mask_low"),
    Metric("mask/fraction", _TOKENS, "Tokens removed by masks or corrections.", high=0.1),
    # The update
    Metric("entropy", _NATS, "Entropy of the next-token distribution.", by_lag="entropy"),
    Metric("kl/reference", _NATS, "KL(π‖reference), if `trainer.beta` is above 0."),
    Metric("train/loss", "loss", "Loss of the last gradient step."),
    Metric("train/grad_norm", "before clipping", "Gradient norm before clipping to `trainer.max_grad_norm`."),
    Metric("train/lr", "learning rate", "Learning rate of the last optimizer step."),
    Metric("train/optimizer_steps", "optimizer steps", "Optimizer steps taken on the batch."),
    Metric("train/skipped", "0 or 1", "1 if an alarm prevented an optimizer step.", high=0),
    Metric("train/skipped_in_a_row", "batches", "Batches with a skipped step, up to this one.", high=0),
    Metric("train/no_step_in_a_row", "batches", "Batches with a signal since the last optimizer step.", high=0),
    # Where groups come from
    Metric("prompts/dropped", "prompts", "Prompts dropped so far because they are too long."),
    Metric("curriculum/skipped", "prompts", "Questions that `dataset.curriculum` passed over for this batch."),
    Metric("curriculum/measured", "questions", "Questions with a measured pass rate (`dataset.curriculum`)."),
    Metric("curriculum/in_band", "share", "Measured questions whose last pass rate is from low to high."),
    Metric("escaped/prompts", "prompts", "Prompts so far with lone surrogates, which are escaped.", high=0),
    Metric("escaped/verdicts", "verdicts", "Verdicts so far with lone surrogates, which are escaped.", high=0),
    Metric("answers/duplicate", "groups", "Sampler's answers dropped so far because they came twice.", high=0),
    Metric("answers/late", "groups", "Sampler's answers dropped so far: cancelled before they came."),
    Metric("groups/late", "groups", "Groups dropped since the last batch (`sampling.max_lag`)."),
    Metric("groups/mixed_versions", "groups", "Groups left out by `rollouts.single_version`."),
    Metric("refill/rounds", "rounds", "Further rounds of sampling (`sampling.refill`)."),
    Metric("refill/groups", "groups", "Further groups sampled (`sampling.refill`)."),
    Metric("replay/groups", "groups", "Past groups in the batch."),
    Metric("replay/held", "groups", "Past groups that could be replayed."),
    Metric("replay/age", "batches", "Mean age of the replayed groups."),
    Metric("saved/groups", "groups", "Saved groups in the batch."),
    Metric("saved/epoch", "passes", "Passes over the saved groups, including this batch."),
    # Held-out questions
    Metric("eval/policy_version", "optimizer steps", "Version of the weights that were evaluated."),
    Metric("eval/accuracy", "share of rewards", "Held-out rewards of at least 0.5, sampled like training."),
    Metric("eval/accuracy_low", "share of rewards", "Lower end of its 95 % interval, clustered by question."),
    Metric("eval/accuracy_high", "share of rewards", "Upper end of its 95 % interval, clustered by question."),
    Metric("eval/any_correct", "share of questions", "Questions with a correct sample, if there are several."),
    Metric("eval/reward", "reward", "Mean held-out reward; equals the accuracy if rewards are 0 or 1."),
    Metric("eval/dropped", "share of completions", "Held-out completions without a reward.", high=0),
    Metric("eval/greedy_accuracy", "share of rewards", "`eval/accuracy` at temperature 0."),
    Metric("eval/greedy_accuracy_low", "share of rewards", "Lower end of its 95 % interval."),
    Metric("eval/greedy_accuracy_high", "share of rewards", "Upper end of its 95 % interval."),
    Metric("eval/greedy_reward", "reward", "`eval/reward` at temperature 0."),
    Metric("eval/greedy_dropped", "share of completions", "`eval/dropped` at temperature 0.", high=0),
    Metric("eval_{name}/{metric}", "as in eval/", "The same of the set `eval.sets.NAME`."),
    # Time
    Metric("time/sync", "seconds", "Weights on their way to the sampler."),
    Metric("time/proof", "seconds", "Probes after a weight sync."),
    Metric("time/eval", "seconds", "Evaluation."),
    Metric("time/sample", "seconds", "Prompts and sampling, or reading saved rollouts."),
    Metric("time/score", "seconds", "Waiting for verdicts."),
    Metric("time/store", "seconds", "Waiting until the batch is written; it is while training computes."),
    Metric("time/metrics", "seconds", "Counting rewards, lengths and verdicts."),
    Metric("time/train", "seconds", "Training."),
    Metric("time/step", "seconds", "The whole step."),
    Metric("seconds/total", "seconds", "All steps so far, those before a resume included."),
    Metric("seconds/expected", "seconds", "All steps of the run, if the others take as long."),
    Metric("total/samples", "completions", "Completions of all batches so far."),
    Metric("total/tokens", "sampled tokens", "Sampled tokens of all batches so far."),
    Metric("tokens_per_second", "completion tokens per second", "Throughput of the step without evaluation."),
    # Only by lag
    Metric("lag_{bucket}/share", _TOKENS, "Tokens in the bucket."),
    Metric("lag_{bucket}/log_w_mean", _NATS, "Mean log w per token."),
)
"""Every metric that the loop and the built-in trainers log, by topic. Most are also logged by lag (`by_lag`)."""

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in CATALOG}


def bucket_names() -> dict[str, str]:
    """Return metric → its name within a bucket of lag, for those that are logged by lag."""
    return {metric.name: metric.by_lag for metric in CATALOG if metric.by_lag}


def find(name: str) -> Metric | None:
    """Return the entry of a logged name (`lag_4-7/ess_token` is that of `ess/token`); None if the catalog has none."""
    bucket = re.fullmatch(r"lag_[\w-]+/(\w+)", name)
    if bucket is not None and (whole := next((m for m in CATALOG if m.by_lag == bucket[1]), None)) is not None:
        return whole
    return next((metric for metric in CATALOG if metric.matches(name)), None)


def table() -> Iterator[str]:
    """Yield the lines of the Markdown table in `docs/instruments.md`."""
    yield "| metric | unit | healthy | meaning |"
    yield "|---|---|---|---|"
    for metric in CATALOG:
        doc = metric.doc.removesuffix(".").replace("|", "\\|")
        yield f"| `{metric.name}` | {metric.unit} | {metric.healthy} | {doc} |"


# --- metrics of a run -------------------------------------------------------------------------------------------------


def read_metrics(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the metrics of a file, one step at a time, without a last line that is still being written.

    Raises DataError, with file and line, for a line that does not hold the metrics of a step.
    """
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - 1))
        ended = content.read() in (b"", b"\n")
    lines = raw_lines_of(file)
    before = next(lines, None)
    while before is not None:
        line = next(lines, None)
        if line is not None or ended:
            yield _step_metrics(*before)
        before = line


def _step_metrics(where: str, line: bytes) -> dict[str, Any]:
    """Return the metrics in a line. Raises DataError if it holds something else."""
    try:
        value = from_json(decoded(line, where), where)
    except DataError as error:
        raise DataError(f"{error}; delete the line: nothing is trained on it") from error
    alarms = value.get("alarms", []) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("step"), int):
        raise DataError(f"{where} is not the metrics of a step: expected an object with a whole number `step`")
    if not isinstance(alarms, list) or not all(isinstance(each, dict) and "alarm" in each for each in alarms):
        raise DataError(f"{where} is not the metrics of a step: `alarms` is not a list of alarms")
    return value
