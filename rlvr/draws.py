"""Randomness as a function: every draw is a hash of its purpose.

No generator is shared, and none is part of a checkpoint. The number drawn for (seed, "prompt-order", epoch) is the same
in every process, before and after a resume.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

Key: TypeAlias = int | str


def draw(*key: Key) -> int:
    """Return a 63-bit integer, uniform over `[0, 2**63)`. It depends on `key` alone; 1 and "1" are different parts."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def uniform(*key: Key) -> float:
    """Return a float, uniform over `[0, 1)` in steps of 2**-53."""
    return (draw(*key) >> 10) / 2**53


def permuted(size: int, position: int, *key: Key) -> int:
    """Return where `position` (in `[0, size)`) lands under a pseudo-random permutation of `range(size)` named by `key`.

    An eight-round Feistel network over the smallest even number of bits that holds `size`, walked until the value
    falls inside: no list of `size` numbers is built, so a resume needs a position only. Four rounds are measurably
    uneven below twenty elements.
    """
    if not 0 <= position < size:
        raise IndexError(f"position {position} is outside [0, {size})")
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for round_ in range(8):
            left, right = right, left ^ (draw(*key, round_, right) & mask)
        position = (left << half) | right
        if position < size:
            return position
