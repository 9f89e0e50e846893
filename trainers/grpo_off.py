"""`grpo-off`: off-policy GRPO (Mroueh et al., arXiv 2505.22257, Algorithm 1), v10-i1 by default.

The sampler holds a lagged policy α, whose weights are synced every v = `push_every` batches. Each batch is sampled
fresh from α, advantages are whitened with the group's statistics under α, and the ratio's denominator is α as recorded.

`trainers/loss/__init__.py` opens with the default loss in six lines; `rlvr recipes` lists the alternatives.

With `center: iterate` and one gradient step per batch, r = r' where the gradient is taken, so nothing is clipped. The
clip then acts only for `updates_per_batch` > 1.
"""

from __future__ import annotations

from pydantic import Field

from .grpo import Grpo, GrpoOptions


class GrpoOffOptions(GrpoOptions):
    """Keys of `trainer` for `grpo-off`."""

    push_every: int = Field(default=10, ge=1, description="v: batches between two weight syncs to the sampler")

    @property
    def batches_per_sync(self) -> int:
        """v."""
        return self.push_every


class GrpoOff(Grpo):
    """`grpo` with a lagged behavior policy."""

    Options = GrpoOffOptions
    options: GrpoOffOptions
