"""Verifiers from functions: the decorator, the forms that a function may have, and the meaning of its result.

The usual form is `check(completion: str, task: Task) -> bool | float | None | Verdict` under `@verifier(...)`.
Functions for TRL and verl are recognized by their parameter names and used unchanged. Nothing here limits time or
memory: the worker processes of `rlvr.verify.scoring` do.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic_core import PydanticSerializationError, to_jsonable_python

from rlvr.errors import PluginError, nearest
from rlvr.record.item import Item
from rlvr.record.schema import Status, Task, Verdict
from rlvr.terminal import prints_to_standard_error
from rlvr.verify.composition import is_composition, named, read_composition
from rlvr.verify.loaded import Claims, LoadedVerifier, Range, Sees
from rlvr.verify.options import Option, listed_options, resolved_options
from rlvr.verify.results import describe, error_verdict, has_utf8, shown, storable, verdict_of
from rlvr.verify.source_version import code_version
from rlvr.verify.subject import Subject

Takes: TypeAlias = Literal["completion", "batch", "rollout", "group"]
Form: TypeAlias = Literal["completion", "batch", "rollout", "group", "trl", "verl"]
F = TypeVar("F", bound=Callable[..., Any])

AT_ONCE: Mapping[str, int] = {"batch": 64, "async": 256}
"""Completions that a worker is given at once by default."""

_ANSWER = frozenset({"answer"})
_BATCH = ("completions", "tasks")
# Parameters of each form that are not options.
_NATIVE: dict[tuple[str, ...], Takes] = {
    ("completion", "task"): "completion",
    _BATCH: "batch",
    ("rollout",): "rollout",
    ("rollouts",): "group",
}
_VERL = ("data_source", "solution_str", "ground_truth", "extra_info")
_TRL_GOLD = ("answer", "solution", "ground_truth")
_FORMS = (
    "check(completion, task), check(completions, tasks), check(rollout), check(rollouts), "
    "TRL's f(prompts, completions, **columns) or verl's compute_score(data_source, solution_str, ground_truth, "
    "extra_info)"
)
BOXED = "\\boxed{{answer}}"
"""The final-answer form of mathematics: `{answer}` is the place of the answer; all other braces are literal."""

# Errors of a user's module during import. KeyboardInterrupt is not among them.
BREAKAGE = (Exception, SystemExit)


@dataclass(frozen=True)
class Declaration:
    """Arguments of `@verifier(...)`, kept on the function as `__rlvr_verifier__`. Raises PluginError if wrong."""

    name: str | None = None
    version: str | None = None
    """Declared version. For a verifier that is loaded from a file, or without one, the version is a hash of its source,
    of the local modules that it imports, of the versions of the installed ones, and of `files`
    (`rlvr.verify.source_version`)."""
    takes: Takes | None = None
    needs_answer: bool = True
    """Whether a row without a gold answer is `invalid` and an empty completion `unparsed`, without a call."""
    memory: int | None = None
    """Bytes of address space that a worker may use in addition to what imports took; None is the pool's default."""
    preload: Callable[[], object] | None = None
    answer_form: str | None = BOXED
    cases: str | Path | None = None
    sees: Sees = "task"
    """The less a `check(completion, task)` sees, the less is sent to it, and the more rows count as equal."""
    deterministic: bool = True
    files: Sequence[str | Path] = ()
    min_group: int = 2
    """Rollouts that a group needs for a verdict; those of a smaller group are `invalid`."""
    partial_credit: bool = False
    """Whether wrong answers earn different rewards on purpose: `rlvr check verifier` does not judge their spread."""
    env: Sequence[str] = ()
    """Names of the environment variables that its workers see, in addition to those of `rlvr.verify.environment`."""
    columns: Sequence[str] = ()
    """Columns of a row, besides the gold answer, that it cannot do without."""
    reward_range: Range | None = None
    """Smallest and largest reward; None counts as 0 to 1 where verifiers are combined."""
    at_once: int | None = None
    """Completions of a call of a batch verifier at most, or that an asynchronous one judges at the same time; None is
    `AT_ONCE`."""

    def __post_init__(self) -> None:
        if self.answer_form is not None:
            require_place(self.answer_form, "@rlvr.verifier(answer_form=...)")
        if self.at_once is not None and self.at_once < 1:
            raise PluginError(f"@rlvr.verifier(at_once={self.at_once}): at least 1 completion is judged at once")
        if self.min_group < 1:
            raise PluginError(f"@rlvr.verifier(min_group={self.min_group}): a group has at least 1 rollout")
        if isinstance(self.env, str) or not all(isinstance(each, str) and each for each in self.env):
            raise PluginError(
                f"@rlvr.verifier(env=...) is {self.env!r}: expected a list of names of environment variables"
            )
        if self.reward_range is not None:
            require_range(self.reward_range, "@rlvr.verifier(reward_range=...)")


