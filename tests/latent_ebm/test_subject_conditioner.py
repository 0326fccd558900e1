"""A subject takes the last padding rows of encoded prompts, and nothing else changes."""

import pytest
import torch
from torch import Tensor

from latent_ebm.conditions import Condition
from latent_ebm.networks import MobileUNet
from latent_ebm.networks.attention import pool
from latent_ebm.text import (
    SubjectConditioner,
    TextConditioner,
    TextEncoder,
    TextTransformer,
    WordTokenizer,
)

WORDS = WordTokenizer(["a", "red", "dog"], max_words=6)
PROMPTS = ["a dog", "", "red"]


class Plain(TextEncoder):
    """Every row depends on its own token and position alone."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer, self.dim = WORDS, 4
        self.table, self.place = torch.randn(WORDS.num_tokens, 4), torch.randn(7, 4)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        text = self.table[tokens] + self.place[: tokens.shape[1]]
        return text, torch.ones_like(tokens, dtype=torch.bool)


def texts(show_padding: bool = True) -> TextConditioner:
    torch.manual_seed(0)
    return TextConditioner(TextTransformer(WORDS, dim=8, show_padding=show_padding))


@pytest.mark.parametrize("num_rows", [1, 3])
def test_before_training_only_what_padding_held_of_the_words_is_lost(num_rows: int) -> None:
    """The empty prompt stays, and so do the null and the rows of the text."""
    plain = texts()
    subject = SubjectConditioner(plain, num_rows)
    tokens = plain.tokens(PROMPTS)
    before, after = plain(tokens), subject(tokens)
    assert torch.equal(after["mask"], before["mask"])
    torch.testing.assert_close(after["text"][1], before["text"][1])
    assert torch.equal(after["text"][:, :-num_rows], before["text"][:, :-num_rows])
    assert not torch.equal(after["text"][0], before["text"][0])
    for name in ("text", "mask"):
        assert torch.equal(after.null[name], before.null[name])
        assert torch.equal(subject.unknown(2)[name], plain.unknown(2)[name])


def test_before_training_nothing_changes_where_padding_holds_no_words() -> None:
    plain = TextConditioner(Plain())
    subject, tokens = SubjectConditioner(plain, 4), plain.tokens(PROMPTS)
    assert torch.equal(subject(tokens)["text"], plain(tokens)["text"])


def test_the_rows_are_seen_by_attention_and_in_the_mean() -> None:
    """Also of an encoder that hides padding, whose other padding stays hidden."""
    subject = SubjectConditioner(texts(show_padding=False), 2)
    told = subject(subject.conditioner.tokens(PROMPTS))
    assert told["mask"].tolist() == [
        [True, True, True, False, False, True, True],
        [True, False, False, False, False, True, True],
        [True, True, False, False, False, True, True],
    ]
    mean = torch.cat([told["text"][0, :3], subject.rows]).mean(0)
    torch.testing.assert_close(pool(told["text"], told["mask"])[0], mean)
    net = MobileUNet((1, 4, 4), 8, (8,), (1,), (1,), (True,), (True,))
    net.pooled.requires_grad_(False).weight.zero_()  # what is left is attention
    for parameter in net.leave.parameters():
        torch.nn.init.normal_(parameter)
    net(torch.randn(3, 1, 4, 4), torch.zeros(3), **told).square().sum().backward()
    assert subject.rows.grad is not None
    assert bool((subject.rows.grad.abs().sum(1) > 0).all())


def test_the_subject_is_dropped_with_the_text() -> None:
    subject = SubjectConditioner(texts(), 2)
    subject.rows.data += 1
    told = subject(subject.conditioner.tokens(["a dog"]))
    empty = subject.conditioner.unknown(1)["text"][0]
    torch.testing.assert_close(told.drop(1.0)["text"][0], empty)
    assert torch.equal(told["text"][0, -2:], subject.start + 1)


def test_a_prompt_must_leave_room() -> None:
    plain = texts()
    subject = SubjectConditioner(plain, 3)
    subject(plain.tokens(["a red dog"]))
    with pytest.raises(ValueError, match=r"prompts\[1\] must leave 3 of its 7 tokens .* got 2 to"):
        subject(plain.tokens(["a", "a red dog red"]))
    with pytest.raises(ValueError, match=r"num_rows must be at most 5, .* got 6"):
        SubjectConditioner(plain, 6)
    with pytest.raises(ValueError, match="must carry tokens"):
        subject(Condition())
    with pytest.raises(ValueError, match="prompts must be given"):
        subject.in_turn(2)


def test_shown_padding_is_seen_by_the_layers_too() -> None:
    """A word of padding more or less changes the vectors, as in Stable Diffusion."""
    shown, hidden = texts(), texts(show_padding=False)
    tokens = WORDS(["a dog"])
    for plain, same in ((shown, False), (hidden, True)):
        text, mask = plain.encoder(tokens)
        assert bool(mask.all()) is not same
        assert torch.allclose(text[:, :3], plain.encoder(tokens[:, :3])[0], atol=1e-6) is same


def test_everything_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        subject = SubjectConditioner(texts(), 2)
        assert subject(subject.conditioner.tokens(PROMPTS))["text"].is_meta
