"""The verifier `code-python`: programs of a model, run against the tests of a row in a sandbox."""

from .verifier import check

__all__ = ["check"]
