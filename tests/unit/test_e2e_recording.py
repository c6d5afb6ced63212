"""What stands between an editor and its server while it is recorded."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e import wire
from tests.e2e.record import heard, reduced
from tests.e2e.scenarios import scenarios
from tests.integration.test_streams import NAMED

# Answers each message with its own id and a text of several bytes a character, and ends when the editor has gone.
SERVER = """
import json, sys
while (line := sys.stdin.buffer.readline()):
    body = json.loads(sys.stdin.buffer.read(int(line.split(b":")[1]) + 2))
    made = json.dumps({"id": body["id"], "result": "caf\\u00e9"}, ensure_ascii=False).encode()
    sys.stdout.buffer.write(b"Content-Type: x\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(made) + made)
    sys.stdout.buffer.flush()
sys.exit(7)
"""


def frame(message: dict) -> bytes:
    body = json.dumps(message).encode()
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_the_wire_hands_on_all_that_is_said_and_writes_it_down(tmp_path: Path):
    file = tmp_path / "said.jsonl"
    command = [sys.executable, wire.__file__, str(file), sys.executable, "-c", SERVER]
    done = subprocess.run(command, input=frame({"id": 1}) + frame({"id": 2}), capture_output=True, timeout=60)
    assert done.returncode == 7, "the server's own exit status"
    assert done.stdout.count(b"Content-Length: 28\r\n\r\n") == 2
    assert done.stdout.decode().endswith('{"id": 2, "result": "café"}')
    said = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["message"]["id"] for line in said if line["by"] == "editor"] == [1, 2]
    assert [line["message"]["result"] for line in said if line["by"] == "server"] == ["café", "café"]
    assert all(0 <= time.time() - line["at"] < 60 for line in said)


def test_a_recording_leaves_out_what_says_nothing_about_a_suggestion():
    item = {"insertText": "x", "command": {"arguments": ["id"]}}
    lines = [
        {"by": "editor", "message": {"id": 1, "method": "textDocument/inlineCompletion"}},
        {"by": "server", "message": {"id": 1, "result": {"items": []}}},
        {"by": "editor", "message": {"id": 2, "method": "textDocument/inlineCompletion"}},
        {"by": "editor", "message": {"id": 3, "method": "textDocument/codeAction"}},
        {"by": "editor", "message": {"method": "npllm/didInteract"}},
        {"by": "server", "message": {"id": 3, "result": []}},
        {"by": "server", "message": {"id": 2, "result": {"items": [item]}}},
        {"by": "server", "message": {"method": "npllm/status"}},
        {"by": "editor", "message": {"method": "npllm/didDismiss"}},
        {"by": "editor", "message": {"method": "workspace/executeCommand", "params": {"command": "npllm.stats"}}},
        {"by": "editor", "message": {"method": "workspace/executeCommand", "params": {"command": "npllm.accepted"}}},
    ]
    assert list(heard(lines)) == [lines[2], lines[6], lines[8], lines[10]]


def test_nothing_of_the_person_is_in_the_greeting():
    params = {
        "processId": 4711,
        "rootUri": "file:///p",
        "workspaceFolders": [],
        "clientInfo": {"name": "theirs"},
        "initializationOptions": {"server": {"command": ["/home/me/npllm"]}, "reportsAcceptance": True},
        "capabilities": {"general": {"positionEncodings": ["utf-16"]}, "textDocument": {"inlineCompletion": {}}},
    }
    kept = json.dumps(reduced({"by": "editor", "message": {"method": "initialize", "params": params}}))
    assert "4711" not in kept and "theirs" not in kept and "/home/me" not in kept
    assert '"reportsAcceptance": true' in kept


def test_every_scenario_has_its_outcomes():
    assert set(scenarios) == set(NAMED)
