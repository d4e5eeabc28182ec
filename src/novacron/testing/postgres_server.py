"""A PostgreSQL server of one's own, for tests and measurements, where its programs are found."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pg8000.dbapi import connect

_PATIENCE_S: Final = 30.0
_DEBIAN: Final = Path("/usr/lib/postgresql")
_USER: Final = "postgres"  # the server refuses to run as root


def find_programs() -> Path | None:
    """The folder of initdb and postgres, if they are on this machine."""
    candidates = sorted(_DEBIAN.glob("*/bin"), reverse=True)
    if (on_path := shutil.which("initdb")) is not None:
        candidates.append(Path(on_path).resolve().parent)
    complete = (bin for bin in candidates if (bin / "initdb").exists())
    found = next((bin for bin in complete if (bin / "postgres").exists()), None)
    return None if found is None or _other_user() == "" else found


@contextlib.contextmanager
def running_postgres(*settings: str) -> Iterator[Path]:
    """A server on a socket in the folder that comes back. It goes with the context. `settings` are
    as in its configuration: `fsync=off`."""
    programs = find_programs()
    assert programs is not None, "there is no PostgreSQL; ask find_programs before"
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        user = _other_user()
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        _run([programs / "initdb", "--no-sync", "-A", "trust", "-U", _USER, "-D", data], user)
        wanted = ("listen_addresses=", "max_connections=50", *settings)
        options = [option for setting in wanted for option in ("-c", setting)]
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, *options],
            user=user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(process, programs / "pg_isready", folder)
            yield folder
        finally:
            process.send_signal(signal.SIGQUIT)  # at once, and its children with it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE_S)
            process.kill()
            process.wait()


def new_database(server: Path, name: str) -> str:
    """The URL of a database that is new and empty."""
    connection = connect(_USER, unix_sock=_socket_of(server))
    connection.autocommit = True
    connection.cursor().execute(f'CREATE DATABASE "{name}"')
    connection.close()
    return url_of(server, name)


def url_of(server: Path, name: str) -> str:
    return f"postgresql://{_USER}@/{name}?unix_sock={_socket_of(server)}"


def _socket_of(server: Path) -> str:
    return f"{server}/.s.PGSQL.5432"


def _other_user() -> str | None:
    """Whom the server runs as: None for ourselves, empty if there is nobody for it."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam(_USER).pw_name
    except KeyError:
        return ""


def _run(command: Sequence[str | Path], user: str | None) -> None:
    subprocess.run(command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)


def _wait_for(process: subprocess.Popen[bytes], pg_isready: Path, socket_folder: Path) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline_s:
        assert process.poll() is None, "postgres ended at its start"
        asked = subprocess.run(
            [pg_isready, "-q", "-h", socket_folder], check=False, stdout=subprocess.DEVNULL
        )
        if asked.returncode == 0:
            return
        time.sleep(0.02)
    raise AssertionError("postgres does not answer")
