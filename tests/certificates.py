"""A self-signed certificate, made by the `openssl` program."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Certificate(NamedTuple):
    """Files in PEM."""

    cert: Path
    key: Path


def self_signed(folder: Path, *, names: str = "DNS:localhost,IP:127.0.0.1") -> Certificate:
    """A certificate for `names` and its key, in `folder`; skips the test where nobody makes one."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl program to make a certificate with")
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    command = [
        *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", f"subjectAltName={names}"),
        *("-keyout", str(made.key), "-out", str(made.cert)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return made
