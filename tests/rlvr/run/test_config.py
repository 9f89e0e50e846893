"""Layers of settings, and errors that name the source."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import small_runs
from rlvr.errors import ConfigError
from rlvr.registry import registry
from rlvr.run.config import ModelConfig, RunConfig, resolve, to_yaml, trainer_options
from rlvr.settings import command_line_settings, parse_set, read_settings, validate


def settings(*sets: str):
    return command_line_settings(sets, {})


def test_without_a_word_the_embedded_model_learns_arithmetic() -> None:
    config = resolve({})
    assert config.model.name == "embedded"
    assert config.dataset.name == "arithmetic"
    assert Path(config.model.location).is_dir()
    assert (Path(config.model.location) / "config.json").is_file()


def test_the_presets_learning_rate_never_reaches_another_model() -> None:
    embedded = resolve({})
    other = resolve(settings("model=Qwen/Qwen2.5-0.5B-Instruct", "dataset=gsm8k"))
    options = registry().load("trainer", "grpo").Options
    assert trainer_options(embedded, options).lr > 1e-5
    assert trainer_options(other, options).lr == 1e-6
    assert other.sampling.max_tokens == 1024
    assert other.model.location == "Qwen/Qwen2.5-0.5B-Instruct"


def test_a_dataset_for_which_the_default_model_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset 'gsm8k' needs a model .*--model Qwen/Qwen2.5-0.5B-Instruct"):
        resolve(settings("dataset=gsm8k"))
    assert resolve(settings("dataset=gsm8k", "model=embedded")).dataset.name == "gsm8k"  # set explicitly, so it is kept


def test_a_model_without_a_dataset_is_asked_for_one() -> None:
    with pytest.raises(ConfigError, match="name one with --dataset"):
        resolve(settings("model=some/model"))


def test_layers_defaults_then_preset_then_file_then_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("steps: 7\nseed: 3\ntrainer:\n  name: grpo-off\n  lr: 1e-5\n")
    config = resolve(settings("seed=4"), file)
    assert (config.steps, config.seed, config.trainer.name) == (7, 4, "grpo-off")
    assert config.trainer.options["lr"] == 1e-5
    assert config.verifier.timeout == 5.0


RECIPE = """
recipe:
  title: a test
  formula: r·A
  source: here
  staleness: v = 2
trainer:
  name: grpo-off
  push_every: 2
  epsilon: 0.4
  share_prefixes: false
sampling:
  group_size: 6
