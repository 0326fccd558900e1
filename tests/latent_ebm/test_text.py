"""Text as a condition: ids that hide nothing, vectors that padding does not change, and a null
that is the encoded empty prompt.
"""

import copy
import importlib.util
import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latent_ebm import load
from latent_ebm.conditions import Condition
from latent_ebm.text import (
    SubwordTokenizer,
    TextConditioner,
    TextTransformer,
    WordTokenizer,
    load_text_encoder,
    subword_encoder,
)
from latent_ebm.text.pretrained import PretrainedTokenizer
from latent_ebm.text.tokenizer import PADDING, START, UNKNOWN, split_words
from tests.latent_ebm.pipelines import write_text_encoder

CAPTIONS = ["a red apple", "a green apple", "the cat", "A dog's bone"]
KNOWN = ["red apple", "", "the cat"]


@pytest.fixture
def tokenizer() -> WordTokenizer:
    return WordTokenizer.count(CAPTIONS, max_words=5)


@pytest.fixture
def conditioner(tokenizer: WordTokenizer) -> TextConditioner:
    torch.manual_seed(0)
    return TextConditioner(TextTransformer(tokenizer, dim=16, depth=2, num_heads=2))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"{args[1:]} was to be reached")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Medium-Light  skin\ttone:", ["medium", "light", "skin", "tone"]),
        ("o’clock", ["o", "clock"]),
        ("\uff26\uff55\uff4c\uff4c width", ["full", "width"]),
        ("Cafe\u0301 STRASSE straße", ["café", "strasse", "strasse"]),
        ("हिन्दी", ["हिन्दी"]),
        ("1+1=2", ["1", "+", "1", "=", "2"]),
        ("❤\ufe0f👩\u200d🚀", ["❤", "👩", "🚀"]),
        ("", []),
    ],
)
def test_words_are_in_normal_form(text: str, words: list[str]) -> None:
    assert split_words(text) == words
    assert split_words(" ".join(words)) == words


def test_words_are_ranked_by_count_then_alphabet() -> None:
    assert WordTokenizer.count(["b a", "c b", "B"]).words == ("b", "a", "c")
    assert WordTokenizer.count(["b a", "c b", "B"], num_words=2).words == ("b", "a")


def test_ids_are_a_start_the_words_and_padding(tokenizer: WordTokenizer) -> None:
    ids = tokenizer(["the RED, cat!", "", "  "])
    the, red, cat = (tokenizer.words.index(word) + UNKNOWN + 1 for word in ("the", "red", "cat"))
    start = [START, PADDING, PADDING, PADDING, PADDING, PADDING]
    assert ids.tolist() == [[START, the, red, cat, PADDING, PADDING], start, start]
    assert ids.dtype == torch.int64
    assert tokenizer([]).shape == (0, 6)


