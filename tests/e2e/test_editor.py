"""The loop as a person sees it: a suggestion, what became of it, feedback, sleep; and a server that is not there."""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from npllm.types import Feedback, Outcome, OutcomeKind
from tests.e2e import records
from tests.e2e.desk import SERVER_SETTINGS, Desk, flow
from tests.e2e.git import git

# Long enough to be seen asleep, and to be woken in the middle.
DEEP_SLEEP = {
    **SERVER_SETTINGS,
    "sleep": {"idle_s": 3600, "min_holdout": 4, "epochs": 1000, "threads": 1, "checkpoint_s": 1},
}
LENSES = ["npllm: 👍 good", "👎 wrong", "😡 never again", "say more"]


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_extension_installs_from_its_package(installed: tuple[Path, list[str]]) -> None:
    assert [name.partition("@")[0] for name in installed[1]] == ["npllm.npllm"]


@flow()
def test_ghost_text_is_accepted_taken_in_part_and_sent_away(desk: Desk) -> None:
    desk.open()
    bench = desk.bench

    beginning, ghost = desk.suggestion()
    bench.press("Tab")
    bench.until(lambda: f"{beginning}{ghost}" in "\n".join(bench.lines()), "the accepted text in the editor")
    bench.until(lambda: records.outcomes(desk.home)[OutcomeKind.ACCEPTED] >= 1, "the acceptance to be recorded")

    beginning, ghost = desk.suggestion()
    bench.press("Escape")
    bench.until(lambda: bench.ghost() == "", "the ghost text to vanish")
    assert beginning in bench.lines()
    bench.type("zq = 1")
    bench.press("Escape", "Enter", "Enter")
    bench.until(lambda: records.outcomes(desk.home)[OutcomeKind.DISMISSED] >= 1, "the dismissal to be recorded")

    beginning, ghost = desk.suggestion()
    bench.press("Control+ArrowRight")
    taken = bench.until(lambda: _taken(bench.lines(), beginning, ghost), "a part of the suggestion in the editor")
    assert ghost.startswith(taken)
    bench.type("qz = 2")
    bench.press("Escape", "Enter", "Enter")
    wanted = OutcomeKind.ACCEPTED if taken == ghost else OutcomeKind.PARTIALLY_ACCEPTED
    bench.until(lambda: records.outcomes(desk.home)[wanted] >= 1, f"a suggestion to be {wanted}")

    assert records.status(desk.home)["suggestions"] >= 3
    assert bench.notifications() == []


@flow()
def test_feedback_is_given_and_what_was_taken_is_followed_to_its_commit(desk: Desk) -> None:
    for words in (("init", "-q"), ("add", "--all"), ("commit", "-q", "-m", "Begin")):
        git(desk.project, *words)
    desk.open()
    bench = desk.bench
    _, ghost = desk.suggestion()
    bench.press("Tab")
    bench.until(lambda: records.outcomes(desk.home)[OutcomeKind.ACCEPTED] >= 1, "the acceptance to be recorded")

    assert bench.lenses() == [], "they move the lines: only where the person wants them"
    lenses = {**SERVER_SETTINGS, "feedback": {**SERVER_SETTINGS["feedback"], "code_lens": True}}
    bench.configure({"npllm.settings": lenses})
    bench.until(lambda: bench.lenses() == LENSES, f"the lenses {LENSES}")
    bench.say("👍 good")
    bench.until(lambda: _said(desk.home) == ["👍"], "the thumb to be recorded")
    bench.until(lambda: bench.lenses() == [], "the lenses to go")
    bench.until(lambda: _felt(desk.home), "the thumb to weigh in the experience")
    assert [feeling > 0 for feeling in _felt(desk.home)] == [True]

    bench.palette("npllm: Give Feedback")
    title = bench.until(bench.title, "the faces")
    assert ghost.strip().splitlines()[0].strip()[:30] in title, "it is about what was accepted"
    bench.choose("👎")
    bench.until(lambda: "👎" in bench.title(), "the comment")
    bench.type("that is wrong")
    bench.press("Enter")
    bench.until(lambda: _said(desk.home) == ["👍", "👎"], "the feedback to be recorded")
    bench.until(lambda: min(_felt(desk.home)) < 0, "the feedback to weigh in the experience")
    assert [feeling < 0 for feeling in _felt(desk.home)] == [True]

    bench.to_end()
    bench.press("Control+k", "Alt+f")
    bench.until(lambda: "how was" in bench.title(), "the faces, by their keys")
    bench.choose("❤️")
    bench.until(lambda: "❤️" in bench.title(), "the comment")
    bench.press("Enter")
    bench.until(lambda: _said(desk.home) == ["👍", "👎", "❤️"], "the third feedback to be recorded")

    bench.to_end()
    bench.press("Control+s")
    bench.until(lambda: _stands(desk.home).get("save") == 1, "what stands at the save to be recorded")
    git(desk.project, "commit", "-q", "-a", "-m", "Take it")
    bench.until(lambda: _stands(desk.home).get("commit") == 1, "what stands at the commit to be recorded")

    desk.suggestion()
    bench.press("Tab")
    bench.until(lambda: bench.lenses() == LENSES, "the acceptance")
    bench.act("👍 good")
    bench.until(lambda: _said(desk.home)[3:] == ["👍"], "what was said by a code action to be recorded")

    bench.to_end()
    desk.suggestion()
    bench.press("Tab")
    bench.until(lambda: bench.lenses() == LENSES, "the acceptance")
    bench.press("ArrowLeft")
    bench.follow("👎 wrong")
    bench.until(lambda: _said(desk.home)[3:] == ["👍", "👎"], "what the hover was for to be recorded")

    bench.to_end()
    bench.palette("npllm: Show Statistics")
    told = bench.until(bench.webview, "the statistics")
    assert "save 100% (of 1), commit 100% (of 1)" in told
    assert "said how it was 5: 3 glad, 2 not, 0 neither." in told
    assert bench.notifications() == []


