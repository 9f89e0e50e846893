"""A verifier that counts words."""

from __future__ import annotations

from rlvr import Status, Task, Verdict, verifier


@verifier(name="word-count", version="1", answer_form=None, cases="cases.jsonl", partial_credit=True)
def check(completion: str, task: Task, *, partial: bool = True) -> Verdict:
    """Return reward 1 for exactly `task.answer` words.

    With `partial`, n words instead of N earn 1 - |n - N| / N, but at least 0, so that a model that never hits the
    number still learns the direction. Without it, they earn 0.
    """
    if task.answer is None or not task.answer.isdecimal() or int(task.answer) == 0:
        # The row is at fault, not the model. This status differs from a wrong answer and has no reward.
        return Verdict(status=Status.INVALID, reason=f"the gold {task.answer!r} is not a number of words")
    wanted, written = int(task.answer), len(completion.split())
    off = abs(written - wanted)
    reward = max(0.0, 1 - off / wanted) if partial else float(off == 0)
    reason = None if off == 0 else f"{written} words, {wanted} were asked for"
    return Verdict(status=Status.GRADED, reward=reward, extracted=str(written), reason=reason)
