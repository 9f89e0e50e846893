"""The policy as a torch module: loading, log-probabilities, LoRA."""
