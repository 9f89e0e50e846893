"""`rlvr train --dry-run`: what a run would do, without loading its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rlvr.bench.report import shortened
from rlvr.run.memory import MemoryPlan
from rlvr.run.plan import Plan
from rlvr.run.reporting import counted, headline, labeled
from rlvr.run.saved import SavedRollouts
from rlvr.terminal import one_line, printable

SHOWN = 2000
"""Characters of the first prompt. A longer one is shown without its middle."""


def plan_text(plan: Plan) -> Iterator[str]:
    """Yield what `--dry-run` prints, line by line. Scores the gold answers of the first questions."""
    yield one_line(headline(plan))
    yield from _arithmetic(plan)
    yield from _first_prompt(plan)
    yield from _gold(plan)
    yield from (one_line(labeled(note)) for note in plan.notes)
    yield "\nno weight was loaded and nothing was written (--dry-run)"


def plan_summary(plan: Plan) -> dict[str, Any]:
    """Return what `--dry-run --json` prints: the resolved settings, and what the run would do."""
    saved = plan.saved
    config = plan.config
    return {
        "headline": headline(plan),
        "config": config.model_dump(mode="json"),
        "steps": config.steps,
        "optimizer_steps": config.steps * plan.options.steps_per_batch,
        "rollouts_per_step": plan.rollouts_per_step if config.samples else 0,
        "steps_per_epoch": plan.steps_per_epoch,
        "questions": plan.dataset_size,
        "held_out_questions": len(plan.questions),
        "device": plan.model.device,
        "dtype": plan.model.dtype,
        "memory": plan.memory.to_dict(),
        "first_prompt": plan.first_prompt,
        "gold": [
            {
                "row_id": encoded.prompt.task.row_id,
                "answer": encoded.prompt.task.answer,
                "status": score.status.value,
                "reward": score.reward,
                "reason": score.reason,
            }
            for encoded, score in (plan.try_gold() if plan.scorer is not None else ())
        ],
        "saved": None
        if saved is None
        else {
            "files": [str(file) for file in saved.files],
            "rollouts": saved.members,
            "groups": len(saved.groups),
            "groups_per_step": plan.saved_groups,
            "signal": saved.signal,
            "lags": None if saved.lags is None else list(saved.lags),
        },
        "notes": list(plan.notes),
    }


def _first_prompt(plan: Plan) -> Iterator[str]:
    if plan.first_prompt is None:
        return
    kind = "prompt" if plan.prompts is not None else "held-out prompt"
    yield f"\nthe first {kind}, as the model sees it:"
    text = printable(shortened(plan.first_prompt, SHOWN), None)
    yield from (f"  | {line}" for line in text.split("\n"))


def _gold(plan: Plan) -> Iterator[str]:
    if plan.scorer is None:
        return
    for place, (encoded, score) in enumerate(plan.try_gold()):
        if place == 0:
            yield f"\ngold answers, scored in the form {plan.scorer.claims.answer_form.replace('{answer}', '…')}:"
        verdict = score.status.value if score.reward is None else score.reward
        reason = f" ({one_line(score.reason)})" if score.reason else ""
        yield f"  {one_line(str(encoded.prompt.task.row_id))}: {encoded.prompt.task.answer!r} → {verdict}{reason}"


def _arithmetic(plan: Plan) -> Iterator[str]:
    config, options = plan.config, plan.options
    updates = options.steps_per_batch
    if plan.saved is not None:
        yield from _saved_lines(plan, plan.saved)
    if config.samples:
        yield from _sampling_lines(plan, options.batches_per_sync, updates)
    else:
        yield f"  the run      {counted(config.steps, 'step')}, {counted(config.steps * updates, 'optimizer step')}"
        yield f"  questions    {len(plan.questions)} held-out"
    copy = f", and a copy for the sampler {config.sampling.engine}" if plan.needs_sampler else ""
    yield (
        f"  would load   {config.model.name}: float32 master weights for {config.trainer.name}{copy}; device "
        f"{plan.model.device}, dtype {plan.model.dtype}"
    )
    yield from _memory_lines(plan.memory)


def _memory_lines(memory: MemoryPlan) -> Iterator[str]:
    if not memory.parts:
        return
    has = "unknown" if memory.total is None else _gib(memory.total)
    yield f"  memory       {_gib(memory.peak)} at the peak, of {has} on {memory.device}; estimated:"
    yield "               " + ", ".join(f"{part} {_gib(size)}" for part, size in memory.parts.items())
    if memory.total is not None and memory.certain <= memory.total < memory.peak:
        yield (
            "  note         may not fit: lower trainer.micro_batch_tokens or sampling.options.max_batch_tokens, or "
            "set trainer.gradient_checkpointing=true"
        )


def _gib(size: int) -> str:
    """Return a size in GiB, or MiB if it is small."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:,.1f} MiB"


