"""Verifiers that give a random model something to learn from."""

from __future__ import annotations

import rlvr


@rlvr.verifier(name="digits", version="1", needs_answer=False)
def digits(completion: str, task: rlvr.Task) -> float:
    """Share of digits, in which completions of an untrained model differ."""
    return sum(character.isdigit() for character in completion) / max(1, len(completion))


@rlvr.verifier(name="begins", version="1", needs_answer=False)
def begins(completion: str, task: rlvr.Task) -> float:
    """1 for a digit at the beginning; in many groups all rewards are equal."""
    return float(completion[:1].isdigit())


@rlvr.verifier(name="broken", version="1", needs_answer=False)
def broken(completion: str, task: rlvr.Task) -> float:
    """Raises on about every other completion."""
    if sum(map(ord, completion)) % 2:
        raise RuntimeError("no")
    return 1.0


@rlvr.verifier(name="slow", version="1", needs_answer=False)
def slow(completion: str, task: rlvr.Task) -> float | rlvr.Verdict:
    """Runs out of time on completions without a digit."""
    return digits(completion, task) or rlvr.Verdict(status="timeout", reason="not done in time")


@rlvr.verifier(name="shy", version="1", needs_answer=False)
def shy(completion: str, task: rlvr.Task) -> float | None:
    """Abstains on completions without a digit."""
    return digits(completion, task) or None


@rlvr.verifier(name="mute", version="1", needs_answer=False)
def mute(completion: str, task: rlvr.Task) -> None:
    """Always abstains."""
