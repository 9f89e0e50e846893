"""The options that choose a `Loss`, and the function that builds it.

To add a variant, write its function in the file of its axis (ratios, centers, bands, surrogates, corrections, masks,
kl) and add a line to the table there. This module only rejects combinations that make no sense.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from rlvr.settings import formerly

from .axes import bind, one_of
from .bands import BANDS
from .centering import CENTERINGS
from .centers import CENTERS
from .corrections import CORRECTIONS, Bounds
from .kl import KL_TERMS
from .losses import Loss
from .masks import FIXED_MASKS, LIVE_MASKS, near
from .ratios import LEVELS
from .surrogates import SURROGATES

DENOMINATORS = {
    "behavior": "r = π/α, with α the behavior policy as recorded; a correction multiplies surrogate=clip by c(w)/w and "
    "only rejects with the other surrogates",
    "iterate": "r = π/π_k, with π_k the policy before the batch's first gradient step; a correction multiplies by "
    "c(w); without one, stale data is treated as fresh",
}
LOSS_AXES: Mapping[str, Mapping[str, Any]] = {
    "ratio": LEVELS,
    "denominator": DENOMINATORS,
    "center": CENTERS,
    "band": BANDS,
    "surrogate": SURROGATES,
    "correction": CORRECTIONS,
    "centering": CENTERINGS,
    "kl": KL_TERMS,
}


class LossOptions(BaseModel):
    """Keys of `trainer` that choose the loss: a name for each axis, and the parameters that the names need."""

    ratio: Annotated[str, one_of("ratio", LEVELS)] = Field(
        default="token", description="level of the ratio: token, sequence (product) or geometric (mean, GSPO)"
    )
    denominator: Literal["behavior", "iterate"] = Field(
        default="behavior", description="denominator of the ratio: α as recorded, or π_k with the factor c(π_k/α)"
    )
    center: Annotated[str, one_of("center", CENTERS)] = Field(
        default="one",
        json_schema_extra=formerly("centre"),
        description="center r' of the band: one, iterate (the true π_k/α) or interpolated (A-3PO)",
    )
    band: Annotated[str, one_of("band", BANDS)] = Field(
        default="additive", description="band around r': additive, multiplicative, upper, none, second_moment (M2PO)"
    )
    epsilon: float = Field(default=0.2, gt=0, description="half-width of the clip band")
    epsilon_high: float | None = Field(default=None, ge=0, description="upper half-width, if different (DAPO)")
    m2_budget: float = Field(default=0.04, gt=0, description="for band=second_moment: mean (log r)² of harmful tokens")
    surrogate: Annotated[str, one_of("surrogate", SURROGATES)] = Field(
        default="clip",
        json_schema_extra=formerly("kernel"),
        description="objective per token: clip, cispo, rec (A·log π inside the band), topr or up (A > 0 unclipped)",
    )
    delta: float | None = Field(
        default=None, gt=1, description="for surrogate=clip: upper bound of the ratio where A < 0"
    )
    correction: Annotated[str, one_of("correction", CORRECTIONS)] = Field(
        default="none",
        description="correction of w = π_k/α: none, tis, mis, icepop, sequence_tis, sequence_mis, geo_rs "
        "(whose default bounds reject nearly everything at v = 50)",
    )
    correction_low: float | None = Field(
        default=None, ge=0, description="lower bound of w; default: the correction's own"
    )
    correction_high: float | None = Field(
        default=None, gt=0, description="upper bound of w; default: the correction's own"
    )
    mismatch_low: float | None = Field(default=None, ge=0, description="lower bound of w at lag 0, if different")
    mismatch_high: float | None = Field(default=None, gt=0, description="upper bound of w at lag 0, if different")
    centering: Annotated[str, one_of("centering", CENTERINGS)] = Field(
        default="none",
        description="none, or score: subtract the score's mean under the sampler, which needs sampling.keep_topk",
    )
    masks: tuple[Annotated[str, one_of("mask", FIXED_MASKS, LIVE_MASKS)], ...] = Field(
        default=(), description="tokens to leave out: truncated, max_lag, opsm, dppo_tv, ipo, cppo"
    )
    opsm_delta: float = Field(default=0.5, ge=0, description="δ of the mask opsm, in nats per token")
    tv_delta: float = Field(default=0.2, ge=0, le=1, description="δ of the mask dppo_tv, in probability")
    ipo_epsilon: float = Field(default=0.3, ge=0, le=1, description="ε of the mask ipo, in probability")
    cppo_delta: float = Field(default=0.15, ge=0, le=1, description="δ of the mask cppo: largest w·|π - α| of a token")
    cppo_budget: float = Field(
        default=0.015,
        ge=0,
        le=1,
        description="δ_b of the mask cppo: mean of w·|π - α| over a prefix beyond which δ falls",
    )
    cppo_floor: float = Field(default=0.8, gt=0, le=1, description="w of a completion's last token, for the mask cppo")
    kl: Annotated[str, one_of("KL term", KL_TERMS)] = Field(
        default="k3", description="estimator of KL(π ‖ π_ref): k1, k2, k3, k3_weighted"
    )

    @property
    def stale_bounds(self) -> Bounds:
        """Bounds of w at every lag that `mismatch_bounds` does not cover."""
        return Bounds(self.correction_low, self.correction_high)

    @property
    def mismatch_bounds(self) -> Bounds:
        """Bounds of w at lag 0."""
        return Bounds(self.mismatch_low, self.mismatch_high)

    @model_validator(mode="after")
    def _check_consistent(self) -> Self:
        for conflict, why in self._conflicts():
            if conflict:
                raise ValueError(why)
        return self

    def _conflicts(self) -> list[tuple[bool, str]]:
        """Return (is chosen, reason) for each combination that is rejected."""
        return [*self._band_conflicts(), *self._correction_conflicts(), *self._centering_conflicts()]

    def _band_conflicts(self) -> list[tuple[bool, str]]:
        around_one = (self.ratio, self.denominator, self.center) == ("token", "behavior", "one")
        epsilon_is_set = self.epsilon != type(self).model_fields["epsilon"].default
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
                f"trainer.center={self.center} does nothing with band=none: there is no band to center",
            ),
            (
                self.band == "upper" and self.epsilon_high is not None and epsilon_is_set,
                "trainer.epsilon does nothing here: band=upper has only an upper edge, which epsilon_high sets",
            ),
        ]

    def _correction_conflicts(self) -> list[tuple[bool, str]]:
        surrogate, correction = SURROGATES[self.surrogate], CORRECTIONS[self.correction]
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        stale, mismatch = self.stale_bounds, self.mismatch_bounds
        limits = [] if correction is None else [correction.limits(stale), correction.limits(mismatch, stale)]
        empty = next(((below, above) for below, above in limits if below > above), (0.0, 0.0))
        return [
            (
                surrogate.level not in (None, self.ratio),
                f"trainer.surrogate={self.surrogate} needs ratio={surrogate.level}: it is not defined for any other",
            ),
            (
                correction is not None and correction.truncates and not surrogate.weighted,
                f"trainer.correction={self.correction} truncates the weight π_k/α, and surrogate={self.surrogate} has "
                "none: choose a correction that rejects (mis, icepop, sequence_mis, geo_rs)",
            ),
            (
                correction is not None
                and correction.truncates
                and self.denominator == "behavior"
                and surrogate.weighted
                and not surrogate.linear,
                f"trainer.correction={self.correction} truncates the weight π_k/α. With denominator=behavior, that "
                f"weight is part of the ratio π/α, which surrogate={self.surrogate} already bounds: set "
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
                f"trainer.correction={self.correction} would bound w from {empty[0]:g} to {empty[1]:g}, an empty "
                "interval: a bound that is not set is the correction's own (see `rlvr recipes parts`)",
            ),
            (
                self.delta is not None and (self.surrogate != "clip" or self.delta <= 1 + high),
                "trainer.delta belongs to surrogate=clip and must exceed 1 + epsilon_high",
            ),
        ]

    def _centering_conflicts(self) -> list[tuple[bool, str]]:
        if self.centering == "none":
            return []
        around = {"ratio": "token", "denominator": "behavior", "center": "one", "correction": "none"}
        others = [f"{name}={getattr(self, name)}" for name, value in around.items() if getattr(self, name) != value]
        masks = [name for name in self.masks if name in LIVE_MASKS and name != "ipo"]
        bounded = {"rec": self.band == "none", "cispo": self.band != "none"}
        bounded["clip"] = self.band == "none" and "ipo" in self.masks
        return [
            (
                bool(others),
                f"trainer.centering=score does not go with {' and '.join(others)}: the mean is that of a weight of π/α "
                "per token",
            ),
            (bool(masks), f"trainer.centering=score knows no mean of what the mask {(masks or ['?'])[0]} leaves"),
            (
                not bounded.get(self.surrogate, False) or self.delta is not None,
                "trainer.centering=score needs surrogate=rec with band=none (no weight), surrogate=cispo with a band "
                "(a bounded weight), or surrogate=clip with band=none and masks=[ipo]; without a bound, the weight π/α "
                "centers by itself",
            ),
        ]


def compose(options: LossOptions, beta: float) -> Loss:
    """Return the loss that the options choose. `beta` is the weight of the KL term."""
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
        centering=CENTERINGS[options.centering],
        weight=surrogate.weight,
        near=bind(near, options) if "ipo" in options.masks else None,
        kl=KL_TERMS[options.kl],
        beta=beta,
        denominator=options.denominator,
        correction=CORRECTIONS[options.correction],
        stale=options.stale_bounds,
        mismatch=options.mismatch_bounds,
    )
