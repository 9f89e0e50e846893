"""`grpo-off`: off-policy GRPO (Mroueh et al., arXiv 2505.22257, Algorithm 1), v10-i1 by default.

The sampler holds a lagged policy α, pushed every v = `push_every` batches; fresh samples are drawn from it for every
batch; advantages are whitened with its group's statistics; the ratio's denominator is what the record says α gave.

The default loss in six lines is the first thing in `trainers/loss/`; `rlvr recipes` lists the alternatives.

With `center: iterate` and one gradient step a batch, r = r' where the gradient is taken, so nothing is clipped: the
clip then acts for `updates_per_batch` > 1 only.
"""

from __future__ import annotations

from pydantic import Field

from rlvr.protocols import TrainContext

from .grpo import Grpo, GrpoOptions


class GrpoOffOptions(GrpoOptions):
    """Keys of `trainer` for `grpo-off`."""

    push_every: int = Field(default=10, ge=1, description="v: batches between two pushes of weights to the sampler")


class GrpoOff(Grpo):
    """As `grpo`, with a lagged behaviour policy."""

    Options = GrpoOffOptions
    options: GrpoOffOptions

    def __init__(self, options: GrpoOffOptions, context: TrainContext) -> None:
        super().__init__(options, context)
        self.push_every = options.push_every
