"""Ratios between policies."""

from __future__ import annotations

import math

import torch

from rlvr_trainers.loss.ratios import log_ratio

MASK_BT = torch.tensor([[False, True, True, False], [False, True, False, False]])
LOG_PI_BT = torch.tensor([[-9.0, -1.0, -0.5, 3.0], [0.0, -2.25, 7.0, 7.0]])
LOG_ALPHA_BT = torch.tensor([[0.0, -1.5, -0.25, 0.0], [0.0, -2.0, 0.0, 0.0]])


def test_log_ratio_is_zero_outside_the_mask() -> None:
    expected = torch.tensor([[0.0, 0.5, -0.25, 0.0], [0.0, -0.25, 0.0, 0.0]])
    assert torch.equal(log_ratio(LOG_PI_BT, LOG_ALPHA_BT, MASK_BT), expected)


def test_nothing_outside_the_mask_reaches_the_gradient() -> None:
    log_pi_BT = LOG_PI_BT.masked_fill(~MASK_BT, -math.inf).requires_grad_()
    log_ratio(log_pi_BT, LOG_ALPHA_BT, MASK_BT).sum().backward()
    assert log_pi_BT.grad is not None
    assert torch.equal(log_pi_BT.grad, MASK_BT.float())
