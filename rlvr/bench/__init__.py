"""Test bench for verifiers: labelled cases, attacks, latency, report."""
