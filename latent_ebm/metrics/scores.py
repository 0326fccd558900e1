"""How good reconstructions and anomaly scores are."""

from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from latent_ebm.metrics.checks import check_finite
from samplers.checks import check_kind


def reconstruction_mse(x: Tensor, x_hat: Tensor) -> float:
    """Mean squared error per entry (per pixel), over all rows.

    Args:
        x: data, any shape, not empty.
        x_hat: reconstructions, the shape of x.

    Raises:
        ValueError: the shapes differ, x is empty, or an entry is not finite.
    """
    check_kind("reconstruction_mse", Tensor, x=x, x_hat=x_hat)
    if x.shape != x_hat.shape or x.numel() == 0:
        raise ValueError(
            f"x_hat must have the shape of a non-empty x, got {tuple(x_hat.shape)} for "
            f"{tuple(x.shape)}"
        )
    check_finite("x", x)
    check_finite("x_hat", x_hat)
    return float((x.detach().double() - x_hat.detach().double()).square().mean())


def auroc_auprc(score_anomaly: Tensor, is_anomaly: Tensor) -> dict[str, float]:
    """Areas under the ROC curve and (as average precision) under the precision-recall curve of a
    detector.

    Chance is 0.5 for `auroc` and `prevalence`, the share of anomalies, for `auprc`.

    Args:
        score_anomaly: finite scores, shape (n,), larger means more anomalous.
        is_anomaly: labels, shape (n,), boolean or 0 and 1; both classes must occur.

    Raises:
        ValueError: shapes differ from (n,), a score is not finite, a label is not 0 or 1, or one
            class is missing.
    """
    check_kind("auroc_auprc", Tensor, score_anomaly=score_anomaly, is_anomaly=is_anomaly)
    if score_anomaly.ndim != 1 or score_anomaly.shape != is_anomaly.shape:
        raise ValueError(
            "score_anomaly and is_anomaly must both have shape (n,), "
            f"got {tuple(score_anomaly.shape)} and {tuple(is_anomaly.shape)}"
        )
    check_finite("score_anomaly", score_anomaly)
    classes = is_anomaly.unique().tolist()
    if classes != [0, 1]:
        raise ValueError(
            "is_anomaly must hold both classes, 0 and 1, and nothing else, got values "
            f"{classes[:8]}"
        )
    label, score = is_anomaly.cpu().bool().numpy(), score_anomaly.detach().cpu().double().numpy()
    return {
        "auroc": float(roc_auc_score(label, score)),
        "auprc": float(average_precision_score(label, score)),
        "prevalence": float(label.mean()),
    }
