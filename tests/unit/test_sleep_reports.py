"""The report of a sleep: a page that stands alone and trusts nothing, kept whole, few, private, and able to forget."""

from __future__ import annotations

import json
import math
import re
import stat
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from npllm import cli
from npllm.sleep import archive, details, plots
from npllm.sleep.details import Curve
from npllm.sleep.page import page
from npllm.sleep.project import Passage
from npllm.sleep.record import Details, Point, Quote, Record, Source
from npllm.sleep.report import CerebellumReport, ContextReport, Report, SliceKind, SliceReport, Verdict
from npllm.types import new_id
from tests.fixtures_sleep import experience

EVIL = "</pre><script>alert('&')</script>"
BEGAN = datetime(2026, 3, 2, 22, 0, tzinfo=UTC)


def record(number: int = 0, *, path: str = "src/a.py", text: str = EVIL) -> Record:
    part = ContextReport(
        "language:python",
        Verdict.REJECTED,
        f"Not likelier: {text}",
        version="v",
        new=3,
        files=1,
        held_out=4,
        nll_before=1.0,
        nll_after=0.9,
        gain=0.1,
        gain_low=-0.02,
        gain_high=0.2,
        steps=3,
        slices=(
            SliceReport(SliceKind.NEW, "new", texts=4, gain=0.1, gain_low=0.02, gain_high=0.2),
            SliceReport(SliceKind.OLD, "v0", "2026-03-01", texts=9, gain=-0.1, gain_low=-0.2, gain_high=-0.01),
            SliceReport(SliceKind.GENERAL, "general", texts=40),
        ),
    )
    waiting = ContextReport("language:go", Verdict.WAITING, "2 new experiences; 8 are needed.")
    quote = Quote("one", "/p", path, f"import os\n{text}", text, text, "")
    other = Quote("two", "/p", "src/b.py", "", "b", "b", "b")
    told = Details(
        "language:python",
        curve=(Point(1, 3.0, 900.0, 1.0), Point(2, 2.5, 950.0, 2.0), Point(3, 2.4, 940.0, 3.0)),
        quotes=(quote, other),
        sources=(Source("/p", path, 2, 1), Source("/p", "src/b.py", 1)),
    )
    began = BEGAN + timedelta(days=number)
    report = Report(f"base {text}", "f", (part, waiting), seconds=200.0, parts=2)
    return Record(new_id(), began, began, report, (told,))


def test_a_page_stands_alone_and_nothing_in_it_is_markup_but_its_own() -> None:
    made = page(record())
    assert "<script" not in made and "alert(&#x27;&amp;&#x27;)" in made
    assert "default-src 'none'" in made
    assert not re.search(r"(?:src|href)=|url\(|https?:|@import", made)
    assert "prefers-color-scheme: dark" in made
    for word in ("rejected", "waiting", "8 are needed", "texts of 2026-03-01", "general code", "Learned from 2 files"):
        assert word in made
    assert len(re.findall("<svg", made)) == 3
    for drawing in re.findall(r"<svg.*?</svg>", made, re.DOTALL):
        ElementTree.fromstring(drawing)
    for tag in ("table", "tr", "td", "pre", "figure", "details", "h2", "p"):
        assert len(re.findall(rf"<{tag}[ >]", made)) == len(re.findall(f"</{tag}>", made)), tag


def test_what_the_texts_cost_without_the_trace_is_told_where_there_is_one() -> None:
    made = record()
    part = replace(made.report.contexts[0], nll_zeroed=1.5)
    plastic = replace(made, report=replace(made.report, contexts=(part,)))
    assert "2.164 with the trace zeroed" in page(plastic)
    assert "With the trace zeroed they cost 2.164." in part.text
    assert "zeroed" not in page(made) + made.report.text
    assert Report.from_json(plastic.report.to_json()) == plastic.report


