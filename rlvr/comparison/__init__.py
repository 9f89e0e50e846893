"""Two verifiers on the same rows, or several policies on the same questions: `rlvr compare`."""
