"""A verifier under test: labelled cases, attacks, latency, and the report."""
