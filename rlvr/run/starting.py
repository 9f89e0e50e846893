"""Starting configurations: settings for a model and a data set, with the source of each value, in `configs/`."""

from __future__ import annotations

from pathlib import Path

from rlvr.errors import ConfigError, nearest

CONFIGS = Path(__file__).parent / "configs"


def starting_configurations() -> dict[str, Path]:
    """Return name -> file of every starting configuration."""
    return {file.stem: file for file in sorted(CONFIGS.glob("*.yaml"))}


def config_file(name: str | Path) -> Path:
    """Return the file of `--config`: a YAML file, or a starting configuration by name.

    Raises ConfigError for a name that is neither.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists() or len(path.parts) != 1:
        return path
    known = starting_configurations()
    if str(name) not in known:
        raise ConfigError(
            f"--config {name}: there is no file and no starting configuration of this name{nearest(str(name), known)}; "
            f"there are {', '.join(known)}"
        )
    return known[str(name)]
