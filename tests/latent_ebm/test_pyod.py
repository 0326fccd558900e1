"""PyOD takes the detector for one of its own: the contract of its base class, its combinations,
its embeddings.
"""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from latent_ebm.detection import LatentEBMDetector

pytest.importorskip("pyod", reason="tests of the extra pyod")

from pyod.models.combination import average, majority_vote, maximization
from pyod.models.embedding import EmbeddingOD
from pyod.models.knn import KNN
from pyod.models.lscp import LSCP
from pyod.utils.data import generate_data
from pyod.utils.utility import check_detector, standardizer

from latent_ebm.detection.pyod import PyODLatentEBM

QUICK = LatentEBMDetector(max_stages=0)
CONTAMINATION = 0.1


@pytest.fixture(scope="module")
def data() -> Any:
    return generate_data(
        n_train=200, n_test=100, n_features=6, contamination=CONTAMINATION, random_state=42
    )


@pytest.fixture(scope="module")
def fitted(data: Any) -> PyODLatentEBM:
    return PyODLatentEBM(CONTAMINATION, QUICK, random_state=0).fit(data[0])


def test_attributes_of_a_fit(data: Any, fitted: PyODLatentEBM) -> None:
    assert fitted.decision_scores_.shape == fitted.labels_.shape == (200,)
    assert fitted.threshold_ == np.percentile(fitted.decision_scores_, 100 * (1 - CONTAMINATION))
    assert_array_equal(fitted.labels_, fitted.decision_scores_ > fitted.threshold_)
    assert fitted.labels_.sum() == 20
    assert_array_equal(fitted.decision_function(data[0]), fitted.decision_scores_)


def test_scores_are_the_detectors_with_the_other_sign(data: Any, fitted: PyODLatentEBM) -> None:
    X_train, X_test, _, y_test = data
    own = LatentEBMDetector(max_stages=0, random_state=0).fit(X_train)
    assert_array_equal(fitted.decision_function(X_test), -own.score_samples(X_test))
    assert roc_auc_score(y_test, fitted.decision_function(X_test)) > 0.95


def test_predictions_and_confidences(data: Any, fitted: PyODLatentEBM) -> None:
    X = data[1]
    labels, confidence = fitted.predict(X, return_confidence=True)
    assert_array_equal(labels, fitted.decision_function(X) > fitted.threshold_)
    assert ((confidence >= 0) & (confidence <= 1)).all()
    for method in ("linear", "unify"):
        p = fitted.predict_proba(X, method=method)
        assert p.shape == (100, 2)
        assert_allclose(p.sum(1), 1)
        assert ((p >= 0) & (p <= 1)).all()
    with pytest.raises(ValueError, match="probability conversion"):
        fitted.predict_proba(X, method="something")
    assert set(np.unique(fitted.predict_with_rejection(X, c_r=0.1))) <= {-2, 0, 1}


def test_ranks_keep_the_order_of_scores(data: Any, fitted: PyODLatentEBM) -> None:
    order = np.argsort(fitted.decision_function(data[1]))
    ranks = fitted._predict_rank(data[1])
    assert (np.diff(ranks[order]) >= 0).all()
    assert (ranks >= 0).all()
    assert (ranks <= 200).all()
    assert fitted._predict_rank(data[1], normalized=True).max() <= 1


def test_clone_parameters_and_refusals(data: Any, fitted: PyODLatentEBM) -> None:
    check_detector(fitted)
    twin = clone(fitted)
    assert twin.get_params(deep=False).keys() == {"contamination", "detector", "random_state"}
    assert twin.set_params(detector__latent_dim=3).detector.latent_dim == 3
    assert fitted.detector.latent_dim == QUICK.latent_dim
    with pytest.raises(NotFittedError):
        twin.decision_function(data[1])
    with pytest.raises(ValueError, match="contamination"):
        PyODLatentEBM(contamination=0.6)
    with pytest.raises(ValueError, match="features"):
        fitted.decision_function(data[1][:, :2])


def test_seed_goes_to_the_detector(data: Any) -> None:
    assert PyODLatentEBM(detector=QUICK, random_state=3).fit(data[0]).detector_.random_state == 3
    assert (
        PyODLatentEBM(detector=clone(QUICK).set_params(random_state=5))
        .fit(data[0])
        .detector_.random_state
        == 5
    )


def test_combinations(data: Any, fitted: PyODLatentEBM) -> None:
    X_train, X_test, _, y_test = data
    detectors = [fitted, KNN().fit(X_train)]
    train = np.stack([detector.decision_scores_ for detector in detectors], 1)
    test = np.stack([detector.decision_function(X_test) for detector in detectors], 1)
    for scores in (combine(standardizer(train, test)[1]) for combine in (average, maximization)):
        assert roc_auc_score(y_test, scores) > 0.95
    votes = majority_vote(np.stack([detector.predict(X_test) for detector in detectors], 1))
    assert set(np.unique(votes)) <= {0, 1}


@pytest.mark.filterwarnings("default")  # of PyOD and the libraries it calls
def test_ensemble_by_local_regions(data: Any) -> None:
    X_train, X_test, _, y_test = data
    detectors = [PyODLatentEBM(detector=QUICK, random_state=seed) for seed in range(2)]
    ensemble = LSCP([*detectors, KNN()], random_state=0).fit(X_train[:100])
    assert roc_auc_score(y_test, ensemble.decision_function(X_test)) > 0.9


def test_detector_of_embeddings(data: Any) -> None:
    rows = [" ".join(map(str, row)) for row in data[0]]

    def embed(texts: list[str]) -> np.ndarray:
        return np.array([[float(word) for word in text.split()] for text in texts])

    chain = EmbeddingOD(embed, PyODLatentEBM(detector=QUICK, random_state=0)).fit(rows)
    assert roc_auc_score(data[2], chain.decision_function(rows)) > 0.95


@pytest.mark.filterwarnings("default")
def test_ensemble_over_processes(data: Any, fitted: PyODLatentEBM) -> None:
    pytest.importorskip("suod", reason="PyOD's SUOD needs the package suod")
    suod = pytest.importorskip("pyod.models.suod")
    ensemble = suod.SUOD([PyODLatentEBM(detector=QUICK), KNN()], n_jobs=1).fit(data[0])
    assert np.isfinite(ensemble.decision_function(data[1])).all()
