"""The exported score is the detector's own, for any number of rows, and a file that is not is
refused.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript", reason='needs the extra "onnx"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')

from latent_ebm.detection import LatentEBMDetector  # noqa: E402
from latent_ebm.export import detectors  # noqa: E402
from latent_ebm.export.detectors import Score, export_onnx  # noqa: E402
from latent_ebm.networks import EnergyMLP  # noqa: E402


def make_rows(num: int, seed: int = 0) -> np.ndarray:
    """Correlated rows of quite different units, one column constant."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, 3)) @ np.array([[1.0, 0.5, 0.2], [0, 1, 0.5], [0, 0, 0.3]])
    return np.column_stack([1e5 + 10 * x[:, 0], x[:, 1], 1e-3 * x[:, 2], np.full(num, 7.0)])


def fit(energy: str = "joint") -> LatentEBMDetector:
    detector = LatentEBMDetector(energy=energy, latent_dim=2, random_state=0).fit(make_rows(80))  # pyright: ignore
    torch.manual_seed(0)
    stage = EnergyMLP(detector.views_[0].prior.base.exemplars.shape[1], (8,), "silu").double()
    detector.views_[0].prior.append(stage, weight=0.7, log_z_step=0.1)
    return detector


def scores_of_file(path: Path, rows: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path).run(["score"], {"rows": rows})[0]


@pytest.mark.parametrize("energy", ["joint", "elbo"])
def test_the_file_scores_as_the_detector(energy: str, tmp_path: Path) -> None:
    detector = fit(energy)
    export_onnx(detector, tmp_path / "score.onnx")
    for num in (1, 33):
        rows = make_rows(num, seed=1) * 1.01
        found = scores_of_file(tmp_path / "score.onnx", rows)
        np.testing.assert_allclose(found, detector.score_samples(rows), rtol=1e-6)
    assert b".py" not in (tmp_path / "score.onnx").read_bytes()


@pytest.mark.parametrize("energy", ["reconstruction", "prior", "joint", "elbo"])
def test_the_network_of_the_file_scores_as_the_detector(energy: str) -> None:
    detector, rows = fit(energy), make_rows(20, seed=1)
    with torch.no_grad():
        found = Score(detector)(torch.as_tensor(rows)).numpy()
    np.testing.assert_allclose(
        found, detector.score_samples(rows), rtol=2e-7
    )  # scores have 24 binary digits


@pytest.mark.filterwarnings("ignore:.*litlogger")
def test_images(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (60, 64))
    detector = LatentEBMDetector(
        image_shape=(1, 8, 8), latent_dim=3, channels=2, max_steps=2, random_state=0
    ).fit(x)
    export_onnx(detector, tmp_path / "score.onnx")
    np.testing.assert_allclose(
        scores_of_file(tmp_path / "score.onnx", x[:7]), detector.score_samples(x[:7]), rtol=1e-4
    )


def test_a_file_that_scores_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Score):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return super().forward(rows) + 0.01

    detector = fit("prior")
    monkeypatch.setattr(detectors, "Score", Wrong)
    with pytest.raises(RuntimeError, match="must agree with the detector"):
        export_onnx(detector, tmp_path / "score.onnx")
    assert not list(tmp_path.iterdir())