def test_unknown_words_are_named(tokenizer: WordTokenizer) -> None:
    with pytest.warns(UserWarning, match="'zebra', '苹果', '🍎'"):
        ids = tokenizer(["red zebra", "苹果 🍎 zebra"])
    assert ids[1].tolist() == [START, UNKNOWN, UNKNOWN, UNKNOWN, PADDING, PADDING]
    with pytest.raises(ValueError, match=r"known words, got 'zebra'$"):
        tokenizer(["red zebra"], strict=True)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("a red apple", "prompts must be a list of strings, got 'a red apple'"),
        (3, "prompts must be a list of strings, got 3"),
        ({"red": 1}, "prompts must be a list of strings"),
        (["red", None], r"prompts\[1\] must be a string, got None"),
        ([b"red"], r"prompts\[0\] must be a string, got b'red'"),
        (["red\x00apple"], r"prompts\[0\] must hold no control characters, got '\\x00'"),
        (["red \ud800"], r"no control characters, got '\\ud800'"),
        (["?!"], r"prompts\[0\] must hold a word or be empty, got '\?!'"),
        (["a a a", "a a a a a a"], r"prompts\[1\] must have at most 5 words, got 6"),
        (["red " * 10_000], r"at most 5 words, got 10,000: 'red red .{,40}'$"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tokenizer: WordTokenizer, prompts: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        tokenizer(prompts)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Red",), "normal form, got 'Red'"),
        (("red apple",), "normal form, got 'red apple'"),
        (("",), "normal form, got ''"),
        ((3,), "normal form, got 3"),
        (("red", "red"), "got 'red' twice"),
    ],
)
def test_a_vocabulary_is_checked(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WordTokenizer(words)


def test_a_tokenizer_is_the_same_after_its_file(tokenizer: WordTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    tokenizer.save(path)
    loaded = WordTokenizer.load(path)
    assert (loaded.words, loaded.max_words) == (tokenizer.words, tokenizer.max_words)
    assert torch.equal(loaded(KNOWN), tokenizer(KNOWN))
    assert set(json.loads(path.read_text(encoding="utf-8"))) == {"format", "max_words", "words"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "must hold the vocabulary"),
        ("[]", "got a list"),
        ('{"words": ["red"]}', "must hold format 1, max_words and words"),
        ('{"format": 2, "max_words": 3, "words": []}', "must hold format 1"),
        ('{"format": 1, "max_words": 3, "words": "red"}', "a list of words"),
        ('{"format": 1, "max_words": 0, "words": []}', "max_words must be an integer"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=said):
        WordTokenizer.load(path)


def test_padding_does_not_change_the_vectors(conditioner: TextConditioner) -> None:
    tokens = conditioner.tokens(KNOWN)["tokens"]
    text, mask = conditioner.encoder(tokens)
    for row, shown in enumerate(mask.sum(1).tolist()):
        alone, all_shown = conditioner.encoder(tokens[row : row + 1, :shown])
        assert bool(all_shown.all())
        torch.testing.assert_close(text[row, :shown], alone[0])
    assert mask.sum(1).tolist() == [3, 1, 3]


def test_vectors_depend_on_the_order_of_words(conditioner: TextConditioner) -> None:
    text = conditioner.encode(["red apple", "apple red"])["text"]
    assert not torch.allclose(text[0, 1], text[1, 2], atol=1e-2)


def test_the_null_is_the_encoded_empty_prompt(conditioner: TextConditioner) -> None:
    known, empty = conditioner.encode(KNOWN), conditioner.encode([""])
    for name in ("text", "mask"):
        torch.testing.assert_close(known.null[name], empty[name][0])
        torch.testing.assert_close(known[name][1], empty[name][0])
        torch.testing.assert_close(
            conditioner.unknown(2)[name], empty[name].expand(2, *[-1] * (empty[name].ndim - 1))
        )
        torch.testing.assert_close(known.unknown()[name][2], empty[name][0])
    tokens = conditioner.tokens(KNOWN)
    torch.testing.assert_close(conditioner(tokens.unknown())["text"][0], empty["text"][0])


def test_the_null_is_trained(conditioner: TextConditioner) -> None:
    conditioner.encode(["red"]).unknown()["text"][:, :1].square().sum().backward()
    embedding = conditioner.encoder.embedding
    assert isinstance(embedding, nn.Embedding)
    assert embedding.weight.grad is not None
    assert embedding.weight.grad[START].any()
    assert not embedding.weight.grad[UNKNOWN + 1 :].any()


def test_few_updates_turn_the_vector_of_a_word_round(tokenizer: WordTokenizer) -> None:
    """A rare word is seen some ten times; its vector must then say what it means."""
    torch.manual_seed(0)
    embedding = TextTransformer(tokenizer, dim=128).embedding
    word, meaning = torch.tensor([3]), torch.randn(128).sign()
    optimizer = torch.optim.Adam(embedding.parameters(), lr=2e-3)
    for _ in range(12):
        optimizer.zero_grad()
        (-embedding(word) @ meaning).sum().backward()
        optimizer.step()
    assert torch.cosine_similarity(embedding(word), meaning[None]).item() > 0.9


def test_no_prompt_is_no_row(conditioner: TextConditioner) -> None:
    assert conditioner.encode([])["text"].shape == (0, 6, 16)


def test_a_batch_without_tokens_is_refused(conditioner: TextConditioner) -> None:
    with pytest.raises(ValueError, match="must carry tokens"):
        conditioner(Condition())


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (torch.ones(2), r"got torch.float32 of shape \(2,\)"),
        (torch.ones(2, 7, dtype=torch.long), r"at most 6\), got torch.int64 of shape \(2, 7\)"),
        (torch.full((1, 2), 99), "must lie in 0 to"),
        (torch.full((1, 2), -1), "got -1 to -1"),
    ],
)
def test_other_tokens_are_refused(conditioner: TextConditioner, tokens: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        conditioner.encoder(tokens)
    with pytest.raises(ValueError, match=said):
        conditioner(Condition({"tokens": tokens}))


def test_a_step_on_the_meta_device(conditioner: TextConditioner) -> None:
    tokens = conditioner.tokens(KNOWN).to("meta")
    conditioner = conditioner.to("meta")
    told = conditioner(tokens).drop(0.5)
    told["text"].sum().backward()
    assert conditioner.unknown(3)["mask"].is_meta
    assert conditioner.tokens(KNOWN)["tokens"].is_meta


def test_a_table_is_held_fixed(tokenizer: WordTokenizer) -> None:
    table = torch.randn(tokenizer.num_tokens, 7)
    encoder = TextTransformer(tokenizer, dim=16, table=table)
    encoder(tokenizer(KNOWN))[0].sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    assert torch.equal(encoder.state_dict()["table"], table)
    with pytest.raises(ValueError, match=r"table must have shape .*got \(3, 7\)"):
        TextTransformer(tokenizer, table=table[:3])


@pytest.mark.parametrize("size", [None, 7])
def test_a_conditioner_is_the_same_after_its_folder(
    tokenizer: WordTokenizer, tmp_path: Path, size: int | None
) -> None:
    table = None if size is None else torch.randn(tokenizer.num_tokens, size)
    conditioner = TextConditioner(TextTransformer(tokenizer, 16, table=table)).eval()
    conditioner.save(tmp_path)
    loaded = load(tmp_path)
    assert torch.equal(loaded.encode(KNOWN)["text"], conditioner.encode(KNOWN)["text"])
    assert torch.equal(loaded.unknown(2)["text"], conditioner.unknown(2)["text"])
    assert [p.shape for p in loaded.parameters()] == [p.shape for p in conditioner.parameters()]


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="tokenizer must be a Tokenizer, got 3"):
        TextTransformer(3)  # pyright: ignore[reportArgumentType]


