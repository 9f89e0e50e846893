"""Accuracy, pass@k, majority votes and their intervals, from recorded answers: `rlvr eval`."""
