"""Models that vLLM runs on a CPU: its attention needs heads of 32 or more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from served import Served


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of vLLM and of what it imports are not ours to mend; ours stay errors."""
    for item in items:
        for category in ("DeprecationWarning", "FutureWarning", "UserWarning", "ResourceWarning"):
            item.add_marker(pytest.mark.filterwarnings(f"default::{category}"))
        item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, build_tiny_model: Callable[..., Path]) -> Path:
    return build_tiny_model(
        tmp_path_factory.mktemp("model"), hidden_size=64, num_attention_heads=2, num_key_value_heads=1, head_dim=32
    )


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the session; a test that syncs to it begins with a sync of its own."""
    served = Served(model, tmp_path_factory.mktemp("server") / "log")
    try:
        yield served.wait()
    finally:
        served.stop()
