r"""A subject that a text-to-image model has learned from a few images: a file of a few kilobytes.

The file is one tensor as ``.safetensors``, the rows that HiFi Tuner (arXiv:2312.00079) puts beside
an encoded prompt. ``diffusers`` loads the same file by ``load_textual_inversion`` if all steps
share their rows. It then takes the rows for *inputs* of the text encoder, where they mean nothing
yet: that is a way to carry them, not to draw with them.
"""

import hashlib
import json
import os
from dataclasses import dataclass

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from latent_ebm.foreign import check_file, check_tensor, reading
from latent_ebm.text import TextConditioner
from latent_ebm.text.subject import check_room, check_size
from latent_ebm.writing import atomic_path
from samplers.checks import check_kind

KEY = "<subject>"  # the word by which diffusers would call it
FORMAT = "latent_ebm subject 1"
WHAT = "a subject that latent-ebm tune wrote"
MAX_BYTES = 2**26
READ = 1024  # entries of a tensor that its digest looks at


@dataclass(frozen=True, eq=False)
class Subject:
    """What one model has learned about one subject; ``TextToImage.generate`` draws it.

    Args:
        rows: Rows (n, dim) that all steps share, or (num_steps, n, dim), one set for each step.
        word: The class of the subject, such as "dog". A prompt should name it.
        model: What ``model_digest`` says of the model that the rows belong to.
        times: The times (num_steps,) of the steps, if these have rows of their own.

    Raises:
        ValueError: For rows of another shape or that are not finite, or times that do not fit.
    """

    rows: Tensor
    word: str
    model: str
    times: Tensor | None = None

    def __post_init__(self) -> None:
        check_kind(self, Tensor, rows=self.rows)
        check_kind(self, str, word=self.word, model=self.model)
        if self.rows.ndim not in (2, 3) or not self.rows.is_floating_point():
            raise ValueError(
                "rows of a subject must be floating and of shape (n, dim) or (num_steps, n, dim), "
                f"got {self.rows.dtype} of shape {tuple(self.rows.shape)}"
            )
        if not self.rows.numel() or not bool(self.rows.isfinite().all()):
            raise ValueError("rows of a subject must be finite and at least one, got others")
        if self.times is not None:
            check_kind(self, Tensor, times=self.times)
        wanted = None if self.rows.ndim == 2 else (len(self.rows),)
        got = None if self.times is None else tuple(self.times.shape)
        if got != wanted:
            raise ValueError(f"times of a subject must have shape {wanted}, got {got}")
        if self.times is not None and not falls(self.times):
            raise ValueError(
                f"times of a subject must fall and lie in [0, 1], got {self.times.tolist()!s:.200}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the subject to a file ``.safetensors``, in place of an older file."""
        times = None if self.times is None else self.times.tolist()
        told = {"format": FORMAT, "class": self.word, "model": self.model}
        with atomic_path(path) as draft:
            rows = {KEY: self.rows.detach().cpu().contiguous()}
            draft.write_bytes(in_order(save(rows, {**told, "times": json.dumps(times)})))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Subject":
        """The subject that ``save`` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, or holds something else.
        """
        path = check_file(path, WHAT)
        with reading(path, WHAT):
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
            with safe_open(path, "pt") as file:
                told, names = file.metadata() or {}, list(file.keys())
                if told.get("format") != FORMAT or names != [KEY]:
                    raise ValueError(f"it holds {', '.join(names) or 'nothing'} of another format")
                rows = file.get_tensor(KEY)
            check_tensor(KEY, rows)
            times = json.loads(told["times"])
            steps = None if times is None else torch.tensor(times, dtype=torch.float64)
            return cls(rows, told["class"], told["model"], steps)

    def check(self, conditioner: TextConditioner, denoiser: nn.Module, tokens: Tensor) -> None:
        """Raise ``ValueError`` unless the subject belongs to this model, and every row of
        ``tokens`` (prompts, m) leaves room for it.
        """
        num, dim = self.rows.shape[-2:]
        tokenizer = conditioner.encoder.tokenizer
        if dim != conditioner.encoder.dim:
            raise ValueError(
                f"subject must have rows of dimension {conditioner.encoder.dim}, like the text "
                f"encoder of the model, got {dim}: it was tuned on another model"
            )
        if self.model != (here := model_digest(conditioner, denoiser)):
            raise ValueError(
                f"subject must belong to the model that draws it, whose digest is {here}, but it "
                f"was tuned on another model, of digest {self.model[:64]}"
            )
        check_size(num, tokenizer)
        check_room(tokens, num, tokenizer)


def in_order(content: bytes) -> bytes:
    """A file ``.safetensors`` with its header in the order of names. The library writes metadata
    in an order that differs from call to call, so that equal subjects would not be equal files.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def falls(times: Tensor) -> bool:
    """Whether ``times`` (num_steps,) lie in [0, 1] and each is below the one before."""
    inside = bool(((times >= 0) & (times <= 1)).all())  # False for NaN
    return inside and bool((times.double().diff() < 0).all())


def model_digest(conditioner: nn.Module, denoiser: nn.Module) -> str:
    """A short digest of the weights of a model, 16 hexadecimal digits.

    It tells models apart, and is quick since it reads no more than the first 1,024 entries of
    every tensor: it is no seal.
    """
    digest = hashlib.sha256()
    for part in (conditioner, denoiser):
        for name, value in sorted(part.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.flatten()[:READ].double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
