"""The record and its parts. Public; the code is in `rlvr.record.schema`."""

from __future__ import annotations

from rlvr.record.schema import (
    FinishReason,
    GroupStats,
    Message,
    ModelRef,
    Rollout,
    Sampling,
    SamplingParams,
    Score,
    Status,
    Task,
    Timings,
    Verdict,
    VersionRun,
)

__all__ = [
    "FinishReason",
    "GroupStats",
    "Message",
    "ModelRef",
    "Rollout",
    "Sampling",
    "SamplingParams",
    "Score",
    "Status",
    "Task",
    "Timings",
    "Verdict",
    "VersionRun",
]
