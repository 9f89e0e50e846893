"""One verdict: load a verifier, run it in a worker process, cache what it said."""