# Static embeddings


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@needs("wordllama", "tokenizers")
def test_subwords_know_every_word(offline: None) -> None:
    tokenizer = SubwordTokenizer(12)
    ids = tokenizer(["a RED  apple", "a red apple", "", "苹果🍎", "<s><unk>"], strict=True)
    assert torch.equal(ids[0], ids[1])
    assert ids[2].tolist() == [START] + [PADDING] * 11
    shown = (ids != PADDING).sum(1)
    assert all(bool((row[:n] != PADDING).all()) for row, n in zip(ids, shown, strict=True))
    assert int((ids == START).sum()) == 5
    with pytest.raises(ValueError, match="at most 11 tokens, got 10,000"):
        tokenizer(["red " * 10_000])
    assert torch.equal(copy.deepcopy(tokenizer)(["red"]), tokenizer(["red"]))


@needs("wordllama", "tokenizers")
def test_words_of_like_meaning_have_like_vectors(offline: None) -> None:
    encoder = subword_encoder(dim=16, num_heads=2)
    assert encoder.table is not None
    table = encoder.table

    def vector(word: str) -> Tensor:
        ids = encoder.tokenizer([word])[0, 1:]
        return table[ids[ids != PADDING]].mean(0)

    cat, kitten, tax = map(vector, ("cat", "kitten", "tax"))
    assert torch.cosine_similarity(cat, kitten, 0) > torch.cosine_similarity(cat, tax, 0) + 0.1


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("latent_ebm.text.wordllama.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"need wordllama: pip install 'latent-ebm\[wordllama\]'"
    ):
        SubwordTokenizer()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'latent-ebm\[transformers\]'"):
        load_text_encoder(tmp_path)


# Encoders of transformers


class MarkedWords:
    """A tokenizer of ``transformers`` whose end also stands for what is unknown, as CLIP's does:
    4 and more for the words of "a red apple".
    """

    bos_token_id, eos_token_id, pad_token_id, unk_token_id = 1, 2, 2, 2

    def __init__(self, is_fast: bool) -> None:
        self.is_fast = is_fast

    def __len__(self) -> int:
        return 7

    def num_special_tokens_to_add(self) -> int:
        return 2

    def __call__(self, text: str, **options: bool) -> dict[str, list[Any]]:
        words = list(re.finditer(r"\w+", text))
        ids = [1, *(4 + ["a", "red", "apple"].index(word[0]) for word in words), 2]
        places = [(0, 0), *(word.span() for word in words), (0, 0)]
        return {"input_ids": ids, "offset_mapping": places if self.is_fast else []}


@pytest.mark.parametrize("is_fast", [True, False])
def test_the_end_of_a_prompt_is_no_unknown_word(is_fast: bool) -> None:
    tokenizer = PretrainedTokenizer(MarkedWords(is_fast), 6)
    assert tokenizer.split("a red apple") == ([1, 4, 5, 6, 2], [])
    assert tokenizer(["red"]).tolist() == [[1, 5, 2, 2, 2, 2]]


@pytest.fixture
def pipeline(tmp_path: Path, offline: None) -> Path:
    """A folder with a tiny random CLIP model and a tokenizer of words."""
    write_text_encoder(tmp_path, ["a", "red", "apple"])
    return tmp_path