"""


def test_a_recipe_lies_between_the_preset_and_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    file = tmp_path / "run.yaml"
    file.write_text(f"recipe: {tmp_path}/mine.yaml\ntrainer:\n  epsilon: 0.3\nsampling:\n  group_size: 4\n")
    config = resolve(settings("sampling.group_size=2"), file)
    assert config.recipe == f"{tmp_path}/mine.yaml"
    assert config.trainer.options["lr"] == 5e-5  # the preset's
    assert config.trainer.options["share_prefixes"] is False  # the recipe's, over the preset's
    assert (config.trainer.name, config.trainer.options["push_every"]) == ("grpo-off", 2)
    assert config.trainer.options["epsilon"] == 0.3  # the file's, over the recipe's
    assert config.sampling.group_size == 2  # the command line's, over all
    assert resolve(settings(f"recipe={tmp_path}/mine.yaml")).trainer.options["epsilon"] == 0.4


def test_the_resolved_file_holds_what_the_recipe_set(tmp_path: Path) -> None:
    """A resumed run reads its own config.yaml, even if the recipe has changed."""
    (tmp_path / "mine.yaml").write_text(RECIPE)
    config = resolve(settings(f"recipe={tmp_path}/mine.yaml"))
    (tmp_path / "mine.yaml").unlink()
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert validate(RunConfig, read_settings(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer:\n  name: grpo\n", r"mine.yaml has no section `recipe` with title, formula, source and staleness"),
        (RECIPE + "model:\n  name: embedded\n", r"mine.yaml:15: a recipe is for any model and data set"),
        (
            RECIPE.replace("title", "titel"),
            r"mine.yaml:3: recipe.title is missing; .*no key recipe.titel \(.*mine.yaml:3\)",
        ),
        (
            RECIPE.replace("epsilon", "surrogate: clp\n  epsilon"),
            r"trainer.surrogate \(.*mine.yaml:10\): there is no surrogate 'clp'; ",
        ),
        (
            RECIPE.replace("group_size: 6", "group_size: 1"),
            r"sampling.group_size \(.*mine.yaml:13\) must be at least 2, not 1$",
        ),
    ],
)
def test_a_recipe_that_is_none_is_an_error_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        resolve(settings(f"recipe={tmp_path}/mine.yaml"))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ["band=aditive"],
            r"^trainer.band \(--set trainer.band=aditive\): there is no band 'aditive'; did you mean 'additive'\?$",
        ),
        (
            ["masks=[opsn]"],
            r"^trainer.masks.0 \(--set trainer.masks=\[opsn\]\): there is no mask 'opsn'; did you mean 'opsm'\?$",
        ),
        (["denominator=iterate", "center=iterate"], r"^trainer.center=iterate needs denominator=behavior"),
        (["max_lag=5"], r"^trainer.max_lag: set both masks"),
        (
            ["kernel=clip"],
            r"^there is no key trainer.kernel \(--set trainer.kernel=clip\): it is called trainer.surrogate now$",
        ),
        (["centre=one"], r"^there is no key trainer.centre \(--set .*\): it is called trainer.center now$"),
        (["denominator=behaviour"], r"^trainer.denominator \(--set .*\) must be 'behavior' or 'iterate'"),
        (["advantage=centred"], r"there is no advantage 'centred'; did you mean 'centered'\?$"),
    ],
)
def test_a_composition_that_is_impossible_says_why(sets: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(settings(*(f"trainer.{text}" for text in sets)))


def test_a_run_begun_under_an_option_s_old_name_says_the_new_one(tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small_runs.start(small_runs.small_config(tiny_model, trainer__surrogate="clip", steps=1), run)
    for name in ("config.yaml", "manifest.json"):
        text = (run / name).read_text()
        assert "surrogate" in text
        (run / name).write_text(text.replace("surrogate", "kernel"))
    with pytest.raises(ConfigError, match=r"^there is no key trainer.kernel: it is called trainer.surrogate now$"):
        small_runs.resume(run, steps=2)


def test_an_option_of_another_trainer_names_that_one(tmp_path: Path) -> None:
    """A misspelled option of the run's own trainer is still an error."""
    with pytest.raises(
        ConfigError, match=r"push_every \(--push-every\): the trainer is 'grpo', .* of 'grpo-off'; .*--trainer"
    ):
        resolve(command_line_settings([], {"trainer.push_every": ("--push-every", 4)}))
    with pytest.raises(ConfigError, match=r"push_every \(.*gspo.yaml:\d+\): the trainer is 'grpo', .* of 'grpo-off'"):
        resolve(settings("recipe=gspo", "trainer=grpo"))
    (tmp_path / "run.yaml").write_text("trainer:\n  name: grpo\n  push_evry: 4\n")
    with pytest.raises(ConfigError, match=r"^there is no key trainer.push_evry \(.*run.yaml:3\)"):
        resolve({}, tmp_path / "run.yaml")


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "+1e-5", ".1e-4", "0.00001"])
def test_yaml_numbers_as_people_write_them(text: str) -> None:
    key, setting = parse_set(f"trainer.lr={text}")
    assert key == "trainer.lr"
    assert setting.value == pytest.approx(1e-5)


@pytest.mark.parametrize(("key", "nearest"), [("stepz", "steps"), ("sampling.group_sice", "sampling.group_size")])
def test_an_unknown_key_names_its_line_and_the_nearest(tmp_path: Path, key: str, nearest: str) -> None:
    file = tmp_path / "run.yaml"
    section, _, name = key.rpartition(".")
    file.write_text(f"seed: 1\n{section}:\n  {name}: 8\n" if section else f"seed: 1\n\n{name}: 8\n")
    with pytest.raises(ConfigError, match=rf"no key {key} \({file}:3\); did you mean '{nearest}'"):
        resolve({}, file)


def test_an_unknown_trainer_key_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no key trainer.epsilom .*did you mean 'trainer.epsilon'"):
        resolve(settings("trainer.epsilom=0.1"))


