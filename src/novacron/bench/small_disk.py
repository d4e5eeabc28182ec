"""SmallDisk: a file system of a few megabytes that can be filled and emptied at will."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from novacron.errors import ConfigError

_PIECE: Final = 2**16
_BALLAST: Final = "ballast"


class SmallDisk:
    """A mounted one, at `folder`. What users of it have written stays when it is filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Until not one byte more can be written."""
        with (self.folder / _BALLAST).open("ab", buffering=0) as ballast:
            for piece in (_PIECE, 1):
                try:
                    while ballast.write(bytes(piece)):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def empty(self) -> None:
        """Give back what `fill` has taken."""
        (self.folder / _BALLAST).unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[SmallDisk]:
    """A tmpfs of `num_bytes` at `folder`, which is made. Raises ConfigError if it cannot be
    mounted, which takes root."""
    folder.mkdir()
    options = f"size={num_bytes},mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        raise ConfigError(
            "A full disk takes a small file system, which cannot be mounted here: run this as "
            "root, or leave the fault out."
        )
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
