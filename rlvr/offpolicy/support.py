"""The kept support of filtered samples: the tokens that top_p, top_k and min_p left, as `sampling.keep_topk` records
them."""

from __future__ import annotations

from rlvr.record.schema import TOPK_IDS, TOPK_LOGPROBS, Rollout


def lacking_support(rollout: Rollout) -> str | None:
    """Return why a filtered rollout cannot be trained on, e.g. "sampled with top_p"; None if it can, or was not
    filtered.

    A trainer computes the filtered distribution by renormalizing its own to the recorded tokens. So all of them must be
    there: at most `top_k`, the drawn token among them. Penalties change the distribution in another way.
    """
    names = rollout.sampling.filters if rollout.sampling is not None else []
    if not names:
        return None
    assert rollout.sampling is not None
    sampled_with = f"sampled with {', '.join(names)}"
    if any(name.endswith("_penalty") for name in names):
        return sampled_with
    ids, logprobs = rollout.extra_tokens.get(TOPK_IDS), rollout.extra_tokens.get(TOPK_LOGPROBS)
    if ids is None or logprobs is None:
        return f"{sampled_with} and without the kept support (extra_tokens.{TOPK_IDS})"
    if rollout.token_ids is None or rollout.loss_mask is None or ids.ndim != 2 or ids.shape != logprobs.shape:
        return f"{sampled_with} and with a kept support that fits no tokens"
    if not 0 < rollout.sampling.top_k <= ids.shape[1]:
        return f"{sampled_with} and keeps {ids.shape[1]} tokens, which may not be all that could have been drawn"
    drawn = (ids == rollout.token_ids[:, None]).any(1)
    if not drawn[rollout.loss_mask].all():
        t = int((rollout.loss_mask & ~drawn).argmax())
        return f"{sampled_with} and with a kept support that lacks the drawn token {rollout.token_ids[t]} at {t}"
    return None