def test_what_stands_before_a_key_makes_it_no_more_alike() -> None:
    with pytest.raises(
        ConfigError, match=r"no key eval.foo \(--set eval.foo=1\); known: data_files, dataset, every, ques"
    ):
        resolve(settings("eval.foo=1"))


@pytest.mark.parametrize(
    ("set_", "message"),
    [
        ("sampling.group_size=one", "must be a whole number, not 'one'"),
        ("sampling.group_size=1.5", "must be a whole number, not 1.5"),
        ("sampling.temperature=0", "must be above 0, not 0"),
        ("replay.share=1", "must be below 1, not 1"),
        ("rollouts.share=2", "must be at most 1, not 2"),
        ("verifier.timeout=soon", "must be a number, not 'soon'"),
        ("verifier.timeout=.inf", "must be a finite number, not inf"),
        ("sampling.refill=maybe", "must be true or false, not 'maybe'"),
        (
            "model.name=[a]",
            "must be text, not ['a']; put quotes around text that begins with a bracket or holds a colon",
        ),
        ("model.dtype=fp8", "must be 'auto', 'float32' or 'bfloat16', not 'fp8'"),
        ("trackers=csv", "must be a list, e.g. [csv], not 'csv'"),
        ("trainer.masks=opsm", "must be a list, e.g. [opsm], not 'opsm'"),
        ("trainer.betas=[1,2,3]", "must have at most 2 items, not [1, 2, 3]"),
        ("trainer.lora=3", "must be a section of keys: rank, alpha, targets; not 3"),
        ("dataset.options=3", "must be a section of keys; not 3"),
    ],
)
def test_a_wrong_value_says_what_came_and_what_is_expected(set_: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(settings(set_))
    assert str(error.value) == f"{set_.partition('=')[0]} (--set {set_}) {message}"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ["replay.share=0.25", "replay.capacity=3"],
            "replay.capacity 3 is less than the 4 groups that each batch of 16",
        ),
        (["replay.half_life=9"], "replay.half_life (--set replay.half_life=9) does nothing while replay.share is 0"),
        (["rollouts.share=0.5"], "rollouts.share (--set rollouts.share=0.5) does nothing without saved rollouts"),
        (
            ["rollouts.files=[a.jsonl]", "sampling.group_size=8"],
            "sampling.group_size=8) does nothing while every rollout",
        ),
        (["rollouts.files=[a.jsonl]", "dataset.limit=9"], "dataset.limit (--set dataset.limit=9) does nothing while"),
        (["sampling.refill_rounds=7"], "sampling.refill_rounds (--set sampling.refill_rounds=7) does nothing without"),
        (["trainer.max_tokens=64"], "trainer.max_tokens does nothing here: it belongs to aggregation=constant"),
        (["trainer.betas=[0.9, 1.5]"], "trainer.betas.1 (--set trainer.betas=[0.9, 1.5]) must be below 1, not 1.5"),
        (["trainer.lr_floor=0.1"], "trainer.lr_floor does nothing while trainer.lr_schedule is constant"),
        (
            ["trainer.warmup_updates=5", "trainer.warmup_share=0.1"],
            "warmup_share both set the warmup: give one of them",
        ),
        (["verifier.rewards={timeout: 1e300}"], "rewards.timeout is 1e+300, beyond max_reward, ±1e+06"),
        (["verifier.rewards={graded: 1}"], "a graded verdict has its own reward"),
        (["rollouts.skip_unusable=true"], "does nothing without saved rollouts: name some with --rollouts"),
        (["rollouts.behaviour_model=embedded"], "does nothing without saved rollouts: name some with --rollouts"),
    ],
)
def test_a_setting_that_cannot_be_heeded_is_refused(sets: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(settings(*sets))
    assert message in str(error.value)


def test_the_resolved_file_of_a_run_starts_another(tmp_path: Path) -> None:
    """The file contains defaults that this run does not use."""
    first = resolve(settings("steps=3", "sampling.group_size=8"))
    (tmp_path / "config.yaml").write_text(to_yaml(first))
    assert resolve({}, tmp_path / "config.yaml") == first
    assert resolve(settings("rollouts.files=[a.jsonl]"), tmp_path / "config.yaml").sampling.group_size == 8


def test_options_that_a_file_leaves_at_another_trainers_default_are_let_pass(tmp_path: Path) -> None:
    """A run's own config.yaml spells out all options of its trainer."""
    file = tmp_path / "config.yaml"
    file.write_text("trainer:\n  name: grpo-off\n  push_every: 10\n  lr: 1e-4\n")
    assert resolve(settings("trainer.name=grpo"), file).trainer.name == "grpo"
    file.write_text("trainer:\n  name: grpo-off\n  push_every: 5\n")
    with pytest.raises(ConfigError, match=r"trainer.push_every \(.*:3\): the trainer is 'grpo'.* of 'grpo-off'"):
        resolve(settings("trainer.name=grpo"), file)
    with pytest.raises(ConfigError, match=r"trainer.push_every \(--set trainer.push_every=10\): the trainer is 'grpo'"):
        resolve(settings("trainer.name=grpo", "trainer.push_every=10"))


def test_a_recipe_that_a_resolved_file_would_override_is_refused(tmp_path: Path) -> None:
    first = resolve(settings("recipe=dapo"))
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(first))
    assert resolve(settings("recipe=dapo"), file) == first
    with pytest.raises(ConfigError, match=r"recipe 'cispo' .* would not take effect: .* for recipe 'dapo' and sets "):
        resolve(settings("recipe=cispo"), file)


