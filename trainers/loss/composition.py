"""The options that say which `Loss` is meant, and what turns them into one.

To add a variant, write its function where its axis is (ratios, centers, bands, surrogates, corrections, masks, kl) and
give it a line in the table there; here is only what does not go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from rlvr.settings import formerly

from .axes import bind, one_of
from .bands import BANDS
from .centers import CENTERS
from .corrections import CORRECTIONS, Bounds
from .kl import KL_TERMS
from .losses import Loss
from .masks import FIXED_MASKS, LIVE_MASKS
from .ratios import LEVELS
from .surrogates import SURROGATES

DENOMINATORS = {
    "behavior": "r = π/α, α the behaviour policy as the record has it; a correction makes c(w)/w a factor of "
    "surrogate=clip, and around another one it rejects",
    "iterate": "r = π/π_k, π_k the policy before the batch's first gradient step; a correction makes c(w) a factor, "
    "without one stale data is taken for fresh",
}
LOSS_AXES: Mapping[str, Mapping[str, Any]] = {
    "ratio": LEVELS,
    "denominator": DENOMINATORS,
    "center": CENTERS,
    "band": BANDS,
    "surrogate": SURROGATES,
    "correction": CORRECTIONS,
    "kl": KL_TERMS,
}


class LossOptions(BaseModel):
    """Keys of `trainer` that choose the loss: a name for each axis, and the parameters that the names need."""

    ratio: Annotated[str, one_of("ratio", LEVELS)] = Field(
        default="token", description="what one ratio is of: token, sequence (product) or geometric (mean, GSPO)"
    )
    denominator: Literal["behavior", "iterate"] = Field(
        default="behavior", description="of the ratio: α as recorded, or π_k, with correction's c(π_k/α) as a factor"
    )
    center: Annotated[str, one_of("center", CENTERS)] = Field(
        default="one",
        json_schema_extra=formerly("centre"),
        description="r' of the band: one, iterate (the true π_k/α) or interpolated (A-3PO)",
    )
    band: Annotated[str, one_of("band", BANDS)] = Field(
        default="additive", description="around r': additive, multiplicative, upper, none, second_moment (M2PO)"
    )
    epsilon: float = Field(default=0.2, gt=0, description="half-width of the clip band")
    epsilon_high: float | None = Field(default=None, ge=0, description="its upper half-width, when it differs (DAPO)")
    m2_budget: float = Field(default=0.04, gt=0, description="mean (log r)² of harmful tokens, of band=second_moment")
    surrogate: Annotated[str, one_of("surrogate", SURROGATES)] = Field(
        default="clip",
        json_schema_extra=formerly("kernel"),
        description="what is maximised: clip, cispo, rec (A·log π inside the band) or topr",
    )
    delta: float | None = Field(
        default=None, gt=1, description="upper bound of the ratio where A < 0, of surrogate=clip"
    )
    correction: Annotated[str, one_of("correction", CORRECTIONS)] = Field(
        default="none",
        description="of w = π_k/α: none, tis, mis, icepop, sequence_tis, sequence_mis, geo_rs "
        "(whose own bounds reject nearly everything at v = 50)",
    )
    correction_low: float | None = Field(
        default=None, ge=0, description="lower bound of w; the correction's by default"
    )
    correction_high: float | None = Field(default=None, gt=0, description="upper bound of w")
    mismatch_low: float | None = Field(default=None, ge=0, description="lower bound of w at lag 0, when it differs")
    mismatch_high: float | None = Field(default=None, gt=0, description="upper bound of w at lag 0, when it differs")
    masks: tuple[Annotated[str, one_of("mask", FIXED_MASKS, LIVE_MASKS)], ...] = Field(
        default=(), description="what trains nothing: truncated, max_lag, opsm, dppo_tv"
    )
    opsm_delta: float = Field(default=0.5, ge=0, description="δ of the mask opsm, nats a token")
    tv_delta: float = Field(default=0.2, ge=0, le=1, description="δ of the mask dppo_tv, in probability")
    kl: Annotated[str, one_of("KL term", KL_TERMS)] = Field(
        default="k3", description="estimator of KL(π ‖ π_ref): k1, k2, k3, k3_weighted"
    )

    @property
    def stale_bounds(self) -> Bounds:
        """Of w, at any lag that `mismatch_bounds` do not speak of."""
        return Bounds(self.correction_low, self.correction_high)

    @property
    def mismatch_bounds(self) -> Bounds:
        """Of w at lag 0."""
        return Bounds(self.mismatch_low, self.mismatch_high)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for impossible, why in self._refusals():
            if impossible:
                raise ValueError(why)
        return self

    def _refusals(self) -> list[tuple[bool, str]]:
        """What does not go together, and why."""
        surrogate, correction = SURROGATES[self.surrogate], CORRECTIONS[self.correction]
        around_one = (self.ratio, self.denominator, self.center) == ("token", "behavior", "one")
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        stale, mismatch = self.stale_bounds, self.mismatch_bounds
        epsilon_is_set = self.epsilon != type(self).model_fields["epsilon"].default
        limits = [] if correction is None else [correction.limits(stale), correction.limits(mismatch, stale)]
        empty = next(((below, above) for below, above in limits if below > above), (0.0, 0.0))
        return [
            (
                self.denominator == "iterate" and self.center != "one",
                f"trainer.center={self.center} needs denominator=behavior: π/π_k is 1 where π is π_k, so its band is "
                "around 1",
            ),
            (
                self.band == "second_moment" and not around_one,
                "trainer.band=second_moment needs ratio=token, denominator=behavior and center=one: its width is "
                "solved for log π/α of tokens",
            ),
            (
                self.band == "none" and self.center != "one",
                f"trainer.center={self.center} does nothing with band=none: there is no band around it",
            ),
            (
                self.band == "upper" and self.epsilon_high is not None and epsilon_is_set,
                "trainer.epsilon does nothing here: band=upper has an upper edge alone, and that is epsilon_high's",
            ),
            (
                surrogate.level not in (None, self.ratio),
                f"trainer.surrogate={self.surrogate} needs ratio={surrogate.level}: it is defined for no other",
            ),
            (
                correction is not None and correction.truncates and not surrogate.weighted,
                f"trainer.correction={self.correction} truncates the weight π_k/α, and "
                f"surrogate={self.surrogate} has none: take one that rejects (mis, icepop, sequence_mis, geo_rs)",
            ),
            (
                correction is not None
                and correction.truncates
                and self.denominator == "behavior"
                and surrogate.weighted
                and not surrogate.linear,
                f"trainer.correction={self.correction} truncates the weight π_k/α, and with denominator=behavior "
                f"that is a part of the ratio π/α, of which surrogate={self.surrogate} makes a weight of its own: set "
                "denominator=iterate",
            ),
            (
                self.denominator == "iterate" and not surrogate.weighted,
                f"trainer.denominator=iterate needs a surrogate with an importance weight: {self.surrogate} has none",
            ),
            (
                correction is None and any(bound is not None for bound in (*stale, *mismatch)),
                "trainer.correction is none: bounds of w (correction_low, …, mismatch_high) would do nothing",
            ),
            (
                any(empty),
                f"trainer.correction={self.correction} would bound w from {empty[0]:g} to {empty[1]:g}, where nothing "
                "lies: mind its own bounds where only one is given (`rlvr recipes parts`)",
            ),
            (
                self.delta is not None and (self.surrogate != "clip" or self.delta <= 1 + high),
                "trainer.delta belongs to surrogate=clip and lies above 1 + epsilon_high",
            ),
        ]


def compose(options: LossOptions, beta: float) -> Loss:
    """The loss that the options name; `beta` is the weight of the KL term."""
    band, surrogate = BANDS[options.band], SURROGATES[options.surrogate]
    return Loss(
        level=LEVELS[options.ratio],
        center=CENTERS[options.center],
        edges=bind(band.edges, options),
        width=None if band.width is None else bind(band.width, options),
        surrogate=bind(surrogate.objective, options),
        linear=surrogate.linear,
        bounded_by=bind(surrogate.bounded, options),
        masks=tuple(bind(LIVE_MASKS[name], options) for name in options.masks if name in LIVE_MASKS),
        kl=KL_TERMS[options.kl],
        beta=beta,
        denominator=options.denominator,
        correction=CORRECTIONS[options.correction],
        stale=options.stale_bounds,
        mismatch=options.mismatch_bounds,
    )
