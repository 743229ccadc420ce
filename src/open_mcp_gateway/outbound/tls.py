"""Trust and identity on TLS connections to servers."""

from __future__ import annotations

import ssl
from pathlib import Path

from open_mcp_gateway.catalog.model import ClientTls


class BadTls(ValueError):
    """A file named in the catalog cannot be used; the text names it."""


def client_context(tls: ClientTls | None) -> ssl.SSLContext:
    """Certificate and host name are always verified; TLS 1.2 or newer. Reads files: may block.

    Raises:
        BadTls: which file is missing or not what it should be.
    """
    tls = tls or ClientTls()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if tls.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_ca(context, tls.ca)
    if tls.cert is not None:
        _load_identity(context, tls.cert, tls.key)
    elif tls.key is not None:
        raise BadTls("`tls.key` needs `tls.cert` beside it")
    return context


def _load_ca(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise BadTls(f"`tls.ca`: {_why(error, path)}") from error


def _load_identity(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    for path in filter(None, (cert, key)):
        if not Path(path).is_file():
            raise BadTls(f"`tls.cert`/`tls.key`: no such file: {path}")
    try:
        # Without a password an encrypted key would make OpenSSL ask on the terminal.
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise BadTls(f"`tls.cert`/`tls.key`: {_why(error, cert)}") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a passphrase")


def _why(error: Exception, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no such file: {path}"
    if isinstance(error, ssl.SSLError):
        return f"not a usable PEM file: {path}"
    return f"{error}: {path}"
