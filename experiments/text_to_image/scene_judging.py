"""What generated scenes show, as an exact parser reads them, against their captions."""

from typing import Any

import torch

from experiments.text_to_image.judging import Draw, draw_all, share
from latent_ebm.data import Scenes
from latent_ebm.data.scene import Scene
from latent_ebm.data.scene_captions import relation
from latent_ebm.data.scene_parser import SceneParser

NUM = 150  # scenes of every number of objects
PLACES = ("left of", "right of", "above", "below")


def scenes(draw: Draw, data: Scenes, device: torch.device) -> dict[str, dict[str, float]]:
    """Shares of pictures that are right, by the number of objects that the caption names: the
    number, the multiset of glyphs, and the background and the relation where the caption tells
    them; and all that it tells.
    """
    parser, found = SceneParser(data.scenery), {}
    for num in range(1, data.max_num + 1):
        rows = [i for i in range(len(data.test)) if len(data.test.scene(i).objects) == num][:NUM]
        captions = data.test.captions(rows)
        read = parser(draw_all(draw, captions, device))
        checks = [
            compare(data, data.test.scene(row), scene, text)
            for row, scene, text in zip(rows, read, captions, strict=True)
        ]
        keys = dict.fromkeys(key for check in checks for key in check)
        found[str(num)] = {
            key: share(torch.tensor([check[key] for check in checks if key in check]))
            for key in keys
        }
    return found


def compare(data: Scenes, wanted: Scene, scene: Scene, caption: str) -> dict[str, bool]:
    """What of ``wanted`` that the ``caption`` tells is so in ``scene``."""
    art = data.scenery.glyphs.art
    found: dict[str, Any] = {
        "number": len(scene.objects) == len(wanted.objects),
        "glyphs": scene.multiset(art) == wanted.multiset(art),
    }
    if "background" in caption:
        found["background"] = scene.background == wanted.background
    if any(f" {place} " in caption for place in PLACES):
        found["relation"] = by_art(relation_or_none(scene), art) == by_art(relation(wanted), art)
    return {**found, "all": all(found.values())}


def relation_or_none(scene: Scene) -> tuple[int, str, int] | None:
    return relation(scene) if scene.objects else None


def by_art(found: tuple[int, str, int] | None, art: torch.Tensor) -> tuple[int, str, int] | None:
    """A relation between arts instead of glyphs."""
    return found and (int(art[found[0]]), found[1], int(art[found[2]]))