def verifier(
    *,
    name: str | None = None,
    version: str | None = None,
    takes: Takes | None = None,
    needs_answer: bool = True,
    memory: int | None = None,
    preload: Callable[[], object] | None = None,
    answer_form: str | None = BOXED,
    cases: str | Path | None = None,
    sees: Sees = "task",
    deterministic: bool = True,
    files: Sequence[str | Path] = (),
    min_group: int = 2,
    partial_credit: bool = False,
    env: Sequence[str] = (),
    columns: Sequence[str] = (),
    reward_range: Range | None = None,
    at_once: int | None = None,
) -> Callable[[F], F]:
    """Declare that a function, or a class with a method `check`, is a verifier, and return it unchanged.

        @verifier(name="mine", version="1")
        def check(completion: str, task: Task, *, tolerance: float = 0.0) -> bool | float | None | Verdict: ...

    The function returns a bool or a finite number as reward, None to abstain, or a `Verdict`. An exception, NaN or any
    other result becomes the verdict `error`. Parameters beyond those of its form are the verifier's options. Their
    values are validated and coerced by the annotations once, when the verifier is loaded.

    Args:
        name: Its name in scores. Default: the function's name.
        version: Change it whenever a verdict may change. Default, and always in a file: a hash of the source.
        takes: "completion", "batch", "rollout" or "group" (docs/verifiers.md). Default: what the parameter names show.
        needs_answer: Whether it compares an answer with the gold answer. Set it to False for format checks.
        memory: Bytes of address space that a worker may use in addition to what imports took.
        preload: Function that is called once, before workers are forked: for imports and tables that they share.
        answer_form: Form of a final answer, with `{answer}` in its place; None if completions are judged as a whole.
        cases: JSONL file of labeled cases (`rlvr.bench.cases`), relative to the function's own file.
        sees: "task" for the whole task, "answer" for `task.answer` alone; the rest is then empty.
        deterministic: Whether equal rows get equal verdicts, which may be remembered. False for a judge model.
        files: Data files that verdicts depend on, relative to the function's own file, for a version that is a hash.
        min_group: Rollouts that a group needs. Set it to 1 if a rollout can be judged by itself.
        partial_credit: Whether wrong answers earn different rewards on purpose.
        env: Environment variables that it reads when it is called; workers see no others (`rlvr.verify.environment`).
        columns: Columns of `task.extra` that it cannot do without. TRL's functions declare theirs as parameters.
        reward_range: Smallest and largest reward, if it is not 0 to 1. Compositions check their weights against it.
        at_once: Completions of a call of a batch verifier, or that an asynchronous one judges at the same time.

    Raises PluginError for arguments that make no sense.
    """
    # In the order of the fields of `Declaration`.
    given = (name, version, takes, needs_answer, memory, preload, answer_form, cases, sees, deterministic, tuple(files))
    declaration = Declaration(*given, min_group, partial_credit, env, tuple(columns), reward_range, at_once)

    def mark(function: F) -> F:
        function.__rlvr_verifier__ = declaration  # type: ignore[attr-defined]
        return function

    return mark


def require_place(form: str, where: str) -> None:
    """Raise PluginError if the answer form lacks `{answer}`."""
    if "{answer}" not in form:
        raise PluginError(f"{where} is {form!r}: write {{answer}} in place of the answer, as in {BOXED}")


def require_range(given: object, where: str) -> Range:
    """Return a reward range as two floats. Raises PluginError if it is not two finite numbers in order."""
    pair = [float(each) for each in given if isinstance(each, int | float)] if isinstance(given, list | tuple) else []
    if len(pair) != 2 or not all(map(math.isfinite, pair)) or pair[0] >= pair[1]:
        raise PluginError(f"{where} is {given!r}: expected the smallest and the largest reward, as in [0, 1]")
    return pair[0], pair[1]


