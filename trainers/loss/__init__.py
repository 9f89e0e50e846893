"""The loss of GRPO. With every option at its default, one gradient step of `grpo-off` on B completions of up to T
tokens is these six lines (Mroueh et al., arXiv 2505.22257, eq. 8; a test runs them against the trainer):

    advantage_B = (reward_B - mean_B) / torch.sqrt(std_B**2 + 1e-6)    # the statistics of each completion's group
    ratio_BT = torch.exp(logprobs_BT - behaviour_logprobs_BT)          # π/α
    clipped_BT = ratio_BT.clamp(1 - 0.2, 1 + 0.2)
    objective_BT = torch.minimum(ratio_BT * advantage_B[:, None], clipped_BT * advantage_B[:, None])
    learned_BT = mask_BT & (std_B > 0)[:, None]                        # zero-variance groups are masked, eq. 8
    loss = -((objective_BT * learned_BT).sum(1) / mask_BT.sum(1)).mean()

Each line has alternatives, one file per axis: `advantage`, `ratios`, `bands` and `centers` (what the ratio is clipped
to), `surrogates` (how ratio and band form an objective), `corrections`, `masks`, `kl`, `aggregation`. `composition`
looks up the chosen functions, `losses` evaluates them, and `rlvr recipes` lists the named combinations.
"""
