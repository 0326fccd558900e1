r"""Trained diffusion models from disk, as denoisers. Nothing is downloaded or unpickled."""

import inspect
import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from latent_ebm.denoisers.preconditioned import Preconditioned
from latent_ebm.foreign import check_file, read_json, reading, rehearsal
from samplers.checks import check_counts
from samplers.schedules import VE, Karras, Rectified
from samplers.vp_discrete import VPDiscrete

Config: TypeAlias = dict[str, Any]  # the content of a JSON file
# names in diffusers, and in Preconditioned
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x"}
# names of conditions here, and in diffusers
CONDITIONS = {
    "label": "class_labels",
    "text": "encoder_hidden_states",
    "mask": "encoder_attention_mask",
}
# the group is the variant
WEIGHTS = re.compile(r"diffusion_pytorch_model(?:\.(\w+))??(?:-\d+-of-\d+)?\.safetensors")


def load_teacher(path: str | Path, skeleton: Preconditioned | None = None) -> Preconditioned:
    """The denoiser stored at ``path``, frozen and in evaluation mode.

    A model directory of ``diffusers`` needs the extra of this name. Its ``unet/`` and
    ``scheduler/`` define the denoiser: beta schedules with predictions of eps, v or x, flow
    matching, or EDM. Settings that its scheduler leaves out have the defaults of the scheduler's
    class. The denoiser's ``label`` is the model's ``class_labels``, ``text`` and ``mask`` are its
    ``encoder_hidden_states`` and ``encoder_attention_mask``; other conditions keep their names.
    Weights of a variant such as fp16 are used if there are no others, and run in float32.

    Args:
        path: A model directory of ``diffusers``, or a ``.safetensors`` file with the weights of
            ``skeleton.network``.
        skeleton: The denoiser that the weights of a ``.safetensors`` file are loaded into, such as
            ``Preconditioned(network, Karras(), "edm", data_scale=0.5)``.

    Raises:
        FileNotFoundError: If a file is missing.
        ImportError: Without the extra.
        ValueError: For a ``.safetensors`` file without a skeleton, a file that is damaged or does
            not fit, or a model of another kind.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        denoiser = load_diffusers(path)
    else:
        path = check_file(path, "a model directory of diffusers or a file .safetensors")
        if skeleton is None:
            raise ValueError(
                f"skeleton must be given for a path that is not a directory, got None for {path}"
            )
        denoiser = skeleton
        with reading(path, "the weights of skeleton.network as .safetensors"):
            weights = load_file(path)
            deepcopy(denoiser.network).load_state_dict(weights)  # all of them fit, or none is used
            denoiser.network.load_state_dict(weights)
    return denoiser.eval().requires_grad_(False)


def load_diffusers(path: Path) -> Preconditioned:
    """The model of a ``diffusers`` directory, built from its two configuration files."""
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(
            f"loading {path} needs diffusers: pip install 'latent-ebm[diffusers]'"
        ) from error
    unet, scheduler = (
        read_config(path / name)
        for name in ("unet/config.json", "scheduler/scheduler_config.json")
    )
    kind = find_class(diffusers, unet)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise ValueError(
            f"the _class_name of {path / 'unet'} must be a model of diffusers, got "
            f"{unet.get('_class_name')!r}"
        )
    with reading(path / "scheduler", "a scheduler whose schedule is known here"):
        parts = scheduler_parts({**defaults(find_class(diffusers, scheduler)), **scheduler})
    return Preconditioned(DiffusersNetwork(read_network(kind, path / "unet", unet)), **parts)


def find_class(diffusers: ModuleType, config: Config) -> Any:
    """The class of ``diffusers`` that a ``config`` names; None if there is no such class."""
    return getattr(diffusers, str(config.get("_class_name")), None)


def defaults(scheduler: Callable[..., object] | None) -> Config:
    """The default settings of the class ``scheduler``; none for None."""
    parameters = {} if scheduler is None else inspect.signature(scheduler).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


def read_network(kind: Any, folder: Path, config: Config) -> nn.Module:
    """The model of class ``kind`` in ``folder``, which must hold all its weights and no others."""
    variant = find_variant(folder)
    if config.get("quantization_config") is not None:
        raise ValueError(f"{folder} must hold a model without quantization_config")
    with reading(folder, "a model of diffusers and its weights"):
        with rehearsal():
            size = sum(p.numel() for p in kind.from_config(config).parameters())
        held = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        if size > held:
            raise ValueError(
                f"config.json describes {size:,} weights, but its files have only {held:,} bytes"
            )
        network, info = kind.from_pretrained(
            folder,
            variant=variant,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
        wrong = {name: keys for name, keys in info.items() if keys}
        if wrong:
            raise ValueError(f"weights that do not fit, {wrong}")
    return network


def find_variant(folder: Path) -> str | None:
    """The variant of the weights in ``folder``; None for plain weights. Raises
    ``FileNotFoundError`` if there are no weights.
    """
    names = sorted(file.name for file in folder.iterdir())
    variants = {match[1] for name in names if (match := WEIGHTS.fullmatch(name))}
    if not variants:
        raise FileNotFoundError(
            f"{folder} must hold diffusion_pytorch_model.safetensors (pickled weights are not "
            f"read), got {', '.join(names)}"
        )
    if None not in variants and len(variants) > 1:
        raise ValueError(
            f"{folder} must hold plain weights or those of one variant, got "
            f"{', '.join(sorted(variants))}"
        )
    return None if None in variants else variants.pop()


def read_config(path: Path) -> Config:
    """The object in a JSON file. Raises ``FileNotFoundError``, and ``ValueError`` if the file
    holds no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"path must be a model directory of diffusers, but {path} is missing"
        )
    return read_json(path)