def test_a_key_given_twice_on_the_command_line_is_an_error() -> None:
    with pytest.raises(ConfigError, match="seed is given twice: by --seed and by --set seed=2"):
        command_line_settings(["seed=2"], {"seed": ("--seed", 1)})


def test_a_key_given_twice_in_a_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 1\nsteps: 3\nseed: 2\n")
    with pytest.raises(ConfigError, match=rf"{file}:3: seed is given twice \(first at {file}:1\)"):
        read_settings(file)


def test_a_section_and_its_name_alone_are_one_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("trainer: grpo\ntrainer.name: grpo-off\n")
    with pytest.raises(ConfigError, match=r"trainer.name is given twice"):
        read_settings(file)


@pytest.mark.parametrize("text", ["a: [1", "just text", "- a\n- b", "a: b: c"])
def test_a_file_that_is_no_mapping_is_one_error_with_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=str(file)):
        read_settings(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "seed: 1\nsteps: [1\nlr: 2",
            r":3: not YAML: while parsing a flow sequence, expected ',' or '\]', but got ':'$",
        ),
        (
            'seed: 1\nrecipe: "a" b',
            ":2: not YAML: while parsing a block mapping, expected <block end>, but found '<scalar>'; put quotes "
            "around text that holds a colon, a quote or a bracket$",
        ),
        (
            "recipe: a: b",
            ":1: not YAML: mapping values are not allowed here; put quotes around text that holds a colon",
        ),
        ("seed: \x01", ": not YAML: special characters are not allowed: character 7$"),
        ("seed: 1\nsteps: !many 3", ":2: not YAML: could not determine a constructor for the tag '!many'$"),
        ("seed: 1\nsteps: 2024-99-99", r":2: steps: month must be in 1..12$"),
    ],
)
def test_what_is_no_yaml_is_one_line_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"^{tmp_path}/run.yaml{message}"):
        read_settings(tmp_path / "run.yaml")


@pytest.mark.parametrize("text", ["steps=[1", "steps=2024-99-99"])
def test_a_set_that_is_no_yaml_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set '[^\n<]*(expected|month)[^\n]*$"):
        parse_set(text)


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        resolve({}, tmp_path / "absent.yaml")


def test_a_scalar_where_a_section_is_expected() -> None:
    with pytest.raises(ConfigError, match="sampling"):
        resolve(settings("sampling=3", "sampling.group_size=4"))


@given(
    st.builds(
        RunConfig,
        model=st.builds(ModelConfig, name=st.text(min_size=1), device=st.sampled_from(["cpu", "cuda:1"])),
        steps=st.integers(1, 10**6),
        seed=st.integers(0, 2**40),
        trainer=st.fixed_dictionaries({"name": st.text(min_size=1), "lr": st.floats(1e-9, 1)}),
        trackers=st.lists(st.text(), max_size=2).map(tuple),
    )
)
@example(RunConfig(model=ModelConfig(name="1e5")))
def test_the_resolved_file_reads_back_to_the_same(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> None:
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert validate(RunConfig, read_settings(file)) == config
