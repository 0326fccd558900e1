r"""Trained networks for other programs: a one-step student as an ONNX file, a denoiser as a
``diffusers`` folder.

ONNX Runtime needs neither PyTorch nor this library to run the file. A ``diffusers`` folder holds
``unet/`` and ``scheduler/`` as ``load_teacher`` reads them; only networks that are models of
``diffusers`` themselves can be written as one.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from latent_ebm.denoisers import Preconditioned
from latent_ebm.denoisers.teachers import PREDICTIONS, DiffusersNetwork
from latent_ebm.export.onnx import write_onnx
from latent_ebm.writing import atomic_folder
from samplers.vp_discrete import VPDiscrete


def export_onnx(
    student: nn.Module, latent_shape: Sequence[int], path: str | os.PathLike[str]
) -> None:
    """Write ``student``, z (batch, \\*latent_shape) -> x (batch, \\*event), as ONNX with input
    ``z`` and output ``x``.

    The file accepts any number of rows. ``student`` must be on the CPU, and is left in evaluation
    mode.

    Raises:
        ImportError: Without the packages of the extra "onnx".
    """
    z = torch.randn(2, *latent_shape, dtype=next(student.parameters()).dtype)
    write_onnx(student.eval(), {"z": z}, path, ("x",))


def export_diffusers(denoiser: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write ``denoiser`` to a new ``folder`` that ``diffusers`` and ``load_teacher`` read.

    Raises:
        ValueError: Unless it is a ``Preconditioned`` model of ``diffusers`` with a schedule
            ``VPDiscrete``.
        FileExistsError: If the folder exists already.
    """
    network = denoiser.network if isinstance(denoiser, Preconditioned) else denoiser
    if not isinstance(network, DiffusersNetwork):
        raise ValueError(
            "the network must be a model of diffusers to be written as one, got "
            f"{type(network).__name__}"
        )
    scheduler = scheduler_config(denoiser)
    with atomic_folder(folder) as draft:
        network.model.save_pretrained(draft / "unet")  # pyright: ignore[reportCallIssue]
        (draft / "scheduler").mkdir()
        (draft / "scheduler" / "scheduler_config.json").write_text(
            json.dumps(scheduler, indent=2) + "\n"
        )


def scheduler_config(denoiser: Any) -> dict[str, Any]:
    """The configuration of the ``DDIMScheduler`` that matches a denoiser. Raises ``ValueError`` if
    there is none.
    """
    schedule, names = denoiser.schedule, {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if not isinstance(schedule, VPDiscrete) or denoiser.prediction not in names:
        raise ValueError(
            f"denoiser must have a schedule VPDiscrete and predict one of {', '.join(names)} to "
            "be written for diffusers, "
            f"got {schedule} and {denoiser.prediction!r}"
        )
    if denoiser.level != schedule.position:
        raise ValueError(
            "level of denoiser must be the position method of its schedule to be written for "
            f"diffusers, whose networks take the training step, got {denoiser.level}"
        )
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": schedule.num_train_steps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "beta_schedule": schedule.betas,
        "prediction_type": names[denoiser.prediction],
        "clip_sample": False,
    }
