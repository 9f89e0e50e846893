"""LiveCodeBench's private tests: base64 of zlib of a pickle of JSON text. Nothing is unpickled."""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from typing import Any

from .errors import RowError

LARGEST = 256 * 2**20
"""Bytes of unpacked tests."""
_TEXT = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_ALLOWED = _TEXT | {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}


def unpacked(text: str, largest: int = LARGEST) -> Any:
    """Return the tests, of at most `largest` bytes. Raises RowError for a pickle of anything but one text."""
    try:
        packed = base64.b64decode(text, validate=True)
        inflate = zlib.decompressobj()
        data = inflate.decompress(packed, largest)
        if not inflate.eof:
            raise RowError(f"tests of more than {largest // 2**20} MB, or cut off")
        return json.loads(_only_text(data))
    except (binascii.Error, zlib.error, ValueError, UnicodeError) as error:
        raise RowError(f"tests that are neither JSON nor packed: {error}") from error


def _only_text(data: bytes) -> str:
    """Return the text that a pickle holds, by its opcodes alone: none of them is run."""
    if data[:1] in (b"[", b"{"):
        return data.decode("utf-8")
    found: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _ALLOWED:
            raise RowError(f"tests in a pickle that holds more than text ({opcode.name})")
        if opcode.name in _TEXT:
            found.append(str(argument))
    if len(found) != 1:
        raise RowError(f"tests in a pickle of {len(found)} texts")
    return found[0]
