"""The command line as a whole: imports, lists, failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rlvr.cli import doctor
from rlvr.errors import RunError
from rlvr.registry import registry

COMMANDS = ("train", "score", "compare", "show", "diagnose", "plot", "settings", "plugins", "doctor")
Install = Callable[..., Path]

# Modules that help may load besides the standard library: typer and its dependencies.
DRAWING = {
    "typer",
    "click",
    "rich",
    "pygments",
    "markdown_it",
    "mdurl",
    "shellingham",
    "annotated_doc",
    "typing_extensions",
    "attr",  # rich draws its objects where it is installed
}
CONVERTING = {"pydantic", "pydantic_core", "annotated_types", "typing_inspection"}
BROKEN = {"broken_plugin": "import no_such_module"}


def rlvr(*arguments: str | Path, site: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `rlvr` in a new process, with the distributions in `site` installed."""
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120"}
    if site is not None:
        env["PYTHONPATH"] = str(site)
    command = [sys.executable, "-m", "rlvr", *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True)


def imported(code: str) -> set[str]:
    """Return top-level names of the modules loaded by `code` in a new process, without the standard library."""
    listing = "import sys; before = set(sys.modules)\n{}\nprint(*set(sys.modules) - before, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", listing.format(code)], capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in done.stderr.split()}
    return {name for name in names if name not in sys.stdlib_module_names and not name.startswith("_")}


def help_of(*command: str) -> str:
    return f"""
from rlvr.cli import main
sys.argv = {["rlvr", *command, "--help"]}
try:
    main()
except SystemExit as end:
    assert end.code == 0
"""


def test_help_imports_nothing_but_what_draws_it() -> None:
    found = imported(help_of())
    assert {"rlvr", "typer"} <= found
    assert found <= {"rlvr"} | DRAWING


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    found = imported(help_of(command))
    assert {"rlvr", "typer"} <= found
    assert found <= {"rlvr"} | DRAWING | CONVERTING


def test_importing_rlvr_imports_nothing_else() -> None:
    assert imported("import rlvr") == {"rlvr"}


def test_help_loads_no_plugin(install: Install) -> None:
    """A broken plugin would be reported."""
    site = install("rlvr-broken", "broken = broken_plugin", **BROKEN)
    assert (rlvr("--help", site=site).returncode, rlvr("--help", site=site).stderr) == (0, "")
    assert rlvr("plugins", site=site).stderr == REPORT


def test_help_names_every_command() -> None:
    printed = rlvr("--help").stdout
    assert [command for command in COMMANDS if f" {command} " not in printed] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trian",), "No such command 'trian'"),
        (("plugins", "--jsn"), "No such option: --jsn"),
        (("plugins", "extra"), "unexpected extra argument"),
        (("train", "--steps", "many"), "Invalid value for '--steps'"),
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments: tuple[str, ...], said: str) -> None:
    done = rlvr(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "math"), "there is no command rlvr check math; did you mean rlvr check verifier math?"),
        (("recipes", "dapo"), "there is no command rlvr recipes dapo; did you mean rlvr recipes show dapo?"),
        (("recipes", "shwo"), "No such command 'shwo'"),
    ],
)
def test_a_name_without_its_subcommand_is_told_the_subcommand(
    cli: Callable[..., Any], arguments: tuple[str, ...], said: str
) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize(
    ("command", "option"),
    [(["check", "verifier", "math", "--limit"], "--limit"), (["diagnose", "run", "-m"], "--model")],
)
def test_an_option_with_one_value_is_given_once(cli: Callable[..., Any], command: list[str], option: str) -> None:
    done = cli(*command, "1", command[-1], "2")
    assert (done.code, done.err) == (2, f"rlvr: {option} is given 2 times: give it once\n")


def test_options_that_are_lists_and_flags_may_be_repeated(cli: Callable[..., Any]) -> None:
    done = cli("plugins", "--json", "--json")
    assert done.code == 0
    done = cli("check", "verifier", "math", "--option", "a=1", "--option", "a=2")
    assert "--option a=2: a is given twice" in done.err


def test_the_version_is_that_of_the_package(cli: Callable[..., Any]) -> None:
    done = cli("--version")
    assert (done.code, done.out.split()[:2]) == (0, ["rlvr", f"{version('rlvr')},"])
    assert (
        imported(
            "import sys; sys.argv[1:] = ['--version']\ntry:\n    from rlvr.cli import main; main()\n"
            "except SystemExit: pass"
        )
        <= {"rlvr"} | DRAWING
    )


def test_help_shows_defaults_in_brackets_and_fills_its_lines() -> None:
    shown = " ".join(rlvr("train", "--help").stdout.replace("│", " ").split())
    assert "a local directory or a hub name. [default: embedded]" in shown
    assert "Ctrl-C finishes and saves the current step;" in shown


