"""Scores for saved files: `rlvr score`."""
