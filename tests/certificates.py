"""Certificates made for one test, by the system's openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """PEM files of a certificate, which vouches for itself, and its key."""

    certificate: Path
    key: Path

    def take_from(self, other: Pair) -> None:
        """Become `other`, as a renewal does: one file after the other."""
        self.certificate.write_bytes(other.certificate.read_bytes())
        self.key.write_bytes(other.key.read_bytes())


def make_pair(folder: Path, name: str, *, host: str = "localhost") -> Pair:
    """For `host` and 127.0.0.1, for two days."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{host},IP:127.0.0.1"),
            *("-out", str(pair.certificate), "-keyout", str(pair.key)),
        ],
        check=True,
        capture_output=True,
    )
    return pair
