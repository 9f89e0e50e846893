"""A penalty for length: part of `reward.yaml`."""

import rlvr


@rlvr.verifier(name="long", version="1", needs_answer=False, answer_form=None)
def long(completion: str, task: rlvr.Task, *, limit: int = 1000) -> float:
    """0 up to `limit` characters; then it rises to 1 at twice that."""
    return min(1.0, max(0.0, len(completion) / limit - 1))