def test_no_arguments_print_the_help() -> None:
    assert "Usage: " in rlvr().stdout


def test_an_error_is_one_line_and_its_exit_code(install: Install) -> None:
    site = install("rlvr-polite", "polite = polite_plugin", polite_plugin=POLITE)
    site = install("rlvr-rude", "rude = rude_plugin", version="0.3", rude_plugin=POLITE)
    (site / "rows.jsonl").write_text('{"completion": "x", "answer": "1"}\n')
    done = rlvr("score", "rows.jsonl", "--out", "out.jsonl", "--verifier", "polite", site=site, cwd=site)
    report, error = done.stderr.splitlines()
    assert error == report
    assert error.startswith("rlvr: verifier 'polite' is offered by rlvr-polite 1.0 and rlvr-rude 0.3: remove one (pip ")
    assert done.stdout == ""
    assert done.returncode == 2


# --- one broken plugin ----------------------------------------------------------------------------------------------

REPORT = (
    "rlvr: plugin 'broken' of rlvr-broken 1.0 failed to load: ModuleNotFoundError: No module named 'no_such_module'\n"
)
ROW = '{"id": "a", "completion": "\\\\boxed{3}", "answer": "3"}\n'


@pytest.mark.parametrize(
    "command",
    [
        ["plugins"],
        ["recipes"],
        ["settings", "trainer"],
        ["score", "in.jsonl", "-v", "math", "-o", "out.jsonl", "--workers", "1"],
        ["train", "--dry-run", "--set", "verifier.workers=1"],
    ],
    ids=" ".join,
)
def test_a_broken_plugin_is_reported_once_and_blocks_nothing_else(
    install: Install, tmp_path: Path, command: list[str]
) -> None:
    site = install("rlvr-broken", "broken = broken_plugin", **BROKEN)
    (tmp_path / "in.jsonl").write_text(ROW)
    done = rlvr(*command, site=site, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, REPORT)


@pytest.mark.parametrize(
    "command",
    [
        ["score", "in.jsonl", "-v", "theirs", "-o", "out.jsonl"],
        ["check", "verifier", "theirs"],
        ["train", "--trainer", "theirs"],
        ["train", "--model", "embedded", "--dataset", "theirs"],
        ["train", "--recipe", "theirs"],
        ["train", "--tracker", "theirs"],
        ["train", "--set", "sampling.engine=theirs"],
    ],
    ids=lambda command: " ".join(command[-2:]),
)
def test_a_name_that_a_broken_plugin_may_offer_names_it(
    install: Install, cli: Callable[..., Any], tmp_path: Path, command: list[str]
) -> None:
    install("rlvr-broken", "broken = broken_plugin", **BROKEN)
    (tmp_path / "in.jsonl").write_text(ROW)
    registry.cache_clear()
    try:
        done = cli(*command)
    finally:
        registry.cache_clear()
    reported, error = done.err.splitlines(keepends=True)
    assert (done.code, reported) == (2, REPORT)
    assert "'theirs'" in error
    assert error.endswith(f"a broken plugin offers it: {REPORT.removeprefix('rlvr: ')}")


def test_two_plugins_of_one_name_are_reported_and_block_only_who_names_it(install: Install) -> None:
    site = install(
        "rlvr-polite", "a = polite_plugin", polite_plugin=POLITE, polite_checks="def check(completion, task): pass"
    )
    install("rlvr-rude", "b = rude_plugin", version="2.0", rude_plugin=POLITE.replace("polite_checks", "rude_checks"))
    problem = "verifier 'polite' is offered by rlvr-polite 1.0 and rlvr-rude 2.0"
    report = (
        f"rlvr: {problem}: remove one (pip uninstall rlvr-polite, or pip uninstall rlvr-rude), or name its function "
        "(--verifier polite_checks:check, or --verifier rude_checks:check)\n"
    )
    listed = json.loads(rlvr("plugins", "--json", site=site).stdout)
    (contested,) = [each for each in listed if each["kind"] == "broken"]
    assert (contested["name"], contested["distribution"]) == ("polite", "rlvr-polite, rlvr-rude")
    (site / "rows.jsonl").write_text('{"completion": "x", "answer": "1"}\n')
    score = ("score", site / "rows.jsonl", "--workers", "1")
    refused = rlvr(*score, "--out", site / "a.jsonl", "--verifier", "polite", site=site)
    assert (refused.returncode, refused.stderr) == (2, 2 * report)
    chosen = rlvr(*score, "--out", site / "b.jsonl", "--verifier", "polite_checks:check", site=site)
    assert chosen.returncode == 0, chosen.stderr
    other = rlvr(*score, "--out", site / "c.jsonl", "--verifier", "math", site=site)
    assert (other.returncode, other.stderr) == (0, report)


