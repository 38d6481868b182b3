"""Options and fixtures of all tests."""

from __future__ import annotations

import hypothesis
import pytest

from tests.cli.command import Cimc
from tests.golden import Golden

hypothesis.settings.register_profile("cimc", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("cimc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if item.get_closest_marker("slow"):  # keywords have the names of the folders as well
            item.add_marker(skip)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares with golden files, or rewrites them under ``--update-golden``."""
    return Golden(update=bool(request.config.getoption("--update-golden")))


@pytest.fixture
def cimc_command(capsys: pytest.CaptureFixture[str]) -> Cimc:
    """Commands in this process."""
    return Cimc(capsys)
