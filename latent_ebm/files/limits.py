"""How large a user's file may be; this is checked before memory is allocated."""

from pathlib import Path

MAX_ENTRIES = 200_000_000  # rows x columns, or images x channels x pixels: 1.6 GB as float64
MAX_CELL = 2**20  # bytes of one cell of a table
MAX_PIXELS = 2**26  # of one image, before it is resized


def check_entries(path: Path | str, num: int, max_entries: int) -> None:
    """Raise ``ValueError`` if ``path`` holds more than ``max_entries`` entries."""
    if num > max_entries:
        raise ValueError(
            f"{path} must hold at most {max_entries:,} entries (rows x columns), got {num:,}; "
            f"--max-entries sets the limit"
        )
