"""Test bench for verifiers: labeled cases, attacks, latency, report."""
