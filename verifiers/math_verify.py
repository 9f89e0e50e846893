"""The verifier `math-verify`: Hugging Face's Math-Verify as it is, to compare `math` with.

Its own time-outs are switched off: they need SIGALRM in a main thread and add up; here the worker process is killed
instead. Known to accept `1/2^{99}` for `1/2^{98}` and to reject `50%` for `1/2`; `math` does neither.
"""

from __future__ import annotations

import logging
from importlib import metadata

from rlvr import Status, Task, Verdict, verifier


def preload() -> None:
    """Import sympy and the parser before worker processes are forked."""
    from math_verify import parse

    # They warn that nothing limits them; the worker is limited.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    parse("$1$", parsing_timeout=None)


@verifier(
    name="math-verify",
    version=metadata.version("math-verify"),
    preload=preload,
    sees="answer",
    cases="math/corpus.jsonl",
)
def check(completion: str, task: Task, *, float_rounding: int = 6, strict: bool = True) -> Verdict:
    """Return 1.0 when Math-Verify finds the gold in the completion.

    Args:
        completion: Text whose final answer is judged.
        task: Its `answer` is the gold answer.
        float_rounding: Math-Verify's option: decimals to which numbers are rounded before they are compared.
        strict: Math-Verify's option: variables and sets must match exactly.
    """
    from math_verify import parse, verify

    gold = parse(f"\\boxed{{{task.answer}}}", parsing_timeout=None)
    if not gold:
        return Verdict(status=Status.INVALID, reason=f"the gold answer {(task.answer or '')[:80]!r} cannot be read")
    found = parse(completion, parsing_timeout=None)
    if not found:
        return Verdict(status=Status.UNPARSED, reason="no answer was found in the completion")
    equal = verify(gold, found, float_rounding=float_rounding, strict=strict, timeout_seconds=None)
    return Verdict(status=Status.GRADED, reward=float(equal), extracted=str(found[-1])[:1000])
