"""Flat `section.key: value` settings with their source, and models validated from them.

Errors name the key, the file and the line. A section that has a `name` may be given as that name alone:
`trainer: grpo-off` is `trainer: {name: grpo-off}`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeAlias, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic.fields import FieldInfo

from rlvr.errors import ConfigError, nearest
from rlvr.secret_options import is_secret, secret_value
from rlvr.validation_messages import validation_message


@dataclass(frozen=True)
class Setting:
    """A value and its source."""

    value: Any
    source: str


Settings: TypeAlias = dict[str, Setting]
"""Dotted key -> setting."""

NAMED = ("model", "dataset", "verifier", "trainer")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `1e-5` is a number (PyYAML's own rule wants `1.0e-5`)."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would read as a number, such as `1e5`."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def yaml_text(settings: Mapping[str, Any]) -> str:
    """Return nested settings as YAML, which `read_settings` restores exactly."""
    text: str = yaml.dump(settings, Dumper=_Dumper, sort_keys=False)  # ASCII: a NEL would end a line
    return text


def read_settings(path: Path, named: Collection[str] = NAMED) -> Settings:
    """Return the settings of a YAML file. A `named` section may be its name alone. Raises ConfigError."""
    node = _composed(path)
    return {} if node is None else _flatten(node, "", path, named)


@dataclass(frozen=True)
class LinedTree:
    """Content of a YAML file, and the line of each key."""

    value: Any
    lines: Mapping[tuple[str, ...], int]

    def line(self, keys: tuple[str, ...]) -> int:
        """Return the line of a nested key; that of the nearest one around it, if the file does not have the key."""
        return next((self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), 1)


def read_tree(path: Path) -> LinedTree:
    """Return the content of a YAML file with the lines of its keys. Raises ConfigError, also for a key given twice."""
    node = _composed(path)
    lines: dict[tuple[str, ...], int] = {}
    if node is not None:
        _number_lines(node, (), path, lines)
    try:
        return LinedTree({} if node is None else _construct(node), lines)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {_problem(error) if isinstance(error, yaml.YAMLError) else error}") from error


def _number_lines(node: yaml.Node, at: tuple[str, ...], path: Path, lines: dict[tuple[str, ...], int]) -> None:
    for key_node, value_node in node.value if isinstance(node, yaml.MappingNode) else ():
        key, line = (*at, str(key_node.value)), key_node.start_mark.line + 1
        if key in lines:
            raise ConfigError(f"{path}:{line}: {'.'.join(key)} is given twice (first in line {lines[key]})")
        lines[key] = line
        _number_lines(value_node, key, path, lines)


def _composed(path: Path) -> yaml.Node | None:
    """Return the nodes of a YAML file; None if it is empty. Raises ConfigError."""
    try:
        return yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not YAML: byte {error.start + 1} is not UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(error, path)) from error


def _flatten(node: yaml.Node, prefix: str, path: Path, named: Collection[str]) -> Settings:
    line = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        if not prefix:
            raise ConfigError(f"{line}: expected `key: value` pairs")
        try:
            return {_spell_out(prefix, named): Setting(_construct(node), line)}
        except yaml.YAMLError as error:
            raise ConfigError(_not_yaml(error, path)) from error
        except ValueError as error:  # an impossible date
            raise ConfigError(f"{line}: {prefix}: {error}") from error
    settings: Settings = {}
    for key_node, value_node in node.value:
        key = f"{prefix}.{key_node.value}" if prefix else str(key_node.value)
        for dotted, setting in _flatten(value_node, key, path, named).items():
            if dotted in settings:
                raise ConfigError(f"{setting.source}: {dotted} is given twice (first at {settings[dotted].source})")
            settings[dotted] = setting
    return settings


def _not_yaml(error: yaml.YAMLError, path: Path) -> str:
    """Return a message with file and line, since PyYAML calls the text `<unicode string>`."""
    mark = getattr(error, "problem_mark", None)
    return f"{path}{f':{mark.line + 1}' if mark else ''}: not YAML: {_problem(error)}"


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        problem = ", ".join(text for text in (error.context, error.problem) if text)
        unquoted = "<block end>" in problem or "mapping values are not allowed" in problem
        return problem + ("; put quotes around text that holds a colon, a quote or a bracket" if unquoted else "")
    if isinstance(error, yaml.reader.ReaderError):
        return f"{error.reason}: character {error.position + 1}"
    return str(error)


def _construct(node: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _spell_out(key: str, named: Collection[str] = NAMED) -> str:
    return f"{key}.name" if key in named else key


def parse_set(text: str) -> tuple[str, Setting]:
    """Parse `section.key=value` of `--set`; the value is YAML (`1e-5`, `true`, `[a, b]`, text)."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: expected KEY=VALUE, e.g. trainer.lr=1e-5")
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {text!r}: the value is not YAML: {_problem(error)}; if it is text, quote it: "
            f"""--set '{key.strip()}="…"'"""
        ) from error
    except ValueError as error:
        raise ConfigError(f"--set {text!r}: {error}") from error
    return _spell_out(key.strip()), Setting(parsed, f"--set {text}")


