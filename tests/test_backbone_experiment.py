"""The rivals and the clock of the experiment on one backbone."""

import pytest
import torch

from experiments.backbone.report import qualities, time_to_match
from experiments.backbone.rivals import Flow
from experiments.backbone.run import Race


def test_draws_of_the_flow_follow_its_density_which_integrates_to_one() -> None:
    torch.manual_seed(0)
    flow = Flow(None, 2)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    with torch.no_grad():
        edges = torch.linspace(-6, 6, 241)
        centres = (edges[1:] + edges[:-1]) / 2
        points = torch.cartesian_prod(centres, centres)
        masses = flow.log_density(points).exp() * 0.05**2
    assert abs(masses.sum().item() - 1) < 0.01
    z = flow.generate(4000, generator=torch.Generator().manual_seed(0))["x"]
    mean, covariance = masses @ points, points.mT * masses @ points
    covariance -= mean.outer(mean)
    white = (z - mean) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).mT
    assert white.mean(0).abs().max() * len(z) ** 0.5 < 4
    assert (white.mT.cov() - torch.eye(2)).abs().max() < 0.15
    assert mean.norm() > 0.3  # draws of the base would not pass


def test_time_to_match_is_that_of_the_first_look_as_good_as_the_other_ends() -> None:
    def curve(*values: float) -> dict[str, list[dict[str, float]]]:
        looks = ({"seconds": 2.0**i, "frechet": value} for i, value in enumerate(values))
        return {"curve": list(looks)}

    assert time_to_match({"mle": curve(9, 5, 4), "ratio": curve(8, 4, 3)}) == 2
    assert time_to_match({"mle": curve(9, 5, 4), "ratio": curve(8, 7, 6)}) == 8


def test_a_run_without_stages_counts_in_their_mean() -> None:
    row = qualities({"ratio": [{"stages": 0}, {"stages": 2}], "mle": [{}]}).splitlines()[2]
    assert "| 1.00 ± 1.41 (2) |" in row


def test_a_race_looks_at_doubling_times(monkeypatch: pytest.MonkeyPatch) -> None:
    race = Race(32.0, lambda rule: {"looked": float(rule)})
    for second in range(40):
        monkeypatch.setattr(Race, "seconds", second)
        race.record(second)  # pyright: ignore[reportArgumentType]
    assert [look["seconds"] for look in race.curve] == [1, 2, 4, 8, 16, 32]
