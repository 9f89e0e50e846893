"""Option of pytest: `pytest --rlvr-verifier NAME` adds a test that the verifier passes `rlvr check verifier`.

pytest loads this module wherever rlvr is installed, so it imports nothing until the option is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

EXAMPLES = 10
"""Examples per kind of fault in a report."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("rlvr", "verifiers of rlvr").addoption(
        "--rlvr-verifier",
        action="append",
        default=[],
        metavar="NAME",
        help="also test this verifier, as `rlvr check verifier NAME` does: a name, FILE.py:FUNCTION or a YAML file; "
        "repeatable",
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add a test for each verifier that the option names."""
    if names := config.getoption("rlvr_verifier"):
        make = _item_class()
        items += [make.from_parent(session, name=f"rlvr check verifier {name}", verifier=name) for name in names]


def _item_class() -> Any:
    """Return the class of these tests. pytest is imported when it runs already, and not before."""
    import pytest

    class VerifierItem(pytest.Item):
        """One verifier."""

        def __init__(self, *, verifier: str, **given: Any) -> None:
            super().__init__(**given)
            self._verifier = verifier

        def runtest(self) -> None:
            """Run the check."""
            from rlvr.bench.check import check
            from rlvr.bench.text import report_text

            report = check(self._verifier)
            assert report.passed, report_text(report, EXAMPLES)

        def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
            """Return the report of a failed check, without a traceback."""
            from rlvr.errors import RlvrError

            if isinstance(excinfo.value, AssertionError | RlvrError):
                return str(excinfo.value)
            return super().repr_failure(excinfo, style)

        def reportinfo(self) -> tuple[Any, int | None, str]:
            """Return what pytest calls the test."""
            return self.path, None, self.name

    return VerifierItem
