"""Low precision: what is rounded, what is not, and how far the distribution of a chain moves."""

import math
import warnings

import pytest
import torch
from torch import Tensor

from samplers import HMC, Langevin, LowPrecision, precision
from tests.samplers.table import seeded

DIM, STEP_SIZE = 8, 0.2


def rotated(z: Tensor) -> Tensor:
    """``-|R z|^2 / 2`` for a rotation R: a standard normal whose gradient needs two matrix
    products.
    """
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=seeded(1)))[0]
    return -0.5 * (z @ rotation).square().sum(1)


def test_positions_stay_and_products_are_rounded() -> None:
    x = torch.randn(50, DIM, generator=seeded())
    seen = []

    def log_density(z: Tensor) -> Tensor:
        seen.append((z @ torch.eye(DIM)).dtype)
        return rotated(z)

    sampler = LowPrecision(Langevin(STEP_SIZE, 3))
    out = sampler.sample(log_density, x, generator=seeded(2))
    assert set(seen) == {torch.bfloat16}
    assert out.dtype == torch.float32
    assert torch.equal(out, sampler.sample(log_density, x, generator=seeded(2)))
    *_, (state, _) = sampler.run(log_density, x, generator=seeded(2))
    torch.testing.assert_close(state.position, out)
    exact = sampler.sampler.sample(rotated, x, generator=seeded(2))
    assert 0 < (out - exact).abs().max() < 0.05


def test_bias_of_the_law_is_small() -> None:
    """Stationary variance 1 / (1 - step_size / 2) of every coordinate, within 1 %; sampling error
    is .3 %.
    """
    variance = 1 / (1 - STEP_SIZE / 2)
    x = math.sqrt(variance) * torch.randn(25_000, DIM, generator=seeded())
    out = LowPrecision(Langevin(STEP_SIZE, 30)).sample(rotated, x, generator=seeded(2))
    assert (out.square().mean() / variance - 1).abs() < 0.01
    assert (out.mT @ out / len(out) - variance * torch.eye(DIM)).abs().max() < 0.05


def test_a_metropolis_test_stays_one() -> None:
    x = torch.randn(200, DIM, generator=seeded())
    sampler = LowPrecision(HMC(0.3, 3, 5))
    assert sampler.num_steps == 5
    assert all(
        info.accept_prob.mean() > 0.8 for _, info in sampler.run(rotated, x, generator=seeded(2))
    )


def test_dtype_must_be_of_low_precision() -> None:
    with pytest.raises(ValueError, match='dtype must be "bfloat16" or "float16", got \'float32\''):
        LowPrecision(Langevin(STEP_SIZE, 3), "float32")


@pytest.mark.parametrize(
    ("machine", "emulated", "amx", "units", "known"),
    [
        (
            "x86_64",
            True,
            False,
            False,
            False,
        ),  # AVX512 without bfloat16, which oneDNN calls supported
        ("x86_64", True, False, True, True),
        ("AMD64", False, True, False, True),
        ("aarch64", True, False, False, True),
        ("aarch64", False, False, False, False),
    ],
)
def test_emulation_is_not_taken_for_units(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    emulated: bool,
    amx: bool,
    units: bool,
    known: bool,
) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: emulated)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    assert precision.has_units("cpu", "bfloat16") == known


def test_a_device_without_units_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    precision.warn_if_slow.cache_clear()
    monkeypatch.setattr(precision, "has_units", lambda device, dtype: False)
    sampler, x = LowPrecision(Langevin(STEP_SIZE, 3)), torch.zeros(4, DIM)
    with pytest.warns(
        UserWarning, match=f"this {x.device.type} has no units for bfloat16, .* 2 to 15 times"
    ):
        sampler.sample(rotated, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler.sample(rotated, x)
    precision.warn_if_slow.cache_clear()