def test_a_page_tells_of_a_sleep_that_failed_or_made_nothing() -> None:
    failed = replace(record(), report=Report("b", "f", problem="The disk is full."), details=())
    assert "The disk is full." in page(failed) and "Nothing was consolidated" in page(failed)
    assert "The disk is full." in failed.text


def cerebellum(*, published: bool = True, **changes: object) -> CerebellumReport:
    values = {
        "reason": f"Likelier than before {EVIL}",
        "version": "c1",
        "published": published,
        "new": 11,
        "old": 5,
        "passages": 7,
        "held_out": 31,
        "nll_before": math.log(2),
        "nll_after": math.log(2) / 2,
        "gain": 0.5,
        "gain_low": 0.31,
        "gain_high": 0.62,
        "nll_plain": math.log(2) * 0.75,
        "nll_plastic": math.log(2) / 2,
        "nll_zeroed": math.log(2) * 0.8,
        "plastic": True,
        "threshold": 0.43,
        "judged_lines": 90,
        "answered": 40,
        "right": 36,
        "share": 0.35,
        "way": 0.75,
        "beside_before": math.log(2) * 0.9,
        "beside_after": math.log(2) * 0.45,
        "beside_low": 0.21,
        "beside_high": 0.72,
        "patterns": 17,
        "steps": 3,
        "tokens": 1234,
        **changes,
    }
    return CerebellumReport(**values)  # type: ignore[arg-type]


def with_cerebellum(part: CerebellumReport) -> Record:
    """A sleep in which nothing but the cerebellum had a part."""
    made = record()
    details = tuple(replace(one, context="cerebellum") for one in made.details)
    return replace(made, report=Report("b", "f", cerebellum=part), details=details)


@pytest.mark.parametrize("published", [True, False])
def test_a_page_tells_of_the_cerebellum_what_the_text_does(published: bool) -> None:
    made = with_cerebellum(cerebellum(published=published))
    shown, verdict = page(made), "published" if published else "rejected"
    assert f'<h2>cerebellum <span class="badge {verdict}">{verdict}</span></h2>' in shown
    assert "<script" not in shown and "Likelier than before &lt;/pre&gt;" in shown
    share = "it has 35% of the say" if published else "The base writes as before"
    for word in ("11 new and 5 old", "7 passages", "31 held-out", share, "confidence of 0.43 on", "36 of 40 right"):
        assert word in shown and word in made.text, word
    for word in ("1.000 before, 0.500 now", "0.900 to 0.450", "75% of what it learned", "17 frequent", "1234 tokens"):
        assert word in shown, word
    for word in ("serves", "0.750 without", "0.500 with", "0.800 with its trace zeroed"):
        assert word in shown, word
    for interval in ("+50.0% (+31.0% to +62.0%)", "+50.0% (+21.0% to +72.0%)"):
        assert interval in shown, interval
    assert len(re.findall("<svg", shown)) == 3, "gains, loss, speed"
    assert "src/a.py" in shown and "<th>before</th>" in shown and "Learned from 2 files" in shown
    assert "Learned from (cerebellum):" in made.text and "  before    | " in made.text
    assert "Nothing was consolidated" not in shown + made.text


def test_a_cerebellum_without_say_reflexes_or_layer_is_told_of_as_such() -> None:
    none = {"threshold": None, "share": 0.0, "nll_plastic": None, "nll_zeroed": None, "plastic": False}
    shown = page(with_cerebellum(cerebellum(**none, beside_before=None, beside_after=None)))
    for word in ("No reflexes: among 90", "The base writes without it", "does not serve (0.750 without)"):
        assert word in shown, word
    assert "zeroed" not in shown and "Beside the base they went" not in shown
    waits = with_cerebellum(CerebellumReport("4 new experiences; 60 are needed."))
    assert 'badge waiting">waiting' in page(waits) and "60 are needed" in page(waits)
    assert "Nothing was consolidated" in page(waits) and "Nothing was consolidated" in waits.text


