"""Tests on any device: ``pytest --device cuda`` makes tensors and generators there by default.

On the CPU one thread: tensors in tests are small, and threads that wait for a busy core cost more
than they give. Elsewhere, tests with the mark ``cpu`` are left out: they train under a trainer of
the CPU, compare with numpy, or have tolerances for the CPU's bits and random numbers.
"""

from collections.abc import Iterator

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests make tensors (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    config.addinivalue_line("markers", "cpu: about the CPU: its trainer, bits or random numbers")
    device = config.getoption("--device")
    if device == "cpu":
        return
    torch.set_default_device(device)
    torch.backends.cudnn.allow_tf32 = False  # products of convolutions in full precision

    class Generator(torch.Generator):
        """Makes generators of the device under test unless another one is named."""

        def __new__(cls, device: torch.device | str = device) -> torch.Generator:
            return plain(device)

    plain, torch.Generator = torch.Generator, Generator  # pyright: ignore[reportAttributeAccessIssue]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") == "cpu":
        return
    elsewhere = pytest.mark.skip(reason="about the CPU")
    for item in items:
        if item.get_closest_marker("cpu"):
            item.add_marker(elsewhere)


@pytest.fixture(autouse=True)
def gradients_are_left_on() -> Iterator[None]:
    """What turns gradients off and fails must not leave them off for the rest of the program."""
    yield
    left_on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left_on
