"""Reference of every setting, made from the models that validate them: `rlvr settings` and `docs/settings.md`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticUndefined, to_jsonable_python

from rlvr.data.prompts import DatasetCard
from rlvr.errors import ConfigError, PluginError, nearest
from rlvr.files import to_json
from rlvr.registry import Entry, registry
from rlvr.run.config import RunConfig
from rlvr.run.factories import sampler_factory, trainer_factory
from rlvr.verify.options import Option
from rlvr.verify.verifying import load_options

REQUIRED = "required"
"""Shown as the default of a setting without one."""


@dataclass(frozen=True)
class SettingDoc:
    """One setting: a key of `--set KEY=VALUE` and of `--config FILE`."""

    key: str
    values: str
    """Possible values in words: `integer ≥ 1`."""
    default: Any
    """JSON-safe value; `required` if there is none."""
    meaning: str
    taken_by: tuple[str, ...] = ()
    """Trainers, samplers or verifiers that have the key; empty if every run has it."""

    @property
    def section(self) -> str:
        """Section of the key; `top level` if it has none."""
        options = next((place for place in _OPTIONS if self.key.startswith(f"{place}.")), None)
        first, dot, _ = self.key.partition(".")
        return options or (first if dot else "top level")

    @property
    def default_text(self) -> str:
        """The default as `--set` takes it."""
        return self.default if isinstance(self.default, str) and self.default else to_json(self.default)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe values."""
        return asdict(self) | {"taken_by": list(self.taken_by)}


@dataclass(frozen=True)
class Reference:
    """Settings of a section, and notes on plugins whose options are not among them."""

    settings: tuple[SettingDoc, ...]
    notes: tuple[str, ...]


def settings_reference(section: str | None = None, distribution: str | None = None) -> Reference:
    """Return the settings of a section or key (`trainer`, `sampling.options`, `steps`); all if none is named.

    Options of trainers, samplers and verifiers are those of every installed plugin, or of one `distribution`.
    Raises ConfigError if there is no such section or key.
    """
    found: list[SettingDoc] = []
    notes: list[str] = []
    for doc in _run_settings():
        if doc.key not in _OPTIONS:
            found.append(doc)
        if doc.key == "dataset.options":
            found += _model_settings(DatasetCard, None, "dataset.options.")
        if (kind := _KINDS.get(doc.key)) and _concerns(section, doc.key.removesuffix(".name")):
            found += _plugin_settings(kind, distribution, notes)
    sections = list(dict.fromkeys(doc.section.partition(".")[0] for doc in found))
    found.sort(key=lambda doc: (sections.index(doc.section.partition(".")[0]), doc.section))
    named = [doc for doc in found if section is None or f"{doc.key}.".startswith(f"{section}.")]
    if not named:
        assert section is not None
        known = {".".join(doc.key.split(".")[:length]) for doc in found for length in (1, 2, 3)}
        told = nearest(section, known)
        if "; known:" in told:
            told = f"; sections: {', '.join(dict.fromkeys(doc.section for doc in found))}"
        raise ConfigError(f"there is no section or key {section!r}{told}")
    return Reference(tuple(named), tuple(notes))


def keys_called(name: str) -> list[str]:
    """Return the keys of a run, its trainers' options included, whose last part is `name`."""
    docs = [*_run_settings(), *settings_reference("trainer").settings]
    return sorted({doc.key for doc in docs if doc.key.rpartition(".")[2] == name and ".NAME." not in doc.key})


def table() -> Iterator[str]:
    """Yield the lines of `docs/settings.md`: a Markdown table for each section, of rlvr's own plugins."""
    section = None
    for doc in settings_reference(distribution="rlvr").settings:
        if doc.section != section:
            section = doc.section
            yield from ("", f"## {section}", "", "| key | values | default | meaning |", "|---|---|---|---|")
        only = f" ({', '.join(f'`{name}`' for name in doc.taken_by)} only)" if doc.taken_by else ""
        cells = (f"`{doc.key}`", doc.values, f"`{doc.default_text}`", doc.meaning + only)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


# --- settings of every run ------------------------------------------------------------------------------------------

_OPTIONS = ("dataset.options", "verifier.options", "sampling.options")
"""Keys that hold a section of options: the options are listed, not the key."""
_KINDS = {"verifier.options": "verifier", "sampling.options": "sampler", "trainer.name": "trainer"}
"""Key → the kind of plugin whose options follow it. The trainer's options stand beside its name."""