def test_a_page_tells_of_the_modulator_and_of_attention() -> None:
    policy = f"modulator: rejected. Mean reward (doubly robust estimate) 0.1 to 0.2. {EVIL}"
    attention = ContextReport("attention", Verdict.REJECTED, "Not likelier.", held_out=30, gain_low=-0.1, gain_high=0.2)
    made = replace(record(), report=Report("b", "f", policy=policy))
    shown = page(made)
    assert "<h2>modulator</h2>\n<p>rejected. Mean reward (doubly robust estimate) 0.1 to 0.2." in shown
    assert "<script" not in shown and "Nothing was consolidated" not in shown + made.text
    assert policy in made.text
    shown = page(replace(made, report=Report("b", "f", (attention,))))
    assert 'attention <span class="badge rejected">' in shown and "Not likelier." in shown
    assert "(-10.0% to +20.0%)" in shown


@pytest.mark.parametrize("values", [[2.0, 2.0], [0.0, 0.0, 0.0], [1e-9, 1e9], [-1.0, 1.0]])
def test_a_curve_has_finite_places_within_its_frame(values: list[float]) -> None:
    drawn = plots.curve(list(enumerate(values)), x="x", y="y")
    places = re.search(r'points="([^"]*)"', drawn)
    assert places is not None
    for place in places.group(1).split():
        across, down = map(float, place.split(","))
        assert 0 <= across <= 640 and 0 <= down <= 200
    assert plots.curve([(1.0, 1.0)], x="x", y="y") == plots.gains([]) == ""


def test_a_gain_is_good_or_bad_only_when_its_interval_says_so() -> None:
    drawn = plots.gains(
        [plots.Gain("a", 0.1, 0.05, 0.2), plots.Gain("b", -0.1, -0.2, -0.05), plots.Gain("c", 0, -1, 1)]
    )
    assert re.findall(r'<circle class="(\w+)"', drawn) == ["good", "bad", "open"]


def test_reports_are_private_whole_and_few(home: Path) -> None:
    made = [record(number) for number in range(archive.KEPT + 3)]
    for one in made:
        archive.save(home, one)
    files = sorted(path.name for path in (home / "reports").iterdir())
    assert len(files) == 3 * archive.KEPT
    assert {stat.S_IMODE((home / "reports" / name).stat().st_mode) for name in files} == {0o600}
    assert stat.S_IMODE((home / "reports").stat().st_mode) == 0o700
    assert archive.ids(home) == [str(one.id) for one in reversed(made[3:])]
    assert archive.newest(home) == made[-1]
    assert archive.find(home, str(made[5].id)[-8:]) == made[5]
    assert archive.find(home, str(made[0].id)) is None
    newest = next((home / "reports").glob(f"*{made[-1].id}.json"))
    newest.write_text("{", encoding="utf-8")
    assert archive.newest(home) == made[-2]


@pytest.mark.parametrize("how", [{"files": {("/p", "src/a.py")}}, {"ids": {"one"}}])
def test_what_is_forgotten_is_in_no_report(home: Path, how: dict[str, set[object]]) -> None:
    kept, secret = record(0, text="harmless"), record(1, text="harmless")
    told = secret.details[0]
    told = replace(told, quotes=(replace(told.quotes[0], wrote="SECRET", above="SECRET\nx"), *told.quotes[1:]))
    archive.save(home, replace(kept, details=(kept.details[0].without({("/p", "src/a.py")}, ()),)))
    archive.save(home, replace(secret, details=(told,)))
    half = home / "checkpoints" / "run" / "context"
    half.mkdir(parents=True)
    details.keep(half, told.context, told.quotes, told.sources)
    (home / "reports" / f"2026-01-01-{new_id()}.json").write_text("damaged SECRET", encoding="utf-8")

    assert archive.purge(home, **how) == 2  # type: ignore[arg-type]
    left = "".join(path.read_text(encoding="utf-8") for path in home.rglob("*") if path.is_file())
    assert "SECRET" not in left
    assert ("src/a.py" in left) == ("ids" in how)
    assert "src/b.py" in left
    assert archive.purge(home, **how) == 0  # type: ignore[arg-type]


