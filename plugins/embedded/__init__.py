"""The default model and task of `rlvr train`: small, real, and part of the wheel."""
