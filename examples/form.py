"""A verifier of form, not of answers: part of `reward.yaml`."""

import rlvr


@rlvr.verifier(name="form", version="1", needs_answer=False, answer_form=None)
def form(completion: str, task: rlvr.Task, *, boxes: int = 1) -> bool:
    """1 if the completion thinks at most once, closes its thinking, and then has exactly this many boxes."""
    thinking, _, said = completion.rpartition("</think>")
    return thinking.count("<think>") == completion.count("<think>") <= 1 and said.count(r"\boxed{") == boxes