def test_the_list_of_plugins_has_the_broken_one(install: Install) -> None:
    site = install("rlvr-broken", "broken = broken_plugin", **BROKEN)
    listed = json.loads(rlvr("plugins", "--json", site=site).stdout)
    target = REPORT.removeprefix("rlvr: ").rstrip()
    broken = {"kind": "broken", "name": "broken", "distribution": "rlvr-broken", "version": "1.0", "target": target}
    assert [each for each in listed if each["kind"] == "broken"] == [broken]


def test_a_reader_that_goes_away_is_told_nothing() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m rlvr plugins --json | true"], capture_output=True, text=True
    )
    assert done.stderr == ""


# --- rlvr plugins ---------------------------------------------------------------------------------------------------

POLITE = """
    import rlvr

    @rlvr.hookimpl
    def rlvr_verifiers():
        return {"polite": "polite_checks:check"}
"""


def test_plugins_json_has_an_object_an_entry(install: Install) -> None:
    site = install("rlvr-polite", "polite = polite_plugin", version="1.5", polite_plugin=POLITE)
    entries = json.loads(rlvr("plugins", "--json", site=site).stdout)
    assert {
        "kind": "verifier",
        "name": "polite",
        "distribution": "rlvr-polite",
        "version": "1.5",
        "target": "polite_checks:check",
    } in entries
    assert {(entry["kind"], entry["name"]) for entry in entries if entry["distribution"] == "rlvr"} >= {
        ("verifier", "math"),
        ("trainer", "grpo-off"),
        ("preset", "embedded"),
        ("prompt_source", "arithmetic"),
    }


def test_plugins_prints_one_line_an_entry(install: Install) -> None:
    site = install("rlvr-polite", "polite = polite_plugin", version="1.5", polite_plugin=POLITE)
    header, *lines = rlvr("plugins", site=site).stdout.splitlines()
    assert header.split() == ["KIND", "NAME", "DISTRIBUTION", "VERSION", "TARGET"]
    assert ["verifier", "polite", "rlvr-polite", "1.5", "polite_checks:check"] in [line.split() for line in lines]
    assert len({line.index(line.split()[4]) for line in lines}) == 1, "the columns stand in line"


# --- rlvr doctor ----------------------------------------------------------------------------------------------------


class Report:
    """Output of `rlvr doctor --json` in this process (it imports torch), and its final error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        registry.cache_clear()
        capsys.readouterr()
        self.error: RunError | None = None
        try:
            doctor(as_json=True)
        except RunError as error:
            self.error = error
        finally:
            registry.cache_clear()
        self.findings = {(one["section"], one["name"]): one for one in json.loads(capsys.readouterr().out)}

    def __getitem__(self, key: tuple[str, str]) -> tuple[str, str, str]:
        return tuple(self.findings[key][field] for field in ("status", "detail", "remedy"))


def test_doctor_finds_this_environment_fit(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(capsys)
    assert report.error is None
    assert version("torch") in report["dependency", "torch"][1]
    assert sys.version.split()[0] in report["machine", "python"][1]
    assert {one["status"] for (section, _), one in report.findings.items() if section == "dependency"} == {"ok"}
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert {name for section, name in report.findings if section == "extra"} == set(project["optional-dependencies"])
    assert report["extra", "dev"][0] == "ok"
    assert report["plugin", "registry"][0] == "ok"


def test_doctor_prints_a_line_a_finding(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    as_rlvr(install, 'Provides-Extra: far\nRequires-Dist: pluggy\nRequires-Dist: no-such-thing>=3; extra == "far"\n')
    report = Report(capsys)
    doctor()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in printed] == [[one["status"], *key] for key, one in report.findings.items()]
    (missing,) = [line for line in printed if " far " in line]
    assert missing.endswith("; ".join(filter(None, report["extra", "far"][1:])))
    assert missing.endswith("no-such-thing is missing (needed by rlvr[far]); pip install 'rlvr[far]'")


def as_rlvr(install: Install, requires: str) -> Path:
    """Function that installs another distribution called rlvr, found before the real one, so that doctor reads its
    requirements."""
    return install("rlvr", "", requires)


def test_doctor_tells_what_is_missing_or_too_old_and_how_to_get_it(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    requires = """\
        Provides-Extra: far
        Provides-Extra: elsewhere
        Requires-Dist: no-such-thing>=2
        Requires-Dist: pluggy>=999
        Requires-Dist: packaging>=20
        Requires-Dist: no-such-extra-thing>=3; extra == "far"
        Requires-Dist: other; sys_platform == "nowhere" and extra == "elsewhere"
    """
    as_rlvr(install, requires)
    report = Report(capsys)
    assert report["dependency", "no-such-thing"] == (
        "fail",
        "no-such-thing is missing (needed by rlvr)",
        "pip install 'no-such-thing>=2'",
    )
    assert report["dependency", "pluggy"] == (
        "fail",
        f"pluggy {version('pluggy')} is installed, rlvr needs >=999",
        "pip install 'pluggy>=999'",
    )
    assert report["dependency", "packaging"][0] == "ok"
    missing = "no-such-extra-thing is missing (needed by rlvr[far])"
    assert report["extra", "far"] == ("note", missing, "pip install 'rlvr[far]'")
    assert report["extra", "elsewhere"] == ("note", "not for this platform", "")
    assert str(report.error) == "training or scoring cannot run: see no-such-thing, pluggy above"


@pytest.mark.parametrize(
    ("requires", "status", "detail"),
    [
        ("middle[deep]", "fail", "bottom 2.0 is installed, middle needs ==1.0"),
        ("middle", "ok", "1.0 (needs >0)"),
    ],
)
def test_doctor_follows_requirements_down(
    install: Install, capsys: pytest.CaptureFixture[str], requires: str, status: str, detail: str
) -> None:
    """For example, another package has replaced antlr's runtime, two levels below an extra of math-verify."""
    install("middle", "", 'Provides-Extra: deep\nRequires-Dist: bottom==1.0; extra == "deep"\n', middle="")
    install("bottom", "", version="2.0", bottom="")
    as_rlvr(install, f"Requires-Dist: {requires}>0\n")
    assert Report(capsys)["dependency", "middle"][:2] == (status, detail)


