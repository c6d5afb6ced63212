"""Whether a connection by URL is encrypted, and what to do when it cannot be. Knows URLs and errors, no tables.

What a URL says (`sslmode`, `sslrootcert` ...) is libpq's language, and the driver's business. Where it says nothing and
the server is another machine, a connection without TLS is refused instead of made quietly.
"""

from __future__ import annotations

import os
import ssl
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LOCAL = ("", "localhost", "127.0.0.1", "::1")


def arguments(url: str) -> dict[str, Any]:
    """What the driver is to be told beside a URL: to insist on TLS, where another machine is meant and nothing said."""
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        # In the driver's order.
        named = unquote(parts.netloc.rpartition("@")[2]) or query.get("host", [""])[-1] or os.environ.get("PGHOST", "")
        hosts = [_host(one) for one in named.split(",")]
    except ValueError:
        return {}
    said = "sslmode" in query or "PGSSLMODE" in os.environ or "service" in query
    remote = any(host not in LOCAL and not host.startswith(("/", "@")) for host in hosts)
    return {"ssl": "require"} if remote and not said else {}


def _host(named: str) -> str:
    """A name or an address, without the port that may follow it."""
    if named.count(":") > 1 and not named.startswith("["):  # an address of IPv6 alone
        return named
    return named.rpartition(":")[0].strip("[]") if not named.endswith("]") and ":" in named else named.strip("[]")


def mend(error: BaseException) -> str:
    """What to do about an error of TLS; "" for any other."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if "mismatch" in error.verify_message or "not valid for" in error.verify_message:
            return "The certificate was made for another name: connect by that, or give the server one with its own."
        return (
            "The server's certificate was not signed by an authority that is known here: name the right one with "
            "sslrootcert=/path/to/root.crt in the URL. If you did, this may not be the server that you mean."
        )
    said = str(error)
    if "rejected SSL upgrade" in said or "server does not support SSL" in said:
        return (
            "The server offers no TLS. Turn it on there (`ssl = on`), or say sslmode=disable in the URL if nobody else "
            "can listen on the way."
        )
    if isinstance(error, ssl.SSLError):
        return "TLS could not be agreed on: see to the server's certificate and key."
    return ""
