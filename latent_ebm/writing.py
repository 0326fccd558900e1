"""Files and folders that appear complete or not at all: each is written beside its place, then
renamed.

A killed process leaves its draft behind, a hidden file or folder that is in nobody's way. The next
one that writes to the same place removes it, once it is old: a young one may be another's.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OLD = 3600  # seconds after which a draft belongs to a killed process


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it if the block ends well and removed if it
    does not.

    ``~`` is expanded; a link stays, and what it leads to is replaced. Parent directories are made,
    and removed again if the block fails. Raises ``OSError`` where nothing can be written.
    """
    target = Path(os.path.realpath(Path(path).expanduser()))
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # a folder that may be written to, but not listed
        remove_drafts(target)
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        if (
            isinstance(error, OSError) and error.errno and error.filename is None
        ):  # as of a full disk
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside ``path``, renamed to it if the block ends well and removed if it
    does not.

    Parent directories are made as by ``atomic_path``. Raises ``FileExistsError`` if anything is at
    ``path``, and ``OSError`` where nothing can be written.
    """
    target = Path(path).expanduser()
    if os.path.lexists(target):
        raise FileExistsError(f"folder must be a new one, got {str(target)!r}")
    with atomic_path(target) as draft:
        draft.mkdir()
        try:
            yield draft
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def remove_drafts(target: Path) -> None:
    """Remove what killed processes have left of ``target``."""
    draft = re.compile(rf"\.{re.escape(target.name[:50])}\.[0-9a-f]{{16}}\.tmp")
    for path in target.parent.iterdir():
        with suppress(OSError):  # another process may have removed or renamed it
            if draft.fullmatch(path.name) and time.time() - path.stat().st_mtime > OLD:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
