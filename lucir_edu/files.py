"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8) if os.name == "nt" else ()  # seconds between attempts


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file to write to; it replaces ``path`` if all goes well, and if not nothing is
    left behind, no new folder either.

    Raises:
        OSError: the folder cannot be written to.
    """
    new = [folder for folder in path.parents if not folder.exists()]
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # the user's usual one, where a writer may set another
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)
            _replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    finally:
        for folder in new:  # the innermost first; one that has something in it stays
            with contextlib.suppress(OSError):
                folder.rmdir()


def _replace(source: Path, target: Path) -> None:
    """Windows refuses while another program (a virus scanner, say) has the target open: retry."""
    for pause in PAUSES:
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(pause)
    os.replace(source, target)
