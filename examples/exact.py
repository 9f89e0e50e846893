"""A verifier with labeled cases: `rlvr check verifier exact.py:exact`."""

import re

import rlvr

BOX = re.compile(r"\\boxed\{([^{}]*)\}")


@rlvr.verifier(name="exact", version="1", cases="exact.jsonl")
def exact(completion: str, task: rlvr.Task) -> rlvr.Verdict:
    """1 for the gold answer, letter for letter, in the only box that follows the thinking."""
    said = completion.rpartition("</think>")[2]
    boxes = BOX.findall(said)
    if "<think>" in said or len(boxes) != 1:
        return rlvr.Verdict(status="unparsed", reason=f"{len(boxes)} boxes after the thinking")
    return rlvr.Verdict(status="graded", reward=boxes[0].strip() == task.answer, extracted=boxes[0])