def _sampling_lines(plan: Plan, push_every: int, updates: int) -> Iterator[str]:
    config, sampling = plan.config, plan.config.sampling
    epoch = plan.steps_per_epoch
    rows = "endless" if plan.dataset_size is None else f"{plan.dataset_size:,}"
    per_step = plan.rollouts_per_step
    most = sampling.max_lag
    oldest = ((push_every + config.batches_ahead) * updates if most is None else most + updates) - 1
    yield f"  questions    {rows}; {len(plan.questions)} held-out"
    yield (
        f"  a step       {plan.sampled_groups} prompts × {sampling.group_size} = {per_step} rollouts, at most "
        f"{per_step * sampling.max_tokens:,} sampled tokens"
    )
    yield f"  an epoch     {'endless' if epoch is None else counted(epoch, 'step')}"
    yield (
        f"  the run      {counted(config.steps, 'step')} = {config.steps * per_step:,} rollouts, "
        f"{counted(config.steps * updates, 'optimizer step')}"
    )
    yield (
        f"  weight sync  every {counted(push_every, 'step')}; lag 0 to {oldest} optimizer steps"
        + (", more for replayed groups" if plan.replayed_groups else "")
    )
    if sampling.refill:
        yield (
            "  refill       groups with equal rewards are replaced by further prompts, in up to "
            f"{sampling.refill_rounds} rounds a step"
        )
    if plan.replayed_groups:
        yield (
            f"  replay       {plan.replayed_groups} past groups a step, from the newest {config.replay.capacity:,} "
            f"with a signal; probability halves every {config.replay.half_life:g} steps, "
            f"{'any lag' if config.replay.max_lag is None else f'lag up to {config.replay.max_lag:,}'}"
        )


def _saved_lines(plan: Plan, saved: SavedRollouts) -> Iterator[str]:
    missing = sum(map(len, saved.missing.values()))
    yield (
        f"  saved        {saved.members:,} rollouts in {len(saved.groups):,} groups, {saved.signal:.0%} with a signal; "
        f"{counted(len(saved.files), 'file')}"
    )
    yield (
        f"  a step       {plan.saved_groups} saved groups, a pass in "
        f"{counted(math.ceil(len(saved.groups) / plan.saved_groups), 'step')}"
    )
    yield f"  lag          {_ages(saved)}"
    if missing and plan.behaviour is not None:
        yield (
            f"  recomputes   log-probabilities of {missing:,} rollouts with {plan.behaviour.path}, loaded before the "
            "model to train"
        )


def _ages(saved: SavedRollouts) -> str:
    if saved.lags is None:
        return "unknown: policy versions are from another run, or newer than the model"
    low, high = saved.lags
    known = counted(low, "optimizer step") if low == high else f"{low:,} to {high:,} optimizer steps"
    return f"{known} before the first step" + (f"; unknown for {saved.ageless:,} rollouts" if saved.ageless else "")
