"""Tests on any device: ``pytest --device cuda`` makes tensors and generators there by default.

On the CPU one thread: tensors in tests are small, and threads that wait for a busy core cost more
than they give. Tests of bits that belong to the CPU carry the mark ``cpu`` and are skipped
elsewhere.
"""

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests make tensors (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    config.addinivalue_line("markers", "cpu: about files, programs or bits of the CPU alone")
    device = config.getoption("--device")
    if device == "cpu":
        return
    torch.set_default_device(device)

    class Generator(torch.Generator):
        """A generator of the device under test unless another one is named."""

        def __new__(cls, device: torch.device | str = device) -> "Generator":
            return super().__new__(cls, device)

    torch.Generator = Generator  # pyright: ignore[reportAttributeAccessIssue]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") == "cpu":
        return
    elsewhere = pytest.mark.skip(reason="about the CPU")
    for item in items:
        if item.get_closest_marker("cpu"):
            item.add_marker(elsewhere)
