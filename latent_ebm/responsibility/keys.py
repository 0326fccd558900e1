"""Random numbers that a secret key determines, the same on every machine and for ever.

They are the output of SHAKE-256, which nobody without the key can tell from independent fair bits.
The generators of torch and numpy give no such promise.
"""

import hashlib

import numpy as np
from scipy.special import ndtri

MIN_KEY = 16  # bytes


def uniforms(key: bytes, purpose: str, num: int) -> np.ndarray:
    """Numbers (num,) in (0, 1), float64, for one ``purpose`` of ``key``."""
    check_key(key)
    stream = hashlib.shake_256(purpose.encode() + b"\0" + key).digest(8 * num)
    return ((np.frombuffer(stream, dtype="<u8") >> np.uint64(12)) + 0.5) / 2.0**52


def normals(key: bytes, purpose: str, num: int) -> np.ndarray:
    """Standard normal numbers (num,), float64."""
    return ndtri(uniforms(key, purpose, num))


def signs(key: bytes, purpose: str, num: int) -> np.ndarray:
    """Fair signs (num,), -1.0 or 1.0."""
    return np.where(uniforms(key, purpose, num) < 0.5, -1.0, 1.0)


def check_key(key: object) -> None:
    """Raise ``ValueError`` unless ``key`` is bytes, too many of them to be guessed. The message
    does not show the key.
    """
    if not isinstance(key, bytes) or len(key) < MIN_KEY:
        got = f"{len(key)} bytes" if isinstance(key, bytes) else f"a {type(key).__name__}"
        raise ValueError(
            f"key must be at least {MIN_KEY} bytes, such as secrets.token_bytes({MIN_KEY}), got "
            f"{got}"
        )