def test_a_curve_goes_on_over_an_interruption_and_a_kill(tmp_path: Path) -> None:
    tmp_path = tmp_path / "context"
    tmp_path.mkdir()
    first = Curve(tmp_path)
    for step in (1, 2, 3, 4):
        first.add(step, 4.0 - step / 10, 100.0)
    with (tmp_path / details.CURVE).open("a", encoding="utf-8") as stream:
        stream.write('{"step": 5, "lo')
    second = Curve(tmp_path)  # goes on from the checkpoint after step 2
    for step in (3, 4, 5):
        second.add(step, 1.0, 200.0)
    details.keep(tmp_path, "language:python", [], [])
    (found,) = details.collect(tmp_path.parent)
    assert [(point.step, point.loss) for point in found.curve] == [(1, 3.9), (2, 3.8), (3, 1.0), (4, 1.0), (5, 1.0)]
    seconds = [point.seconds for point in found.curve]
    assert seconds == sorted(seconds)


def test_a_long_curve_is_thinned_from_end_to_end() -> None:
    points = tuple(Point(step, 1.0, 1.0, 1.0) for step in range(5000))
    thin = details.thinned(points)
    assert len(thin) == details.MOST_POINTS and (thin[0], thin[-1]) == (points[0], points[-1])
    assert details.thinned(points[:10]) == points[:10]


def test_sources_count_experiences_and_passages_of_each_file() -> None:
    learned = [experience(path="a.py"), experience(path="a.py"), experience(path="b.py")]
    found = details.sources(learned, [Passage("/p", "c.py", "", "x", ""), Passage("/p", "b.py", "", "x", "")])
    assert {(one.path, one.texts, one.passages) for one in found} == {("a.py", 2, 0), ("b.py", 1, 1), ("c.py", 0, 1)}


def test_a_record_is_the_same_after_its_json() -> None:
    made = replace(record(), run=new_id())
    made = replace(made, report=replace(made.report, cerebellum=cerebellum(), policy="modulator: waits."))
    data = json.loads(json.dumps(made.to_json()))
    assert Record.from_json(data) == made
    del data["run"]  # a report that was written before this was kept
    assert Record.from_json(data) == replace(made, run=None)
    assert Details.from_json(asdict(made.details[0])) == made.details[0]


def test_the_command_prints_lists_and_writes_reports(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sleep", "report"]) == 1
    assert "no report yet" in capsys.readouterr().err
    made = record()
    archive.save(home, made)
    assert cli.main(["sleep", "report", "--last"]) == 0
    shown = capsys.readouterr().out
    assert "you wrote | " + EVIL in shown and str(archive.page_of(home, made)) in shown
    assert cli.main(["sleep", "report", "--list"]) == 0
    assert capsys.readouterr().out.strip() == str(made.id)
    file = home / "page.html"
    assert cli.main(["sleep", "report", str(made.id)[:13], "--html", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == page(made)
    assert cli.main(["sleep", "report", "nothing"]) == 1
    assert "--list" in capsys.readouterr().err
    assert cli.main(["sleep", "report", "--html", str(home / "no" / "page.html")]) == 1


def test_what_the_cerebellum_keeps_of_what_was_there_is_told() -> None:
    old = SliceReport(SliceKind.OLD, "v0", "2026-03-02", texts=20, files=5, nll_before=1.0, nll_after=1.01, gain=-0.01)
    general = SliceReport(SliceKind.GENERAL, "general", texts=60, files=30, gain=0.002)
    report = with_cerebellum(cerebellum(slices=(old, general)))
    assert Report.from_json(json.loads(json.dumps(report.report.to_json()))) == report.report
    shown = page(report)
    assert "texts of 2026-03-02 (20)" in shown and "general code (60)" in shown
