"""Settings of runs beside each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rlvr.reports.sources import ReportSource


@dataclass(frozen=True)
class SettingRow:
    """One setting of all runs."""

    key: str
    values: tuple[str | None, ...]
    """Value in each run, as JSON; None if the run does not have the setting."""

    @property
    def differs(self) -> bool:
        """Whether the runs differ in it."""
        return len(set(self.values)) > 1


def settings_table(sources: Sequence[ReportSource]) -> list[SettingRow]:
    """Return the settings of the runs, in the order of their configuration files. Sources without any have no
    column."""
    runs = [source for source in sources if source.settings]
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [
        SettingRow(
            key,
            tuple(
                json.dumps(run.settings[key], ensure_ascii=False, default=str) if key in run.settings else None
                for run in runs
            ),
        )
        for key in keys
    ]