def test_doctor_imports_what_is_installed(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("halfway", "", halfway="import no_such_module")
    as_rlvr(install, "Requires-Dist: halfway\n")
    report = Report(capsys)
    trouble = "import halfway fails: ModuleNotFoundError: No module named 'no_such_module'"
    assert report["dependency", "halfway"][:2] == ("fail", trouble)
    assert report.error is not None
    assert report.error.exit_code == 1


def test_doctor_survives_a_broken_plugin_and_names_it(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("rlvr-broken", "broken = broken_plugin", **BROKEN)
    report = Report(capsys)
    assert report["plugin", "broken"][0] == "fail"
    assert "plugin 'broken' of rlvr-broken 1.0 failed to load" in report["plugin", "broken"][1]
    assert report["plugin", "broken"][2] == (
        "update it (pip install -U rlvr-broken) or remove it (pip uninstall rlvr-broken)"
    )
    assert report["plugin", "registry"][0] == "ok"
    assert str(report.error) == "plugins are broken: see broken above; commands that name none of them work"


def test_doctor_says_how_to_choose_between_two_plugins_of_one_name(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=POLITE.replace('"polite"', '"math"'))
    report = Report(capsys)
    status, detail, remedy = report["plugin", "math"]
    assert (status, detail.split("rlvr-polite")[0]) == ("fail", "verifier 'math' is offered by ")
    assert remedy.startswith("remove one (pip uninstall rlvr-polite), or name its function (--verifier ")
    assert str(report.error) == "plugins are broken: see math above; commands that name none of them work"


def test_doctor_notes_a_name_that_lacks_somebody_s_module(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=POLITE, polite_checks="import no_such_module")
    report = Report(capsys)
    assert report["plugin", "polite"][0] == "note"
    assert "No module named 'no_such_module'" in report["plugin", "polite"][1]
    assert report.error is None


def test_doctor_fails_on_a_name_whose_module_is_broken(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("rlvr-polite", "polite = polite_plugin", polite_plugin=POLITE, polite_checks="1 / 0")
    report = Report(capsys)
    assert report["plugin", "polite"][0] == "fail"
    assert report["plugin", "polite"][2].endswith("remove it (pip uninstall rlvr-polite)")
    assert str(report.error) == "plugins are broken: see polite above; commands that name none of them work"


def test_doctor_is_not_alarmed_by_pypi_s_verifiers(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("verifiers", "", version="0.4.0")
    report = Report(capsys)
    assert report["plugin", "verifiers"][0] == "ok"
    assert "0.4.0" in report["plugin", "verifiers"][1]
    assert report.error is None


@pytest.mark.parametrize("command", ["plugins", "--help"])
def test_output_that_cannot_be_written_is_one_line(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "rlvr", command], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "rlvr: standard output cannot be written: No space left on device\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_lead_nowhere(closed: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"completion": "\\\\boxed{3}", "answer": "3"}\n')
    score = f'"{sys.executable}" -m rlvr score in.jsonl -v math -o out.jsonl --workers 1 {closed}'
    done = subprocess.run(["bash", "-c", score], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out.jsonl").read_text())["scores"]
    assert (found["status"], found["reward"]) == ("graded", 1.0)
