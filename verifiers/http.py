"""The verifier `http`: a server of your own gives the verdicts. A request that fails is `abstained`, never 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SecretStr

from rlvr import Status, Task, Verdict, verifier

from .endpoint import EndpointError, post


@verifier(name="http", version="1", needs_answer=False, answer_form=None, deterministic=False, partial_credit=True)
def check(
    completion: str,
    task: Task,
    *,
    url: str,
    api_key: SecretStr | None = None,
    timeout: Annotated[float, Field(gt=0)] = 30.0,
    retries: Annotated[int, Field(ge=0)] = 3,
    pause: Annotated[float, Field(ge=0)] = 0.5,
) -> Verdict:
    """Return the verdict of a server: it gets `{"completion", "task"}` and answers `{"reward"}` or `{"status"}`.

    Args:
        completion: Text that is sent.
        task: The row's task; it is sent as an object with `answer`, `dataset`, `row_id`, `split` and `extra`.
        url: Address to which requests are posted.
        api_key: Sent as a bearer token; give it as env:NAME.
        timeout: Seconds for one try. The time limit of a verdict must be longer than all tries.
        retries: Further tries if the server is busy or cannot be reached.
        pause: Seconds before the second try, doubled before each further one.
    """
    sent = {"answer": task.answer, "dataset": task.dataset, "row_id": task.row_id, "split": task.split}
    body = {"completion": completion, "task": {**sent, "extra": dict(task.extra)}}
    key = None if api_key is None else api_key.get_secret_value()
    try:
        return verdict_from(post(url, body, key=key, timeout=timeout, retries=retries, pause=pause))
    except EndpointError as error:
        return Verdict(status=Status.ABSTAINED, reason=str(error))


def verdict_from(answer: Any) -> Verdict:
    """Return the verdict that a server's answer states. Raises EndpointError if it states none."""
    if not isinstance(answer, Mapping):
        raise EndpointError(f"the answer {str(answer)[:100]!r} is no object")
    reward, status = answer.get("reward"), answer.get("status")
    extracted, reason = (
        text if isinstance(text := answer.get(name), str) else None for name in ("extracted", "reason")
    )
    if status in (None, "graded"):
        number = float(reward) if isinstance(reward, bool | int | float) else math.nan
        if math.isfinite(number):
            return Verdict(status=Status.GRADED, reward=number, extracted=extracted, reason=reason)
        if reward is not None or status is not None:
            raise EndpointError(f"the reward {str(reward)[:100]!r} is no number")
        return Verdict(status=Status.ABSTAINED, extracted=extracted, reason=reason)
    if status in ("unparsed", "abstained", "invalid") and reward is None:
        return Verdict(status=Status(status), extracted=extracted, reason=reason)
    raise EndpointError(f"the answer has the status {str(status)[:100]!r} and the reward {str(reward)[:100]!r}")
