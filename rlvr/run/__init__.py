"""One training run: configuration, plan, loop and run directory."""
