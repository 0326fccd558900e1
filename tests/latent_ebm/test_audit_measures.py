"""What an audit measures, one thing at a time, against what was planted; and what it refuses."""

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from latent_ebm.applications import TextToImage
from latent_ebm.cli.audit import effects_of_text, noise_p_values, scores
from latent_ebm.cli.evidence import read_filter
from latent_ebm.data.shapes import draw_shapes
from latent_ebm.metrics import share_of
from latent_ebm.networks.classifier import FeatureClassifier
from latent_ebm.responsibility import Audit, Representation, detect_noise_watermark, measures
from latent_ebm.scorers import ContrastiveScorer
from latent_ebm.text import TextTransformer
from samplers import DDIM
from tests.latent_ebm.drawing import NOISE, WORDS, seeded, tiny_model
from tests.latent_ebm.test_audit import KEY, PROMPTS, SIDE, drawn, references


def test_a_share_has_the_interval_of_clopper_and_pearson() -> None:
    found = measures.share(0, 10)
    assert (found["hits"], found["total"], found["estimate"], found["low"]) == (0, 10, 0, 0)
    assert found["high"] == pytest.approx(1 - 0.025**0.1)


def test_shares_of_categories_have_the_interval_that_was_asked_for() -> None:
    counts = torch.tensor([[3, 0], [1, 2], [0, 3]])
    found = Representation(["a", "b", "c"], ["x", "y"], counts)
    assert found.shares(0.9, exact=True)["x"] == share_of(4, 9, 0.9, exact=True)
    assert found.shares(0.9)["y"] == share_of(5, 9, 0.9)
    assert found.one_category(0.9) == share_of(2, 3, 0.9, exact=True)


def test_the_distance_reaches_as_far_as_chance_does() -> None:
    """Of 100 pictures, half in either category: the quantile of ``|k - 50| / 100``."""
    found = Representation(["a"], ["x", "y"], torch.tensor([[50, 50]]))
    interval = found.distance({"x": 0.0, "y": 1.0}, 0.9, 20_000, generator=seeded())
    far = next(r for r in range(51) if binom.cdf(50 + r, 100, 0.5) * 2 - 1 >= 0.9 - 1e-2)
    assert interval.estimate == 0.5
    reach = far / 100 * (100 / 99) ** 0.5
    assert (interval.low, interval.high) == pytest.approx((0.5 - reach, 0.5 + reach))


def test_a_copy_is_found_among_many_copies_of_its_picture() -> None:
    """The first picture of the second prompt is one that was trained on sixty times."""
    x = torch.rand(120, 3, 8, 8, generator=seeded()) * 2 - 1
    train = torch.cat([x[:60], x[:1].expand(60, -1, -1, -1)])
    shown = torch.stack([x[100:103], x[103:106]])
    shown[1, 0] = (x[0] + 0.01).clamp(-1, 1)
    rows, found = measures.memorisation(shown, train, x[60:100])
    first = found["nearest"][0]
    assert (first["prompt"], first["picture"]) == (2, 1)
    assert torch.equal(train[rows[0]], x[0])
    assert (found["train"], found["different"], found["held_out"]) == (120, 60, 40)
    assert first["p"] == pytest.approx(1 / 41)
    assert found["expected"] == pytest.approx(6 * 2 / 41)  # p-values are multiples of 1 / 41


@pytest.mark.parametrize(("num", "held_out"), [(300, 19), (300, 100), (5, 400)])
def test_chance_gives_as_many_copies_as_the_page_says(num: int, held_out: int) -> None:
    """The ratios of pictures and held-out pictures, of one distribution, 2,000 times."""
    calibration = torch.rand(2000, held_out, generator=seeded()).sort(1).values
    ratios = torch.rand(2000, num, generator=seeded(2))
    p = (1 + torch.searchsorted(calibration, ratios, right=True)).double() / (held_out + 1)
    found = (p <= measures.COPY_LEVEL).sum(1)
    most = measures.most_by_chance(num, held_out)
    error = 3 * (0.95 * 0.05 / 2000) ** 0.5
    assert (found <= most).double().mean() > 0.95 - error
    assert (found <= most - 1).double().mean() < 0.95 + error


def test_a_target_has_the_order_of_the_categories() -> None:
    x, goal = torch.zeros(1, 4, 3, 8, 8), {"blue": 0.25, "red": 0.75}
    told = torch.tensor([0, 0, 0, 1])
    found = measures.representation(["a"], x, lambda _: told, ["red", "blue"], goal)
    assert found is not None
    assert found["target"] == [0.75, 0.25]
    assert found["distance"]["estimate"] == 0


def test_marks_are_looked_for_in_marked_pictures_after_jpeg() -> None:
    x = draw_shapes(64).on(torch.ones(3))[:96:16].view(2, 3, 3, 64, 64)
    found = measures.watermark(x, KEY)
    hits = [found[name]["hits"] for name in ("drawn", "marked", "jpeg")]
    assert hits == [0, 6, 6]


def test_the_text_moves_nothing_where_it_says_nothing() -> None:
    """The empty prompt is the null."""
    model = tiny_model(DDIM(NOISE, 3))
    nothing, red = effects_of_text(model, ["", "red"], 4, None, seeded()).tolist()
    assert nothing == 0 < red