@flow(
    prepare=lambda home: records.write_past(home, [Path(module.__file__) for module in (argparse, json, textwrap)], 60),
    settings={"npllm.settings": DEEP_SLEEP},
)
def test_sleep_is_shown_and_moving_the_cursor_ends_it(desk: Desk) -> None:
    desk.open()
    bench = desk.bench
    bench.palette("npllm: Sleep Now")
    bench.until(
        lambda: re.fullmatch(r"npllm sleeping: \w+ [1-9]\d* %.*", bench.status()), "sleep, with its progress", 300
    )
    text = bench.lines()
    bench.to_end()
    bench.press("ArrowUp", "ArrowUp")
    bench.until(desk.awake, "the server to wake", 30)
    assert bench.lines() == text, "nothing was written"
    bench.until(lambda: records.status(desk.home)["state"] == "interrupted", "the sleep to be interrupted")
    bench.to_end()
    desk.suggestion()
    assert bench.notifications() == []


@flow()
def test_a_server_that_dies_is_started_again(desk: Desk) -> None:
    desk.open()
    desk.suggestion()
    first = _servers(desk.home)
    assert len(first) == 1
    first[0].kill()
    desk.bench.until(lambda: desk.awake() and _servers(desk.home) not in ([], first), "another server, awake", 120)
    desk.suggestion()
    assert desk.bench.notifications() == []


@flow(settings={"npllm.server.command": ["npllm-is-not-here", "serve"]})
def test_a_missing_server_gives_one_clear_message_and_new_settings_mend_it(desk: Desk) -> None:
    bench = desk.bench
    bench.open()
    bench.until(lambda: bench.status() == "npllm error", "the error in the status bar", 120)
    (message,) = bench.until(bench.notifications, "the message")
    assert 'could not find its server "npllm-is-not-here"' in message
    assert "pip install ." in message
    assert "npllm.server.command" in message

    bench.configure({"npllm.server.command": [], "npllm.server.python": sys.executable})
    bench.until(desk.awake, "the server to be awake", 240)
    bench.to_end()
    desk.suggestion()
    bench.configure({"npllm.enable": False})
    bench.until(lambda: bench.status() == "npllm off" and not _servers(desk.home), "the server to go")


def _taken(lines: list[str], beginning: str, ghost: str) -> str:
    """What stands behind the last `beginning`, when that is the start of `ghost`."""
    _, found, rest = "\n".join(lines).rpartition(beginning)
    return rest if found and ghost.startswith(rest) else ""


def _said(home: Path) -> list[str]:
    """What was said of suggestions, the first one first."""
    return [one.emoji for one in records.recorded(home) if isinstance(one, Feedback)]


def _stands(home: Path) -> dict[str, float]:
    """How much stood of what was suggested (0 to 1), by what made the server look."""
    return {one.occasion: one.survival for one in records.recorded(home) if isinstance(one, Outcome)}


def _felt(home: Path) -> list[float]:
    """The emotional rewards of the experiences that have one."""
    return [item.emotional for item in records.experiences(home) if item.emotional is not None]


def _servers(home: Path) -> list[psutil.Process]:
    """The servers that work with a data folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if "serve" in (process.info["cmdline"] or []) and process.environ().get("NPLLM_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found
