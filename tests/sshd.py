"""A real sshd of a test's own, as an ordinary process with keys and settings of its own, and the ssh that finds it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVER = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Sshd:
    """``folder/home`` is home there, ``folder/there`` is first on its PATH; ``folder/bin`` has the ssh to be used."""

    folder: Path
    port: int

    @property
    def host(self) -> str:
        """As ``--ssh`` takes it."""
        return f"127.0.0.1:{self.port}"

    def settle(self, *, key: bool = True, known: bool = True) -> None:
        """Give the ssh a key that the server takes, and the server's own, or not."""
        identity = self.folder / ("user" if key else "stranger")
        hosts = self.folder / ("known" if known else "unknown")
        (self.folder / "config").write_text(
            f"IdentityFile {identity}\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {hosts}\n"
            "GlobalKnownHostsFile /dev/null\n"
        )

    def program(self, text: str | bytes) -> None:
        """What is ``hiresvit-run`` there."""
        path = self.folder / "there" / "hiresvit-run"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(0o755)


@contextmanager
def running(folder: Path, environment: Mapping[str, str]) -> Iterator[Sshd]:
    """Start one on a free port; skips the test where there is no sshd."""
    client = shutil.which("ssh")
    if SERVER is None or client is None:
        pytest.skip("no sshd here: cpp/get-tools.sh --cross installs openssh-server")
    if os.geteuid() == 0:  # root's sshd wants a folder to lock itself into
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    for name in ("home", "there", "bin"):
        (folder / name).mkdir()
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copyfile(folder / "user.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    given = {"HOME": str(folder / "home"), "PATH": f"{folder / 'there'}:/usr/bin:/bin", **environment}
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes",
        "SetEnv": " ".join(f'{name}="{value}"' for name, value in given.items()),
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {client} -F {folder / "config"} "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SERVER, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        until = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield Sshd(folder, port)
    finally:
        process.terminate()
        process.wait()
