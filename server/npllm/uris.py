"""The path in a document's URI, as editors send it."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit


def file_path(uri: str) -> str:
    """The path in a URI, e.g. "/w/a b.py" for "file:///w/a%20b.py"; other schemes keep their path too. What is no URI
    stays as it is."""
    try:
        return unquote(urlsplit(uri).path) or uri
    except ValueError:
        return uri
