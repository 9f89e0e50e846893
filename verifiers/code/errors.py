"""Errors of the code verifier that are no fault of a program."""

from __future__ import annotations


class BoxError(Exception):
    """The sandbox does not work, or broke: no verdict about a program. The message says what to do."""


class RowError(ValueError):
    """A row has no tests, or tests that cannot be read; the message says why."""
