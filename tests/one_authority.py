"""Clients of HTTP that tests make read the certificate of one authority, not those of all: 2 ms a client, not 40 to 150."""

from __future__ import annotations

import atexit
import os
import ssl
import tempfile
from functools import wraps
from typing import Any

import certifi

_END = "-----END CERTIFICATE-----\n"


def trust_one_authority() -> None:
    """Read one certificate wherever this process, or one that it starts, would read a whole bundle of them.

    Tests ask nothing but the loopback, where no server shows a certificate but those of `test_fetching.py`, which are read
    from files of their own.
    """
    system = ssl.get_default_verify_paths()
    bundles = {certifi.where(), system.cafile, system.openssl_cafile, os.environ.get("SSL_CERT_FILE")} - {None}
    file = tempfile.NamedTemporaryFile("w", prefix="authority-", suffix=".pem")  # noqa: SIM115 - it is there until the process ends
    file.write(certifi.contents().partition(_END)[0] + _END)
    file.flush()
    atexit.register(file.close)
    os.environ["SSL_CERT_FILE"] = file.name
    load = ssl.SSLContext.load_verify_locations

    @wraps(load)
    def load_one(context: ssl.SSLContext, cafile: str | None = None, capath: str | None = None, cadata: Any = None) -> None:
        load(context, file.name if cafile in bundles else cafile, None if cafile in bundles else capath, cadata)

    ssl.SSLContext.load_verify_locations = load_one
