"""`rlvr doctor`: what is installed, what is missing, and how to get it.

Dependencies and extras are read from the metadata of the installed distribution. Requirements are followed all the way
down, so a pin that another package has overridden (often antlr's runtime) is found.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlvr.cli.json_output import print_json
from rlvr.columns import columns
from rlvr.errors import PluginError, RunError

if TYPE_CHECKING:
    from rlvr.protocols import Diagnosed

GIB = 2**30
# Below these, a run of the default size may not finish: a math worker may need 2 GiB, checkpoints some 100 MiB.
LOW_MEMORY = 4 * GIB
LOW_DISK = 2 * GIB


@dataclass(frozen=True)
class Finding:
    """One line of the report. `note`: worth knowing. `fail`: `rlvr train` or `rlvr score` cannot run, or not with a
    plugin that is broken."""

    section: Literal["machine", "dependency", "extra", "plugin"]
    name: str
    status: Literal["ok", "note", "fail"]
    detail: str
    remedy: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array, one object per finding.")] = False,
) -> None:
    """Report what is installed, what is missing and how to get it. Exit code 1 if training or scoring cannot run."""
    try:
        metadata.version("rlvr")
    except metadata.PackageNotFoundError:
        raise RunError("rlvr runs from a folder and is not installed: pip install -e . in its checkout") from None
    findings = [*_machine(), *_dependencies(), *_torch(), *_extras(), *_plugins()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [
            (line.status, line.section, line.name, f"{line.detail}; {line.remedy}" if line.remedy else line.detail)
            for line in findings
        ]
        print(columns(rows))
    failures = [finding for finding in findings if finding.status == "fail"]
    if failures:
        names = ", ".join(finding.name for finding in failures)
        if all(finding.section == "plugin" and finding.remedy for finding in failures):
            raise RunError(f"plugins are broken: see {names} above; commands that name none of them work")
        raise RunError(f"training or scoring cannot run: see {names} above")


def _machine() -> Iterator[Finding]:
    yield Finding("machine", "python", "ok", f"{platform.python_version()} at {sys.executable}")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", "platform", "ok", f"{platform.platform()}, {cpus} CPUs")
    for name, size, low in (("memory", _memory(), LOW_MEMORY), ("disk", shutil.disk_usage(".").free, LOW_DISK)):
        detail = f"{size / GIB:.1f} GiB" + (f" free in {Path.cwd()}" if name == "disk" else "")
        if size < low:
            yield Finding("machine", name, "note", detail, f"a run may need {low / GIB:.0f} GiB")
        else:
            yield Finding("machine", name, "ok", detail)


def _memory() -> int:
    """Return the bytes that this process may use: the machine's memory, or a container's limit if that is lower."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return installed if text == "max" else min(installed, int(text))


def _dependencies() -> Iterator[Finding]:
    from rlvr.requirements import Known, requirements, unmet

    owners = metadata.packages_distributions()
    known: Known = {}
    for needed in requirements("rlvr"):
        trouble = "; ".join(unmet(needed, "rlvr", known)) or _import_trouble(needed.name, owners)
        if trouble:
            yield Finding("dependency", needed.name, "fail", trouble, f"pip install '{needed}'")
        else:
            detail = f"{metadata.version(needed.name)} (needs {needed.specifier})"
            yield Finding("dependency", needed.name, "ok", detail)


def _import_trouble(distribution: str, owners: Mapping[str, list[str]]) -> str:
    """Return why the distribution's module cannot be imported; "" if it can. `owners`: module → distributions."""
    from packaging.utils import canonicalize_name

    name = canonicalize_name(distribution)
    modules = [module for module, found in owners.items() if name in map(canonicalize_name, found) and module[0] != "_"]
    likely = name.replace("-", "_")
    module = likely if likely in modules or not modules else min(modules)
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"import {module} fails: {type(error).__name__}: {error}"
    return ""


def _torch() -> Iterator[Finding]:
    """Yield the devices of torch, and a GPU that it cannot use."""
    try:
        import torch
    except Exception:  # reported as a dependency that fails
        return
    build = (
        f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"ROCm {torch.version.hip}"
        if torch.version.hip
        else "CPU"
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            detail = f"{device.name}, {device.total_memory / GIB:.0f} GiB ({build} build)"
            yield Finding("machine", f"cuda:{index}", "ok", detail)
    elif Path("/dev/nvidia0").exists() and not torch.version.cuda:
        remedy = "install the CUDA build (pip's default on Linux) over it"
        yield Finding("machine", "gpu", "note", "an NVIDIA GPU is here, but this torch is a CPU build", remedy)
    elif Path("/dev/nvidia0").exists():
        detail = f"an NVIDIA GPU is here, but torch ({build} build) cannot use it"
        yield Finding("machine", "gpu", "note", detail, "its driver is likely too old for that CUDA")
    elif torch.backends.mps.is_available():
        yield Finding("machine", "gpu", "ok", "Apple (mps)")
    else:
        yield Finding("machine", "gpu", "ok", f"none: computing on the CPU ({build} build of torch)")


def _extras() -> Iterator[Finding]:
    from rlvr.requirements import Known, extras, requirements, unmet

    known: Known = {}
    for extra in extras("rlvr"):
        needed = requirements("rlvr", extra)
        trouble = [problem for requirement in needed for problem in unmet(requirement, f"rlvr[{extra}]", known)]
        if not needed:
            yield Finding("extra", extra, "note", "not for this platform")
        elif trouble:
            yield Finding("extra", extra, "note", "; ".join(trouble), f"pip install 'rlvr[{extra}]'")
        else:
            yield Finding("extra", extra, "ok", ", ".join(f"{one.name} {metadata.version(one.name)}" for one in needed))


def _plugins() -> Iterator[Finding]:
    from rlvr.protocols import Diagnosed
    from rlvr.registry import registry

    entries = registry().entries()
    broken = 0
    for entry in entries:
        try:
            target = entry.load()
            if isinstance(target, Diagnosed):
                yield _diagnosed(entry.name, target)
        except PluginError as error:
            broken += 1
            # A name that lacks a third-party module is only unavailable; our own needs are reported as dependencies.
            missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else "rlvr"
            status: Literal["note", "fail"] = "fail" if (missing or "rlvr").startswith("rlvr") else "note"
            yield Finding("plugin", entry.name, status, str(error), _way_out(entry.distribution))
    for each in registry().broken:
        yield Finding("plugin", each.plugin, "fail", each.error, _way_out(each.distribution))
    for contested in registry().contested:
        yield Finding("plugin", contested.entries[0].name, "fail", contested.problem, contested.remedy)
    owners = sorted({f"{entry.distribution} {entry.version}" for entry in entries})
    yield Finding("plugin", "registry", "ok", f"{len(entries) - broken} names load, from {', '.join(owners)}")
    try:
        beside = metadata.version("verifiers")
    except metadata.PackageNotFoundError:
        return
    yield Finding("plugin", "verifiers", "ok", f"PyPI's verifiers {beside} is installed too: rlvr's are rlvr_verifiers")


def _diagnosed(name: str, target: Diagnosed) -> Finding:
    """Return what a plugin says about this machine. It is only unavailable if it raises."""
    try:
        return Finding("plugin", name, "ok", target.doctor())
    except Exception as error:
        return Finding("plugin", name, "note", str(error))


def _way_out(distribution: str) -> str:
    """Return how to get rid of what a distribution of others breaks; "" for rlvr's own."""
    if distribution == "rlvr":
        return ""
    return f"update it (pip install -U {distribution}) or remove it (pip uninstall {distribution})"
