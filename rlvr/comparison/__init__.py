"""Two verifiers on the same rows: `rlvr compare`."""
