"""The side of the sandbox: modules that run in the box, from the standard library alone.

`rlvr_verifiers.code.box` sends their source to a bare Python (`python -S -P`), which imports nothing of rlvr.
"""
