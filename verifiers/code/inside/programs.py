"""The last lines of ours before a program runs, in its own process: nothing that is said here can be trusted outside.

Three kinds of jobs:

    script    the program runs as `__main__`, with nothing of ours around it: input and output are its descriptors
    calls     the program is run, then its functions are called with arguments that come one call at a time
    tests     test code of the data set runs; names that it lacks stand for those of the program, in another box

Messages of calls and tests are frames on descriptor 4: four bytes of length, then JSON.
"""

from __future__ import annotations

import atexit
import builtins
import io
import json
import os
import random
import struct
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, NoReturn

from . import claims

JOB, CHANNEL = 3, 4
_LENGTH = struct.Struct("=I")

PRELUDE = """
import bisect, collections, copy, datetime, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
from builtins import *
"""
"""Imports that graders of competition tasks put before a program: their starter code uses `List` and the like."""


def read_job(descriptor: int) -> dict[str, Any]:
    """Return the job that the client wrote."""
    job: dict[str, Any] = json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    return job


def run(job: dict[str, Any]) -> NoReturn:
    """Run a job, and end the process."""
    os.close(JOB)
    random.seed(0)  # forking has drawn a new seed
    sys.setrecursionlimit(1000)
    exits: Any = sys.exit
    builtins.exit = builtins.quit = exits  # without `site`, there is none
    _open_streams()
    code = 1
    try:
        code = _KINDS[job["kind"]](job)
    except BaseException as error:
        complain(error)
    finally:
        os._exit(code)


def _open_streams() -> None:
    """Open the standard streams on descriptors 0 to 2: those of the zygote have read its own source."""
    reads = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape")
    writes = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), "utf-8", "surrogateescape")
    errors = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)), "utf-8", "backslashreplace", line_buffering=True
    )
    for name, stream in {"stdin": reads, "stdout": writes, "stderr": errors}.items():
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def complain(error: BaseException) -> None:
    """Write the kind of an error and its message to standard error."""
    sys.stderr.write(f"{_said(error)}\n")


def _said(error: BaseException) -> str:
    """Return the name of an error's class and its message, in one line."""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _module(name: str) -> dict[str, Any]:
    """Return the names of a new module, in which a program runs."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    module.__dict__["__builtins__"] = builtins
    return module.__dict__


def _finish() -> None:
    """Do what an interpreter does at the end: wait for threads, call what is registered, write what is buffered."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()


# --- a script -------------------------------------------------------------------------------------------------------


def _script(job: dict[str, Any]) -> int:
    os.close(CHANNEL)
    code = 0
    names = _module("__main__")
    try:
        exec(compile(job["source"], "program.py", "exec", dont_inherit=True), names)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    _finish()
    return code & 0xFF


# --- calls ----------------------------------------------------------------------------------------------------------


class Objects:
    """Objects of the program that were not sent, by number."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def refer(self, value: Any) -> int:
        """Keep an object, and return its number."""
        self._kept.append(value)
        return len(self._kept) - 1

    def find(self, number: int, _: str) -> Any:
        """Return the object of a number."""
        return self._kept[number]


def _calls(job: dict[str, Any]) -> int:
    names = _module("program")
    objects = Objects()
    try:
        if job["prelude"]:
            exec(PRELUDE, names)
        exec(compile(job["source"], "program.py", "exec", dont_inherit=True), names)
    except SystemExit:
        pass
    except BaseException as error:
        send(["raised", type(error).__name__, _said(error)])
        return 1
    send(["value", None])
    while (request := receive()) is not None:
        try:
            send(_answer(request, names, objects))
        except BaseException as error:
            send(["raised", type(error).__name__, _said(error)])
    return 0


def _answer(request: list[Any], names: dict[str, Any], objects: Objects) -> list[Any]:
    """Do what a request asks for: call, get, set."""
    verb, target, *rest = request
    found = objects.find(target, "") if isinstance(target, int) else named(names, target)
    if verb == "get":
        return ["value", claims.encode(getattr(found, rest[0]), objects.refer)]
    if verb == "set":
        setattr(found, rest[0], claims.decode(rest[1], objects.find))
        return ["value", None]
    arguments = claims.decode(rest[0], objects.find)
    keywords = claims.decode(rest[1], objects.find)
    value = found(*arguments, **keywords)
    mutated = claims.encode(arguments, objects.refer) if rest[2] else None
    return ["value", claims.encode(value, objects.refer), mutated]


def named(names: dict[str, Any], name: str) -> Any:
    """Return the function of this name: a global one, or a method of the class `Solution`."""
    if name in names:
        return names[name]
    solution = names.get("Solution")
    if solution is not None and hasattr(solution, name):
        return getattr(solution(), name)
    raise NameError(f"name {name!r} is not defined")


# --- tests ----------------------------------------------------------------------------------------------------------


class ProgramError(Exception):
    """An error of the program whose class is not one of Python's own."""