def test_a_text_model_of_transformers_is_loaded(pipeline: Path) -> None:
    from transformers import CLIPTextModel

    encoder = load_text_encoder(pipeline)
    told = TextConditioner(encoder).encode(["a red apple", ""])
    ids = encoder.tokenizer(["a red apple", ""])
    assert ids.tolist() == [[1, 4, 5, 6, 2, 0, 0, 0], [1, 2, 0, 0, 0, 0, 0, 0]]
    assert told["mask"].tolist() == (ids != 0).tolist()
    model = CLIPTextModel.from_pretrained(pipeline / "text_encoder").eval()
    torch.testing.assert_close(told["text"][0, :5], model(ids[:1, :5]).last_hidden_state[0])
    unseen = model(ids, attention_mask=(ids != 0).long()).last_hidden_state
    torch.testing.assert_close(told["text"], unseen)
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.train().training


def test_padding_is_shown_as_in_stable_diffusion(pipeline: Path) -> None:
    encoder = load_text_encoder(pipeline, show_padding=True)
    tokens = encoder.tokenizer(["a red apple"])
    text, mask = encoder(tokens)
    assert bool(mask.all())
    torch.testing.assert_close(text, encoder.model(tokens).last_hidden_state)


def test_padding_by_the_end_token_starts_after_the_first(pipeline: Path) -> None:
    tokenizer = load_text_encoder(pipeline).tokenizer
    tokenizer.padding = 2
    shown = tokenizer.shown(torch.tensor([[1, 4, 2, 2, 2], [1, 2, 2, 2, 2]]))
    assert shown.tolist() == [[True, True, True, False, False], [True, True, False, False, False]]


def test_words_that_a_pretrained_tokenizer_does_not_know(pipeline: Path) -> None:
    tokenizer = load_text_encoder(pipeline, max_tokens=6).tokenizer
    with pytest.warns(UserWarning, match=r": 'zebra'$"):
        assert tokenizer(["red zebra"]).tolist() == [[1, 5, 3, 2, 0, 0]]
    with pytest.raises(ValueError, match="must not spell a mark of its tokenizer, got 'a </s>'"):
        tokenizer(["a </s>"])
    with pytest.raises(ValueError, match="at most 4 tokens, got 5"):
        tokenizer(["a red red red apple"])


def test_a_folder_without_a_limit_needs_one(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latent_ebm.text.pretrained.NO_LIMIT", 7)
    with pytest.raises(ValueError, match=r"max_tokens must be given for .* name no limit"):
        load_text_encoder(pipeline)
    assert load_text_encoder(pipeline, max_tokens=8).tokenizer.max_tokens == 8


def test_folders_of_other_things_are_refused(pipeline: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_text_encoder(pipeline / "tokenizer")
    config = pipeline / "text_encoder" / "config.json"
    content = json.loads(config.read_text())
    for name in ("NoModel", "CLIPTokenizer", None):
        config.write_text(json.dumps({**content, "architectures": name and [name]}))
        with pytest.raises(ValueError, match=f"must name a model of transformers, got {name!r}"):
            load_text_encoder(pipeline)
    config.write_text(json.dumps({**content, "num_hidden_layers": 3}))
    with pytest.raises(ValueError, match="weights that do not fit"):
        load_text_encoder(pipeline)
    config.write_text(json.dumps(content))
    (pipeline / "text_encoder" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="must hold a model of transformers"):
        load_text_encoder(pipeline)


def test_one_text_is_no_list_of_texts() -> None:
    with pytest.raises(ValueError, match="words must be a list of strings, got 'red'"):
        WordTokenizer("red")
    with pytest.raises(ValueError, match="captions must be a list of strings, got 'red'"):
        WordTokenizer.count("red")


def test_a_long_unknown_word_is_named_in_short(tokenizer: WordTokenizer) -> None:
    with pytest.warns(UserWarning, match="not known") as caught:
        tokenizer(["a" * 100_000])
    assert len(str(caught[0].message)) < 200


def test_captions_of_other_kinds_are_refused() -> None:
    for wrong in (3, ["red"], None, "re\x00d"):
        with pytest.raises(ValueError, match=r"captions\[1\] must"):
            WordTokenizer.count(["red", wrong])  # pyright: ignore[reportArgumentType]


def test_a_table_holds_finite_numbers(tokenizer: WordTokenizer) -> None:
    size = tokenizer.num_tokens
    for wrong in ([1.0], torch.zeros(size, 4).long(), torch.full((size, 4), torch.nan)):
        with pytest.raises(ValueError, match="table must"):
            TextTransformer(tokenizer, dim=16, table=wrong)  # pyright: ignore[reportArgumentType]


def test_tokens_are_integers(tokenizer: WordTokenizer) -> None:
    encoder = TextTransformer(tokenizer, dim=16)
    for wrong in ("red", torch.zeros(1, 2, dtype=torch.bool), torch.zeros(1, 2).char()):
        with pytest.raises(ValueError, match="tokens must be"):
            encoder(wrong)
