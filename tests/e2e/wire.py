"""Stands between an editor and its language server and writes down what they say: `python wire.py FILE COMMAND ...`.

One JSON object a line: `at` (seconds since 1970), `by` ("editor" or "server") and the JSON-RPC `message`, appended
before it is handed on. Knows nothing of what is said, and needs nothing but Python: it can stand before any server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO


class Wire:
    """Both directions write to one file."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)
        self._mutex = threading.Lock()

    def carry(self, by: str, source: BinaryIO, target: BinaryIO) -> None:
        """Hand on all that comes, message by message, until the source ends."""
        while (body := _message(source)) is not None:
            line = {"at": time.time(), "by": by, "message": json.loads(body)}
            with self._mutex:
                self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            try:
                target.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
                target.flush()
            except (BrokenPipeError, ValueError):  # the other side has gone
                return


def _message(source: BinaryIO) -> bytes | None:
    """The body of the next message; None at the end. Headers are as in LSP's base protocol."""
    length = 0
    while (line := source.readline()) not in (b"", b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    body = source.read(length) if line else b""
    return body if length and len(body) == length else None


def main() -> int:
    """Runs the server; its exit status."""
    file, command = Path(sys.argv[1]), sys.argv[2:]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None and server.stdout is not None
    signal.signal(signal.SIGTERM, lambda number, _frame: server.send_signal(number))
    wire = Wire(file)
    back = threading.Thread(target=wire.carry, args=("server", server.stdout, sys.stdout.buffer))
    back.start()

    def there() -> None:
        wire.carry("editor", sys.stdin.buffer, server.stdin)
        server.stdin.close()

    threading.Thread(target=there, daemon=True).start()
    status = server.wait()
    back.join(5)
    sys.stdout.flush()
    os._exit(status if status >= 0 else 128 - status)  # a thread may still wait for the editor


if __name__ == "__main__":
    main()
