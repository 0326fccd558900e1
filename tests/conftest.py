"""Tests on any device: ``pytest --device cuda`` makes tensors and generators there by default.

On the CPU one thread: tensors in tests are small, and threads that wait for a busy core cost more
than they give. Elsewhere, tests of files, programs and scikit-learn's arrays are left out, and so
are those with the mark ``cpu``, which are about bits of the CPU.
"""

import pytest
import torch

CPU_FILES = (
    "test_anomaly",
    "test_cli",
    "test_conformal",
    "test_data",
    "test_detect",
    "test_evaluation",
    "test_experiments",
    "test_export",
    "test_features",
    "test_images",
    "test_imports",
    "test_notebooks",
    "test_onnx",
    "test_pictures",
    "test_pyod",
    "test_readme",
    "test_report",
    "test_resume",
    "test_teachers",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests make tensors (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    config.addinivalue_line("markers", "cpu: about bits of the CPU")
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
        if item.get_closest_marker("cpu") or item.path.stem.startswith(CPU_FILES):
            item.add_marker(elsewhere)