def _concerns(section: str | None, place: str) -> bool:
    """Return True if `section` is `place`, above it or below it."""
    return section is None or f"{section}.".startswith(f"{place}.") or f"{place}.".startswith(f"{section}.")


def _run_settings() -> list[SettingDoc]:
    """Return the settings that every run has: those of the top level first."""
    docs = list(_model_settings(RunConfig, RunConfig(), ""))
    return sorted(docs, key=lambda doc: "." in doc.key)


def _model_settings(model: type[BaseModel], defaults: BaseModel | None, prefix: str) -> Iterator[SettingDoc]:
    """Yield the settings of a model. `defaults` holds the values of its section, if those are not the model's own."""
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True) if defaults is None else getattr(defaults, name)
        meaning = field.description or ""
        if isinstance(default, BaseModel):
            inner = _model_settings(type(default), default, f"{prefix}{name}.")
            yield from (replace(doc, meaning=f"{meaning}: {doc.meaning}") if meaning else doc for doc in inner)
            continue
        shown = REQUIRED if default is PydanticUndefined else to_jsonable_python(default)
        yield SettingDoc(f"{prefix}{name}", _words(schema["properties"][name], schema), shown, meaning)
        if (section := _section(field.annotation)) is not None:  # off by default, or several by name
            named = "NAME." if typing.get_origin(field.annotation) is dict else ""
            yield from _model_settings(section, None, f"{prefix}{name}.{named}")


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model behind an annotation such as `LoraOptions | None`; None if there is none."""
    found = [each for each in (annotation, *typing.get_args(annotation)) if inspect.isclass(each)]
    return next((each for each in found if issubclass(each, BaseModel)), None)


# --- settings of plugins --------------------------------------------------------------------------------------------


def _plugin_settings(kind: str, distribution: str | None, notes: list[str]) -> list[SettingDoc]:
    """Return the options of each plugin of a kind. Equal ones are listed once, with the plugins that have them."""
    holders: dict[str, list[tuple[SettingDoc, list[str]]]] = {}
    asked = 0
    for entry in registry().entries(kind):
        if distribution not in (None, entry.distribution):
            continue
        try:
            docs = _entry_settings(entry)
        except PluginError as error:
            notes.append(f"options that are not listed: {error}")
            continue
        asked += 1
        for doc in docs:
            alike = holders.setdefault(doc.key, [])
            same = next((names for each, names in alike if each == doc), None)
            if same is None:
                alike.append((doc, [entry.name]))
            else:
                same.append(entry.name)
    merged = [pair for alike in holders.values() for pair in alike]
    every_trainer = asked if kind == "trainer" else None
    return [replace(doc, taken_by=() if len(names) == every_trainer else tuple(names)) for doc, names in merged]


def _entry_settings(entry: Entry) -> list[SettingDoc]:
    """Return the options of one trainer, sampler or verifier. Raises PluginError if it cannot be loaded."""
    if entry.kind == "trainer":
        return list(_model_settings(trainer_factory(entry.name).Options, None, "trainer."))
    if entry.kind == "sampler":
        return list(_model_settings(sampler_factory(entry.name).Options, None, "sampling.options."))
    return [_option_doc(option) for option in load_options(entry.name)]


def _option_doc(option: Option) -> SettingDoc:
    default = REQUIRED if option.required else to_jsonable_python(option.default)
    try:
        schema = TypeAdapter[Any](option.annotation).json_schema()
    except PydanticInvalidForJsonSchema:
        schema = {}
    return SettingDoc(f"verifier.options.{option.name}", _words(schema, schema), default, option.meaning)


# --- types in words -------------------------------------------------------------------------------------------------

_WORDS = {
    "boolean": "true or false",
    "integer": "integer",
    "null": "null",
    "number": "number",
    "path": "path",
    "string": "text",
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _words(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """Return what a value may be, in words. `whole` is the schema that holds the definitions."""
    if "$ref" in schema:
        return _words(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    if "anyOf" in schema:
        return " or ".join(_words(each, whole) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    kind = schema.get("format", schema.get("type"))
    if kind == "array":
        return _list_words(schema, whole)
    if kind == "object":
        return "section" if "properties" in schema else "mapping"
    bounds = ", ".join(f"{sign} {schema[name]:g}" for name, sign in _BOUNDS.items() if name in schema)
    return f"{_WORDS.get(kind or '', 'any value')} {bounds}".rstrip()


def _list_words(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"list: {', '.join(_words(each, whole) for each in schema['prefixItems'])}"
    each = _words(schema.get("items", {}), whole)
    return f"list of {each}"
