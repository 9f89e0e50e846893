"""Verdicts: loading verifiers, running them in worker processes, caching their verdicts."""