class FunctionVerifier(LoadedVerifier):
    """A loaded verifier: a function or a class, its form and its options. Made by `load_verifier`."""

    def __init__(self, function: Callable[..., Any], name: str, version: str, options: Mapping[str, Any]) -> None:
        """Raises PluginError if the function has no known form, ConfigError for a wrong option."""
        declared: Declaration = getattr(function, "__rlvr_verifier__", Declaration())
        self.name = name
        self.version = version
        self.memory = declared.memory
        self._declared = declared
        self._subject = Subject(name, function)
        self._parameters = self._subject.parameters
        self._form, _ = _form(name, self._parameters, declared)
        self._concurrent = self._subject.is_async and self._form in ("completion", "rollout")
        kind = "async" if self._concurrent else self._form
        self.at_once = (declared.at_once or AT_ONCE[kind]) if kind in AT_ONCE else 1
        self.closes = self._subject.closes
        self.takes_groups = self._form == "group"
        self.min_group = declared.min_group if self.takes_groups else 1
        self.wants_rollout = self._form in ("rollout", "group", "trl")  # completion and task are not enough
        self.sees: Sees = declared.sees if self._form == "completion" else "task"
        self.repeatable = declared.deterministic and self._form == "completion" and self.at_once == 1
        # A TRL function may not use the gold answer: that depends on the columns that it names.
        self.needs_answer = declared.needs_answer and self._form != "trl"
        self.escaped = 0
        self.env = tuple(declared.env)
        offered = self._subject.offered or _offered(name, self._parameters, declared)
        self._options, written = resolved_options(name, self._subject.options_of, offered, options)
        self._arguments = {} if self._subject.is_class else self._options
        try:
            self.config: Mapping[str, Any] = to_jsonable_python(written)
        except PydanticSerializationError as error:
            raise PluginError(f"verifier {name!r} has an option that JSON cannot hold: {error}") from error

    def setup(self) -> None:
        """Make the instance of a class and call its `setup`; a function needs none."""
        self._subject.setup(self._options, keeps_loop=self._concurrent)

    def close(self) -> None:
        """Call `close` of a class's instance."""
        self._subject.close()

    @property
    def claims(self) -> Claims:
        """Properties that `rlvr check verifier` checks."""
        declared = self._declared
        cases = None
        if declared.cases is not None:
            try:
                source = inspect.getsourcefile(inspect.unwrap(self._subject.function))
            except TypeError:  # a callable object, a partial
                source = None
            cases = str(Path(source or "").absolute().parent / declared.cases)
        return Claims(
            compares_answers=declared.needs_answer and declared.answer_form is not None,
            needs_answer=self.needs_answer,
            needs_prompt=self._form in ("rollout", "group"),
            answer_form=declared.answer_form or BOXED,
            partial_credit=declared.partial_credit,
            deterministic=declared.deterministic,
            cases=cases,
            columns=(*declared.columns, *self._required_columns),
            reward_range=declared.reward_range,
        )

    @property
    def _required_columns(self) -> list[str]:
        """Parameters of a TRL function that name a column and have no default, without those of the gold answer."""
        if self._form != "trl":
            return []
        given = {"prompts", "completions", "completion_ids", *_TRL_GOLD}
        wanted = [key for key, p in self._parameters.items() if p.default is p.empty and p.kind not in _VAR]
        return [key for key in wanted if key not in given]

    def preload(self) -> None:
        """Call the function that the verifier declares as `preload`."""
        if self._declared.preload is not None:
            self._declared.preload()

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return the verdicts like `verify_items`, but let the function's exceptions through."""
        refusals = [self._refuse(item) for item in items]
        if 0 < (judged := refusals.count(None)) < self.min_group:
            alone = Verdict(
                status=Status.INVALID,
                reason=f"verifier {self.name!r} judges groups of at least {self.min_group} rollouts, and this one has "
                f"{judged} that can be judged",
            )
            return [alone if refusal is None else refusal for refusal in refusals]
        asked = [item for item, refusal in zip(items, refusals, strict=True) if refusal is None]
        if not asked:
            found = []
        elif self._form == "group":
            found = self._ask_group(asked)
        elif self._form == "batch":
            found = self._ask_batch(asked)
        elif self._concurrent:
            found = self._subject.run(self._ask_all(asked), self._options)
        else:
            found = [self._ask(item) for item in asked]
        self.escaped += sum(not has_utf8(verdict) for verdict in found)
        answers = iter(found)
        return [storable(next(answers)) if refusal is None else refusal for refusal in refusals]

    def _refuse(self, item: Item) -> Verdict | None:
        """Return the verdict if it needs no call."""
        if item.completion is None:
            return Verdict(status=Status.INVALID, reason="the row has no completion")
        if item.rollout is None and self._form in ("rollout", "group"):
            reason = f"verifier {self.name!r} takes rollouts, and the row has no prompt"
            return Verdict(status=Status.INVALID, reason=reason)
        if self.needs_answer and item.task.answer is None:
            return Verdict(status=Status.INVALID, reason="the row has no gold answer")
        if self.needs_answer and not item.completion.strip():
            return Verdict(status=Status.UNPARSED, reason="the completion is empty")
        return None

    def _ask(self, item: Item) -> Verdict:
        match self._form:
            case "completion" | "rollout":
                return verdict_of(self._call(*self._given(item), **self._arguments))
            case "verl":
                return _verl_verdict(self._call(**_verl_arguments(item, self._parameters), **self._arguments))
            case _:
                columns = _trl_columns(item)
                required = [key for key, p in self._parameters.items() if p.default is p.empty and p.kind not in _VAR]
                if missing := [key for key in required if key not in columns]:
                    if set(missing) <= set(_TRL_GOLD):
                        return Verdict(status=Status.INVALID, reason="the row has no gold answer")
                    return error_verdict(f"the row has no column {missing[0]!r}{nearest(missing[0], columns)}")
                if not any(p.kind is p.VAR_KEYWORD for p in self._parameters.values()):
                    columns = {key: value for key, value in columns.items() if key in self._parameters}
                return self._one_each(self._call(**columns), 1)[0]

    def _given(self, item: Item) -> tuple[Any, ...]:
        """Return the positional arguments about one item, for forms that take one."""
        if self._form == "rollout":
            return (item.rollout,)
        task = item.task
        if self.sees == "answer" and not task.model_fields_set <= _ANSWER:
            task = Task(answer=task.answer)
        return item.completion, task

    def _ask_group(self, items: Sequence[Item]) -> list[Verdict]:
        return self._one_each(self._call([item.rollout for item in items], **self._arguments), len(items))

    def _ask_batch(self, items: Sequence[Item]) -> list[Verdict]:
        """Return the verdicts on a batch. If the function raises, it is asked about each item alone."""
        try:
            results = self._call([item.completion for item in items], [item.task for item in items], **self._arguments)
            return self._one_each(results, len(items))
        except (MemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:
            return [self.failed(error)] if len(items) == 1 else [self._ask_batch([item])[0] for item in items]

    async def _ask_all(self, items: Sequence[Item]) -> list[Verdict]:
        """Return the verdicts on items that are judged at the same time, each within the time limit."""
        return list(await asyncio.gather(*map(self._ask_one, items)))

    async def _ask_one(self, item: Item) -> Verdict:
        try:
            async with asyncio.timeout(self.limit) as clock:
                return verdict_of(await self._subject.callee(self._options)(*self._given(item), **self._arguments))
        except (MemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, TimeoutError) and clock.expired():
                return Verdict(status=Status.TIMEOUT, reason=f"not done after {self.limit:g} s")
            return self.failed(error)

    def _one_each(self, results: Any, count: int) -> list[Verdict]:
        """Return a verdict for each of `count` results; `error` for all if there is another number of results."""
        if isinstance(results, str | bytes | Mapping) or not isinstance(results, Iterable):
            return [error_verdict(f"returned {shown(results)}: expected a list of {count}")] * count
        listed = list(results)
        if len(listed) != count:
            return [error_verdict(f"returned {len(listed)} results for {count}")] * count
        return [verdict_of(result) for result in listed]

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        result = self._subject.callee(self._options)(*args, **kwargs)
        return asyncio.run(result) if inspect.iscoroutine(result) else result  # TRL's may be asynchronous


def load_verifier(ref: str, /, **options: Any) -> LoadedVerifier:
    """Load the verifier that `ref` names, with these options.

    Args:
        ref: A registered name ("math"), a function in a file ("rewards/mine.py:check"; the file's folder is appended
            to the import path), a function in a module ("package.module:check"), or a composition of verifiers
            ("reward.yaml", "math:1.0 + mine.py:form:0.2"; `rlvr.verify.composition`).
        options: The verifier's options. Strings are coerced by the function's annotations.

    Raises:
        PluginError: There is no such verifier, it cannot be imported, or it has no known form.
        ConfigError: It has no such option, or the value is invalid.
    """
    if is_composition(ref):
        from rlvr.verify.composed import composed  # it loads its members with this function

        return composed(read_composition(ref), options)
    return FunctionVerifier(*_find(ref), options)


def verifier_name(ref: str) -> str:
    """Return the name in scores of the verifier that `ref` names. Raises as `load_verifier` does."""
    if is_composition(ref):
        return named(read_composition(ref), verifier_name).name
    return _find(ref)[1]


def _find(ref: str) -> tuple[Callable[..., Any], str, str]:
    """Return the function, its name and its version."""
    place, colon, attribute = ref.rpartition(":")
    if not colon:
        if ref.endswith(".py"):
            raise PluginError(f"which function of {ref}? Write {ref}:NAME")
        return _from_registry(ref)
    if place.endswith(".py"):
        module, source = _import_file(Path(place))
        name = f"{Path(place).stem}:{attribute}"
    else:
        try:
            with prints_to_standard_error():
                module = importlib.import_module(place)
        except BREAKAGE as error:
            raise PluginError(f"verifier {ref!r} failed to load: {describe(error)}") from error
        name, source = ref, None
    function = _attribute(module, attribute, ref)
    declared: Declaration = getattr(function, "__rlvr_verifier__", Declaration())
    if source is None and declared.version is not None:
        return function, declared.name or name, declared.version
    return function, declared.name or name, _code_version(function, module, source, declared, ref)


def _from_registry(name: str) -> tuple[Callable[..., Any], str, str]:
    from rlvr.registry import registry

    entry = registry().entry("verifier", name)
    function = entry.load()
    declared = getattr(function, "__rlvr_verifier__", Declaration())
    if declared.name not in (None, name):
        raise PluginError(
            f"{entry.distribution} {entry.version} registers {entry.target} as verifier {name!r}, "
            f"but its decorator calls it {declared.name!r}: use the same name for both"
        )
    return function, name, declared.version or entry.version


def _import_file(path: Path) -> tuple[ModuleType, bytes]:
    """Import a file. Return its module and its source: the bytes that were run, not those of a later read."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise PluginError(f"verifier file {path} cannot be read: {error.strerror}") from error
    try:
        return module_from_file(path, source), source
    except BREAKAGE as error:
        raise PluginError(f"verifier file {path} failed to load: {describe(error)}") from error


def module_from_file(path: Path, source: bytes) -> ModuleType:
    """Run the source of a file as a module. Raises what the source raises."""
    module = ModuleType(f"rlvr_file_{path.stem}_{hashlib.sha256(source).hexdigest()[:16]}")
    module.__file__ = str(path.resolve())
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # at the end: its neighbors can be imported, but shadow nothing
        sys.path.append(folder)
    sys.modules[module.__name__] = module  # dataclasses and pickle look up their module
    try:
        with prints_to_standard_error():
            exec(compile(source, module.__file__, "exec"), module.__dict__)
    except BREAKAGE:
        del sys.modules[module.__name__]
        raise
    return module


def _attribute(module: ModuleType, attribute: str, ref: str) -> Callable[..., Any]:
    try:
        function = getattr(module, attribute)
    except AttributeError as error:
        known = [
            name
            for name, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        raise PluginError(f"verifier {ref!r}: there is no function {attribute!r}{nearest(attribute, known)}") from error
    if not callable(function):
        raise PluginError(f"verifier {ref!r} is {shown(function)}, not a function")
    return typing.cast("Callable[..., Any]", function)


def _code_version(
    function: Callable[..., Any], module: ModuleType, source: bytes | None, declared: Declaration, ref: str
) -> str:
    """Return the version of a verifier that comes from its code. `source` is its file's text, if that is known."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # a callable object, a partial
        path = None
    if source is not None or path is None:
        path = module.__file__
    if path is None:
        raise PluginError(f"verifier {ref!r} has no source to take a version from: declare one with @rlvr.verifier")
    files = [Path(path).absolute().parent / file for file in declared.files]
    name = module.__name__ if source is not None else getattr(inspect.unwrap(function), "__module__", module.__name__)
    return code_version(Path(path).read_bytes() if source is None else source, name, files)


# --- the forms ------------------------------------------------------------------------------------------------------

_VAR = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _form(name: str, parameters: Mapping[str, inspect.Parameter], declared: Declaration) -> tuple[Form, Sequence[str]]:
    """Return the form, and the parameters that belong to it; the others are options."""
    leading = [key for key, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if declared.takes is None:
        if "completions" in parameters and tuple(leading[:2]) != _BATCH:
            return "trl", tuple(parameters)
        if {"solution_str", "ground_truth"} <= set(parameters):
            return "verl", _VERL
        for names, takes in _NATIVE.items():
            if tuple(leading[: len(names)]) == names:
                return takes, names
        raise PluginError(
            f"verifier {name!r} takes ({', '.join(map(str, parameters.values()))}), which is none of the known forms: "
            f"{_FORMS}; rename its parameters, or declare it with @rlvr.verifier(takes=...)"
        )
    count = 2 if declared.takes in ("completion", "batch") else 1
    if len(leading) < count:
        raise PluginError(
            f"verifier {name!r} is declared with takes={declared.takes!r} and has {len(leading)} positional "
            f"parameters, not {count}"
        )
    return declared.takes, leading[:count]


def _trl_columns(item: Item) -> dict[str, Any]:
    """Return what TRL's GRPOTrainer passes for a batch of this row alone: every column as a list.
    Prompt and completion are lists of messages if the rollout's prompt is. The gold answer has every name that TRL's
    own rewards use, unless the row has such a column. Arguments that only a trainer has (`trainer_state`, `log_extra`,
    `log_metric`) are left out, and so are completion ids that are unknown.
    """
    rollout = item.rollout
    if rollout is not None and rollout.messages is not None:
        prompt: Any = [message.model_dump() for message in rollout.messages]
        completion: Any = [{"role": "assistant", "content": item.completion}]
    else:
        prompt, completion = rollout.prompt if rollout is not None else None, item.completion
    columns = {key: value for key, value in item.task.extra.items() if key not in ("prompt", "completion")}
    if item.task.answer is not None:
        columns = dict.fromkeys(_TRL_GOLD, item.task.answer) | columns
    if rollout is not None and rollout.token_ids is not None and rollout.loss_mask is not None:
        columns["completion_ids"] = rollout.token_ids[rollout.loss_mask].tolist()
    columns |= {"prompts": prompt, "completions": completion}
    return {key: [value] for key, value in columns.items()}


def _verl_arguments(item: Item, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return verl's four arguments, as far as the function takes them.

    `data_source` and `extra_info` are the row's columns of these names or, by default, the data set's name and the rest
    of the row.
    """
    extra = item.task.extra
    arguments = {
        "data_source": extra.get("data_source", item.task.dataset),
        "solution_str": item.completion,
        "ground_truth": item.task.answer,
        "extra_info": extra.get("extra_info", dict(extra)),
    }
    return {key: value for key, value in arguments.items() if key in parameters}


def _verl_verdict(result: Any) -> Verdict:
    if not isinstance(result, Mapping):
        return verdict_of(result)
    if "score" not in result:
        return error_verdict(f"returned a mapping without 'score'; its keys: {', '.join(map(str, result))}")
    verdict = verdict_of(result["score"])
    extracted = result.get("pred")
    return verdict.model_copy(update={"extracted": extracted}) if isinstance(extracted, str) else verdict


def load_options(ref: str) -> list[Option]:
    """Return the options of the verifier that `ref` names. Raises PluginError as `load_verifier` does."""
    function, name, _ = _find(ref)
    declared: Declaration = getattr(function, "__rlvr_verifier__", Declaration())
    subject = Subject(name, function)
    offered = subject.offered or _offered(name, subject.parameters, declared)
    return listed_options(name, subject.options_of, offered, inspect.getdoc(function) or "")


def _offered(
    name: str, parameters: Mapping[str, inspect.Parameter], declared: Declaration
) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function that are options."""
    form, fixed = _form(name, parameters, declared)
    return {} if form == "trl" else {key: p for key, p in parameters.items() if key not in fixed}
