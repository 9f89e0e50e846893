"""Drawing completions with transformers."""