def scheduler_parts(config: Config) -> Config:
    """The arguments of ``Preconditioned`` for the ``config`` of a ``diffusers`` scheduler."""
    name, num = str(config.get("_class_name")), config.get("num_train_timesteps", 1000)
    check_counts("scheduler", num_train_timesteps=num)
    prediction = config.get("prediction_type", "epsilon")
    for key in ("trained_betas", "rescale_betas_zero_snr", "invert_sigmas"):
        if config.get(key):
            raise ValueError(
                f"{key} of a scheduler must be unset, as no schedule here is like that, got "
                f"{config[key]}"
            )
    if name.startswith("FlowMatch") or prediction == "flow_prediction":
        return {
            "schedule": Rectified(),
            "prediction": "flow",
            "level": partial(rectified_level, num_train_steps=num),
        }
    if prediction not in PREDICTIONS or (
        not name.startswith("EDM") and "beta_schedule" not in config
    ):
        raise ValueError(
            f"a scheduler must have betas and predict one of {', '.join(PREDICTIONS)}, got "
            f"{config}"
        )
    if name.startswith("EDM"):
        return edm_parts(config, "edm" if prediction == "epsilon" else PREDICTIONS[prediction])
    schedule = VPDiscrete(
        num,
        *(config.get(key) for key in ("beta_start", "beta_end", "beta_schedule")),  # pyright: ignore[reportArgumentType]
    )
    return {
        "schedule": schedule,
        "prediction": PREDICTIONS[prediction],
        "level": schedule.position,
    }


def edm_parts(config: Config, prediction: str) -> Config:
    """Like ``scheduler_parts``, for the schedulers of Karras et al. 2022. Their "epsilon" is the
    output F of EDM.
    """
    ends = config.get("sigma_min", 0.002), config.get("sigma_max", 80.0)
    karras = config.get("sigma_schedule", "karras") == "karras"
    schedule = Karras(*ends, config.get("rho", 7.0)) if karras else VE(*ends)
    return {
        "schedule": schedule,
        "prediction": prediction,
        "data_scale": config.get("sigma_data", 0.5),
    }


def rectified_level(log_snr: Tensor, num_train_steps: int) -> Tensor:
    """``num_train_steps sigma / (alpha + sigma)``, the time that flow-matching networks of
    ``diffusers`` take.
    """
    return num_train_steps * torch.sigmoid(-log_snr / 2)


class DiffusersNetwork(nn.Module):
    """A model of ``diffusers`` with the signature of a network of ``Preconditioned``. A predicted
    variance is dropped.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise_level: Tensor, **condition: Tensor) -> Tensor:
        """The model's output like ``x``; ``CONDITIONS`` get the names that it knows."""
        condition = {CONDITIONS.get(name, name): value for name, value in condition.items()}
        return self.model(x, noise_level, **condition).sample[:, : x.shape[1]]
