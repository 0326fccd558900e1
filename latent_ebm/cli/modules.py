"""Where the classes that a user names are looked for."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def modules_here() -> Iterator[None]:
    """Look for modules in the working directory too, after all other places."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
