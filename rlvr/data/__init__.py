"""Prompts, and where gold answers come from."""