def test_pictures_are_scored_for_their_own_prompts() -> None:
    torch.manual_seed(1)
    scorer = ContrastiveScorer(torch.nn.Flatten(), TextTransformer(WORDS, dim=8), 192, 4)
    x, prompts = torch.rand(2, 3, 3, 8, 8, generator=seeded()), ["red", "blue"]
    with torch.no_grad():
        expected = [scorer([prompt] * 3, part) for prompt, part in zip(prompts, x, strict=True)]
    torch.testing.assert_close(scores(scorer, prompts, x), torch.stack(expected))


def test_a_filter_of_pictures_has_the_threshold_that_was_given(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("filter") / "classifier"
    FeatureClassifier((3, 8, 8), 2, 4).save(folder)
    assert read_filter(str(folder), 0.3, tiny_model()).threshold == 0.3


def test_marked_noise_is_drawn_as_asked_and_found_in_the_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is found is what the picture holds: here it is drawn from the opposite noise."""
    model, told = tiny_model(DDIM(NOISE, 20), guidance=2.0), list[tuple[object, ...]]()
    for parameter in model.denoiser.parameters():
        parameter.data *= 0.3
    generate = TextToImage.generate

    def opposite(
        self: TextToImage,
        prompts: list[str],
        num: int,
        guidance: float,
        steps: int,
        *,
        x_T: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        told.append((prompts, num, guidance, steps))
        assert bool((detect_noise_watermark(x_T, KEY) < 1e-9).all())
        return generate(self, prompts, num, guidance, steps, x_T=-x_T, generator=generator)

    monkeypatch.setattr(TextToImage, "generate", opposite)
    p = noise_p_values(model, ["red", "blue"], 1.5, 10, KEY, seeded())
    assert told == [(["red"], 1, 1.5, 10), (["blue"], 1, 1.5, 10)]
    assert bool((p > 0.99).all())


def with_pixel(value: float) -> Tensor:
    x = drawn()
    x[0, 0, 0, 0, 0] = value
    return x


REFUSED = [
    (lambda: Audit([], drawn()), "prompts must hold one text or more, got none"),
    (lambda: Audit("circle", drawn()), "prompts must be a list of strings"),
    (lambda: Audit(["a", "b", "a", "c"], drawn()), "'a' as number 0 and 2"),
    (lambda: Audit(["a", "b", "c", "\0"], drawn()), "must hold no control characters"),
    (lambda: Audit(["a"], drawn()), r"x must be pictures \(1, num, 1 or 3, H, W\)"),
    (lambda: Audit(PROMPTS, drawn()[0]), "x must be pictures"),
    (lambda: Audit(PROMPTS, with_pixel(1.5)), r"x must lie in \[-1, 1\], got"),
    (lambda: Audit(PROMPTS, with_pixel(float("nan"))), "x must be finite"),
    (
        lambda: Audit(PROMPTS, drawn()).judge_pictures(lambda x: []),
        "judge must return a decision per picture, 16, got 0",
    ),
    (
        lambda: Audit(PROMPTS, drawn()).compare(references()[0], references()[1][:18]),
        r"held_out must be at least 19 pictures of shape \(3, 32, 32\), got 18",
    ),
    (
        lambda: Audit(PROMPTS, drawn()).compare(*references()[::-1][:1] * 2),
        "held_out must hold no training pictures, got 30 of 30",
    ),
    (
        lambda: Audit(PROMPTS, drawn()).compare(torch.zeros(9, 3, SIDE, SIDE), references()[1]),
        "train must hold two different pictures or more",
    ),
    (lambda: Audit(["a"], drawn()[:1, :0]), r"x must be pictures \(1, num, 1 or 3, H, W\), got"),
    (lambda: Audit(PROMPTS, drawn(), {"guidance": float("nan")}), "guidance must be finite"),
    (
        lambda: Audit(PROMPTS, drawn()).judge_pictures(lambda x: [True] * 16),
        "a filter must return a Decision, got True",
    ),
    (
        lambda: Audit(PROMPTS, drawn()).judge_prompts(lambda prompt: True),
        "a filter must return a Decision, got True",
    ),
    (
        lambda: Audit(PROMPTS, drawn()).compare(references()[0] * torch.nan, references()[1]),
        "train must be finite, got NaN or infinite pixels",
    ),
    (
        lambda: Audit(PROMPTS, drawn()).add_alignment(torch.zeros(4, 3)),
        r"scores must be finite numbers of shape \(4, 4\), got \(4, 3\)",
    ),
    (
        lambda: Audit(PROMPTS, drawn()).add_alignment(torch.full((4, 4), torch.nan)),
        r"scores must be finite numbers of shape \(4, 4\), got NaN",
    ),
    *(
        (
            lambda p=p: Audit(PROMPTS, drawn()).add_noise_watermark(torch.tensor(p)),
            r"p must be one p-value or more in \[0, 1\], got",
        )
        for p in ([], [torch.nan], [2.0], [[0.5]])
    ),
    (
        lambda: Audit(PROMPTS, drawn()).add_text_differences(torch.ones(3)),
        r"must be finite numbers of shape \(4,\), got \(3,\)",
    ),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
