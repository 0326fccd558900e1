"""Pictures for the figures of the report."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from experiments.pictures import pack
from experiments.text_to_image.judging import Draw, Gallery, draw_all, drawing, grain
from experiments.text_to_image.students import GUIDANCE
from latent_ebm.data import Scenes

COLUMNS = 12
ASKED = ("food", "an animal", "a flag", "a fox")  # two styles leave the last one open
EACH, SCENES_EACH = 4, 4  # pictures of a caption; scenes of every number of glyphs


def names(
    rule: Any, gallery: Gallery, steps: Sequence[int], device: torch.device
) -> dict[str, Any]:
    """Glyphs of each sort, and beneath every twelve of them what is drawn for their names in as
    many steps as the first of ``steps``; how grainy glyphs and drawings are.
    """
    rows = torch.cat([part[:COLUMNS] for part in gallery.rows().values()]).tolist()
    prompts = [str(gallery.glyphs.names[i]) for i in rows]
    pictures = {
        num: draw_all(drawing(rule, num_steps=num, guidance=GUIDANCE), prompts, device)
        for num in steps
    }
    glyphs, x = gallery.x[rows], pictures[steps[0]]
    pairs = torch.stack([part.unflatten(0, (-1, COLUMNS)) for part in (glyphs, x)], 1)
    found = {"glyphs": grain(glyphs)} | {str(num): grain(part) for num, part in pictures.items()}
    return {"samples": pack(pairs.flatten(0, 2)), "grain": found}


def opened(draws: Iterable[tuple[str, Draw]], device: torch.device) -> dict[str, Any]:
    """A row of pictures per model: four of each open caption, from the same noise in every row."""
    prompts = [text for text in ASKED for _ in range(EACH)]
    rows = {name: draw_all(draw, prompts, device) for name, draw in draws}
    return {"samples": pack(torch.cat(list(rows.values()))), "models": list(rows)}


def scenes(draw: Draw, data: Scenes, device: torch.device) -> dict[str, Any]:
    """Scenes of one to three glyphs that no training row shows, and beneath them what is drawn for
    their captions.
    """
    counts = [len(data.test.scene(i).objects) for i in range(len(data.test))]
    rows = [
        i
        for num in range(1, data.max_num + 1)
        for i in [k for k, count in enumerate(counts) if count == num][:SCENES_EACH]
    ]
    seen, captions = data.test.rows(rows)
    return {"samples": pack(torch.cat([seen, draw_all(draw, captions, device)]))}