def command_line_settings(sets: Iterable[str], flags: Mapping[str, tuple[str, Any]]) -> Settings:
    """Return the settings of `--set` texts and of flags, `{key: (flag, value)}`; a flag with value None was not given.

    Raises ConfigError if a key is given twice.
    """
    pairs = [(key, Setting(value, flag)) for key, (flag, value) in flags.items() if value is not None]
    settings: Settings = {}
    for key, setting in [*pairs, *map(parse_set, sets)]:
        if key in settings:
            raise ConfigError(f"{key} is given twice: by {settings[key].source} and by {setting.source}")
        settings[key] = setting
    return settings


def mapping_settings(mapping: Mapping[str, Any], source: str) -> Settings:
    """Flatten a mapping of nested sections, dotted keys or both; `source` is what error messages call it.

    Paths become text. Raises ConfigError if a key is not text or is given twice.
    """
    settings: Settings = {}
    for key, value in _flat_items(mapping, "", source):
        dotted = _spell_out(key)
        if dotted in settings:
            raise ConfigError(f"{source}: {dotted} is given twice")
        settings[dotted] = Setting(value, source)
    return settings


def _flat_items(mapping: Mapping[str, Any], prefix: str, source: str) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise ConfigError(f"{source}: {prefix}{key!r} is no key: keys are text")
        if isinstance(value, Mapping):
            yield from _flat_items(value, f"{prefix}{key}.", source)
        else:
            yield f"{prefix}{key}", str(value) if isinstance(value, PurePath) else value


M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], settings: Settings, prefix: str = "") -> M:
    """Return a model made of flat settings. Raises ConfigError that names every fault.

    `prefix` comes before the keys in messages. Secret fields get their values from the environment
    (`rlvr.secret_options`).
    """
    nested: dict[str, Any] = {}
    for dotted, setting in settings.items():
        *sections, key = dotted.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{dotted} ({setting.source}): {section!r} is given a value of its own as well")
        place[key] = setting.value
    for name, field in model.model_fields.items():
        if name in nested and is_secret(name, field.annotation, field.default):
            nested[name] = secret_value(name, nested[name], f"{prefix}{name}")
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(model, fault, settings, prefix) for fault in error.errors())) from error


def _explain(model: type[BaseModel], fault: Any, settings: Settings, prefix: str) -> str:
    loc = [str(part) for part in fault["loc"] if part != "[key]"]
    if not loc:  # a validator of the whole model
        return validation_message(fault)
    dotted = ".".join(loc)
    source = _source(loc, settings)
    where = f"{prefix}{dotted}" + (f" ({source})" if source else "")
    if fault["type"] == "extra_forbidden":
        section = "".join(f"{part}." for part in loc[:-1])
        fields: Mapping[str, FieldInfo] = _section(model, loc[:-1]).model_fields
        if renamed := _renamed(fields, loc[-1]):
            return f"there is no key {where}: it is called {prefix}{section}{renamed} now"
        return f"there is no key {where}{nearest(loc[-1], fields, prefix + section)}"
    if fault["type"] == "missing":
        return f"{f'{source}: ' if source else ''}{prefix}{dotted} is missing"
    if fault["type"] == "value_error":
        return f"{where}: {validation_message(fault)}"
    section_keys = list(_section(model, loc).model_fields) if fault["type"].startswith("model") else ()
    return f"{where} {validation_message(fault, section_keys)}"


def formerly(key: str) -> dict[str, JsonValue]:
    """Return the `json_schema_extra` of a field that was called `key` in earlier versions; the error for the old key
    then names the new one."""
    return {"formerly": key}


def _renamed(fields: Mapping[str, FieldInfo], key: str) -> str | None:
    """Return the name of the field that was called `key`, if there is one."""
    extras = {name: field.json_schema_extra for name, field in fields.items()}
    return next((name for name, extra in extras.items() if extra == formerly(key)), None)


def _section(model: type[BaseModel], loc: Iterable[str]) -> Any:
    """Return the model of a section within `model`."""
    owner: Any = model
    parts = iter(loc)
    for section in parts:
        declared = owner.model_fields[section].annotation
        owner = next(t for t in (declared, *get_args(declared)) if hasattr(t, "model_fields"))  # maybe optional
        if get_origin(declared) is dict:
            next(parts, None)  # the name of one of several sections
    return owner


def _source(loc: Sequence[str], settings: Settings) -> str:
    """Return the source of a key; for a missing key or a list item, that of the section or list."""
    for length in range(len(loc), -1, -1):
        dotted = ".".join(loc[:length])
        for key, setting in settings.items():
            if not dotted or key == dotted or key.startswith(f"{dotted}."):
                return setting.source
    return ""


def sampler_options(given: Mapping[str, Any], options: type[M]) -> M:
    """The sampler's own options (`sampling.options`), checked against its `Options`."""
    return validate(options, {key: Setting(value, "") for key, value in given.items()}, "sampling.options.")
