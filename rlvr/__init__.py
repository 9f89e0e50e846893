"""rlvr: reinforcement learning with verifiable rewards.

Names are imported when they are first used, so `import rlvr` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvr.bench.check import check as check
    from rlvr.bench.dataset_check import DatasetEntry as DatasetEntry
    from rlvr.bench.dataset_check import DatasetReport as DatasetReport
    from rlvr.bench.dataset_check import check_dataset as check_dataset
    from rlvr.bench.dataset_check import list_datasets as list_datasets
    from rlvr.comparison.compare import CompareResult as CompareResult
    from rlvr.comparison.compare import compare as compare
    from rlvr.comparison.policies import PolicyComparison as PolicyComparison
    from rlvr.evaluation.evaluation import Evaluation as Evaluation
    from rlvr.evaluation.evaluation import evaluation_of as evaluation_of
    from rlvr.hookspecs import hookimpl as hookimpl
    from rlvr.record.schema import Rollout as Rollout
    from rlvr.record.schema import Score as Score
    from rlvr.record.schema import Status as Status
    from rlvr.record.schema import Task as Task
    from rlvr.record.schema import Verdict as Verdict
    from rlvr.record.select import ShowResult as ShowResult
    from rlvr.record.select import show as show
    from rlvr.reports.report import RunReport as RunReport
    from rlvr.reports.report import report as report
    from rlvr.reports.watch import Watcher as Watcher
    from rlvr.reports.watch import watch as watch
    from rlvr.rescore.export import ExportResult as ExportResult
    from rlvr.rescore.export import export as export
    from rlvr.rescore.merging import MergeResult as MergeResult
    from rlvr.rescore.merging import merge as merge
    from rlvr.rescore.score import ScoreReporter as ScoreReporter
    from rlvr.rescore.score import ScoreResult as ScoreResult
    from rlvr.rescore.score import score as score
    from rlvr.run.diagnose import Diagnosis as Diagnosis
    from rlvr.run.diagnose import diagnose as diagnose
    from rlvr.run.evaluate import evaluate as evaluate
    from rlvr.run.export_model import ExportedModel as ExportedModel
    from rlvr.run.export_model import export_model as export_model
    from rlvr.run.generate import GenerateReporter as GenerateReporter
    from rlvr.run.generate import GenerateResult as GenerateResult
    from rlvr.run.generate import generate as generate
    from rlvr.run.reporting import ProgressLines as ProgressLines
    from rlvr.run.reporting import TrainReporter as TrainReporter
    from rlvr.run.train import TrainResult as TrainResult
    from rlvr.run.train import train as train
    from rlvr.testing.scaffold import new_plugin as new_plugin
    from rlvr.verify.adapters import to_trl as to_trl
    from rlvr.verify.adapters import to_verifiers as to_verifiers
    from rlvr.verify.adapters import to_verl as to_verl
    from rlvr.verify.verifying import load_verifier as load_verifier
    from rlvr.verify.verifying import verifier as verifier

_HOME = {
    "CompareResult": "rlvr.comparison.compare",
    "compare": "rlvr.comparison.compare",
    "PolicyComparison": "rlvr.comparison.policies",
    "Evaluation": "rlvr.evaluation.evaluation",
    "evaluation_of": "rlvr.evaluation.evaluation",
    "MergeResult": "rlvr.rescore.merging",
    "merge": "rlvr.rescore.merging",
    "ExportResult": "rlvr.rescore.export",
    "export": "rlvr.rescore.export",
    "RunReport": "rlvr.reports.report",
    "report": "rlvr.reports.report",
    "Watcher": "rlvr.reports.watch",
    "watch": "rlvr.reports.watch",
    "ShowResult": "rlvr.record.select",
    "show": "rlvr.record.select",
    "Diagnosis": "rlvr.run.diagnose",
    "DatasetEntry": "rlvr.bench.dataset_check",
    "DatasetReport": "rlvr.bench.dataset_check",
    "check_dataset": "rlvr.bench.dataset_check",
    "list_datasets": "rlvr.bench.dataset_check",
    "check": "rlvr.bench.check",
    "diagnose": "rlvr.run.diagnose",
    "evaluate": "rlvr.run.evaluate",
    "ExportedModel": "rlvr.run.export_model",
    "export_model": "rlvr.run.export_model",
    "GenerateReporter": "rlvr.run.generate",
    "GenerateResult": "rlvr.run.generate",
    "generate": "rlvr.run.generate",
    "ProgressLines": "rlvr.run.reporting",
    "TrainReporter": "rlvr.run.reporting",
    "TrainResult": "rlvr.run.train",
    "train": "rlvr.run.train",
    "Rollout": "rlvr.record.schema",
    "Score": "rlvr.record.schema",
    "Status": "rlvr.record.schema",
    "Task": "rlvr.record.schema",
    "Verdict": "rlvr.record.schema",
    "hookimpl": "rlvr.hookspecs",
    "load_verifier": "rlvr.verify.verifying",
    "ScoreReporter": "rlvr.rescore.score",
    "ScoreResult": "rlvr.rescore.score",
    "score": "rlvr.rescore.score",
    "new_plugin": "rlvr.testing.scaffold",
    "to_trl": "rlvr.verify.adapters",
    "to_verifiers": "rlvr.verify.adapters",
    "to_verl": "rlvr.verify.adapters",
    "verifier": "rlvr.verify.verifying",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rlvr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
