"""Models that draw, from the folder of one or from the checkpoint of the rule that trained it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from latent_ebm.applications import Inpainter, TextToImage
from latent_ebm.applications.trained import inpainter, text_to_image
from latent_ebm.cli.checkpoints import load_rule
from latent_ebm.cli.files import check_apart
from latent_ebm.learning.base import LearningRule

Model = TypeVar("Model")


def read_model(source: str, out: Path, trust: Sequence[str]) -> TextToImage:
    """The text-to-image model of a folder or a checkpoint, which ``out`` must not overwrite."""
    wanted = (
        "a denoiser or a student with a TextConditioner to draw prompts (latent-ebm inpaint draws "
        "with SubjectInpainting)"
    )
    return read(source, out, trust, TextToImage.load, text_to_image, wanted)


def read_inpainter(source: str, out: Path, trust: Sequence[str]) -> Inpainter:
    """The inpainter of a folder or a checkpoint, which ``out`` must not overwrite."""
    wanted = "a denoiser that SubjectInpainting has trained"
    return read(source, out, trust, Inpainter.load, inpainter, wanted)


def read(
    source: str,
    out: Path,
    trust: Sequence[str],
    load: Callable[[str], Model],
    trained: Callable[[LearningRule], Model | None],
    wanted: str,
) -> Model:
    """What ``load`` makes of the folder ``source``, or ``trained`` of the rule in a checkpoint.

    Raises ``ValueError``, which says what was ``wanted``, if the rule trains another thing.
    """
    if Path(source).is_dir():
        check_apart([out], list(Path(source).rglob("*")))
        return load(source)
    rule, data = load_rule(source, trust)
    check_apart([out], [source, *data.files])
    model = trained(rule)
    if model is None:
        raise ValueError(f"{source} must hold {wanted}, got {type(rule).__name__}")
    return model