class Remote:
    """An object of the program: it can be called, passed on, and asked for attributes. It equals nothing but itself."""

    def __init__(self, target: int | str) -> None:
        object.__setattr__(self, "_target", target)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it, and bring back what the call changed in its arguments."""
        given = list(arguments)
        reply = ask(["call", self._target, sent(given), sent(keywords), any(map(_can_change, given))])
        for mine, changed in zip(given, _value(reply[2]) if reply[2] is not None else (), strict=False):
            if mine != changed and type(mine) is type(changed):
                _update(mine, changed)
        return _value(reply[1])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not isinstance(self._target, int):
            raise AttributeError(name)
        return _value(ask(["get", self._target, name])[1])

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(self._target, int):
            raise AttributeError(name)
        ask(["set", self._target, name, sent(value)])


def _can_change(value: Any) -> bool:
    return isinstance(value, list | dict | set)


def _update(mine: Any, changed: Any) -> None:
    """Give a list, dictionary or set the content of another."""
    if isinstance(mine, list):
        mine[:] = changed
    elif isinstance(mine, dict | set):
        mine.clear()
        mine.update(changed)


def sent(value: Any) -> Any:
    """Return the tree of a value in which a `Remote` is the program's own object."""
    if isinstance(value, Remote) and isinstance(value._target, int):
        return ["r", value._target, ""]
    if isinstance(value, list | tuple):
        return ["l" if isinstance(value, list) else "t", [sent(item) for item in value]]
    if isinstance(value, dict):
        return ["d", [[claims.encode(key), sent(item)] for key, item in value.items()]]
    return claims.encode(value)


def _value(tree: Any) -> Any:
    return claims.decode(tree, lambda number, name: Remote(number))


def ask(request: list[Any]) -> list[Any]:
    """Have the program do something, and return its answer. Raises what the program raised."""
    send(["ask", request])
    reply: list[Any] | None = receive()
    if reply is None:
        os._exit(1)
    if reply[0] == "raised":
        kind = getattr(builtins, str(reply[1]), None)
        known = isinstance(kind, type) and issubclass(kind, Exception)
        raise (kind if known and kind is not None else ProgramError)(str(reply[2]).removeprefix(f"{reply[1]}: "))
    return reply


def _tests(job: dict[str, Any]) -> int:
    names = _module("tests")
    names.update({name: Remote(target) for name, target in job["names"].items()})
    try:
        exec(compile(job["setup"], "setup.py", "exec", dont_inherit=True), names)
    except BaseException as error:
        send(["broken", _said(error)])
        return 1
    for number, step in enumerate(job["steps"]):
        try:
            exec(compile(step, f"test {number + 1}", "exec", dont_inherit=True), names)
        except BaseException as error:
            send(["failed", _said(error)])
        else:
            send(["passed"])
    return 0


# --- frames ---------------------------------------------------------------------------------------------------------


def send(message: list[Any]) -> None:
    """Write a frame."""
    data = json.dumps(message).encode()
    data = _LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(CHANNEL, data) :]


def receive() -> Any:
    """Read a frame; None when the other side has ended."""
    header = _read(_LENGTH.size)
    data = _read(_LENGTH.unpack(header)[0]) if header is not None else None
    return None if data is None else json.loads(data)


def _read(size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(CHANNEL, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


_KINDS: dict[str, Callable[[dict[str, Any]], int]] = {"script": _script, "calls": _calls, "tests": _tests}
