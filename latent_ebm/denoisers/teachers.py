r"""Trained diffusion models from disk, as denoisers: no network is asked, and nothing is unpickled."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from latent_ebm.denoisers.preconditioned import Preconditioned
from samplers.schedules import VE, Karras, Rectified, VPDiscrete

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x"}  # of diffusers, and of Preconditioned


def load_teacher(path: str | Path, skeleton: Preconditioned | None = None) -> Preconditioned:
    """The denoiser stored at ``path``, frozen and in evaluation mode.

    Either a model directory of ``diffusers`` (the extra of this name), whose ``unet/`` and ``scheduler/`` say all: beta
    schedules with predictions of eps, v or x, flow matching, or EDM. Its ``label`` is the model's ``class_labels``; other
    conditions keep their names. Or a ``.safetensors`` file with the weights of ``skeleton.network``, as for
    ``Preconditioned(network, Karras(), "edm", data_scale=0.5)``, which are loaded into it.

    Raises ``FileNotFoundError`` if a file is missing, ``ImportError`` without the extra, ``ValueError`` for a file without a
    skeleton, or a model that is not one of these, and ``RuntimeError`` for weights that do not fit.
    """
    path = Path(path)
    if path.is_dir():
        denoiser = load_diffusers(path)
    elif skeleton is None:
        raise ValueError(f"skeleton must be given for a path that is not a directory, got None for {path}")
    else:
        denoiser = skeleton
        denoiser.network.load_state_dict(load_file(path))
    return denoiser.eval().requires_grad_(False)


def load_diffusers(path: Path) -> Preconditioned:
    """The model of a ``diffusers`` directory, by its two configuration files."""
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(f"loading {path} needs diffusers: pip install 'latent-ebm[diffusers]'") from error
    unet, scheduler = (read_config(path / name) for name in ("unet/config.json", "scheduler/scheduler_config.json"))
    parts = scheduler_parts(scheduler)
    kind = getattr(diffusers, str(unet.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise ValueError(
            f"the _class_name of {path / 'unet'} must be a model of diffusers, got {unet.get('_class_name')!r}"
        )
    network = kind.from_pretrained(  # pyright: ignore[reportAttributeAccessIssue]
        path / "unet", local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
    )
    return Preconditioned(DiffusersNetwork(network), **parts)


def read_config(path: Path) -> dict[str, Any]:
    """The object of a JSON file. Raises ``FileNotFoundError``."""
    if not path.is_file():
        raise FileNotFoundError(f"path must be a model directory of diffusers, but {path} is missing")
    return json.loads(path.read_text(encoding="utf-8"))


def scheduler_parts(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``Preconditioned`` that say the same as the ``config`` of a scheduler of ``diffusers``."""
    name, num = str(config.get("_class_name")), config.get("num_train_timesteps", 1000)
    prediction = config.get("prediction_type", "epsilon")
    for key in ("trained_betas", "rescale_betas_zero_snr", "invert_sigmas"):
        if config.get(key):
            raise ValueError(f"{key} of a scheduler must be unset, as no schedule here is like that, got {config[key]}")
    if name.startswith("FlowMatch") or prediction == "flow_prediction":
        return {"schedule": Rectified(), "prediction": "flow", "level": partial(rectified_level, num_train_steps=num)}
    if prediction not in PREDICTIONS or (not name.startswith("EDM") and "beta_schedule" not in config):
        raise ValueError(f"a scheduler must have betas and predict one of {', '.join(PREDICTIONS)}, got {config}")
    if name.startswith("EDM"):
        return edm_parts(config, "edm" if prediction == "epsilon" else PREDICTIONS[prediction])
    schedule = VPDiscrete(num, config["beta_start"], config["beta_end"], config["beta_schedule"])
    return {"schedule": schedule, "prediction": PREDICTIONS[prediction], "level": schedule.position}


def edm_parts(config: dict[str, Any], prediction: str) -> dict[str, Any]:
    """As ``scheduler_parts``, for the schedulers of Karras et al. 2022, whose "epsilon" is the output F of EDM."""
    ends = config.get("sigma_min", 0.002), config.get("sigma_max", 80.0)
    karras = config.get("sigma_schedule", "karras") == "karras"
    schedule = Karras(*ends, config.get("rho", 7.0)) if karras else VE(*ends)
    return {"schedule": schedule, "prediction": prediction, "data_scale": config.get("sigma_data", 0.5)}


def rectified_level(log_snr: Tensor, num_train_steps: int) -> Tensor:
    """``num_train_steps sigma / (alpha + sigma)``, the time that flow-matching networks of ``diffusers`` are told."""
    return num_train_steps * torch.sigmoid(-log_snr / 2)


class DiffusersNetwork(nn.Module):
    """A model of ``diffusers`` called as a network of ``Preconditioned``; a predicted variance is left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise_level: Tensor, *, label: Tensor | None = None, **condition: Any) -> Tensor:
        if label is not None:
            condition["class_labels"] = label
        return self.model(x, noise_level, **condition).sample[:, : x.shape[1]]
