# ruff: noqa: F811
"""Comments read by a text classifier of the person's own: in the background, and the word list where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from npllm.config import FeedbackConfig
from npllm.feedback.emotional import interpret
from npllm.forgetting.looking import as_text
from npllm.memory.store import Store
from npllm.models.classifier import Classifier
from npllm.types import Feedback, ModelError, NpllmError, new_id
from tests.fixtures_memory import database_url, make_suggestion, postgres, store, store_config  # noqa: F401
from tests.lsp_session import session, settings, until
from tests.tiny import SAID, make_classifier

CODE = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return "


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier"))


async def until_reread(store: Store, id: str):
    for _ in range(300):
        found = ()
        with contextlib.suppress(NpllmError):  # the suggestion is on its way, too
            found = (await store.looking.case(id)).feedback
        if found and found[-1].read_by != "lexicon":
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("the classifier's reading has not reached the database")


def test_it_gives_each_label_s_probability(classifier):
    loaded = Classifier.load(str(classifier))
    assert loaded.labels == tuple(SAID)
    for name, texts in SAID.items():
        for text in texts:
            found = loaded.probabilities(text)
            assert max(found, key=found.__getitem__) == name
            assert sum(found.values()) == pytest.approx(1.0)
    assert loaded.probabilities("word " * 5000), "a long text is cut"


def test_what_is_no_text_classifier_is_refused(tiny_model, classifier, tmp_path):
    with pytest.raises(ModelError, match="is no text classifier \\(LlamaForCausalLM\\)"):
        Classifier.load(str(tiny_model))
    with pytest.raises(ModelError, match="There is no model folder"):
        Classifier.load(str(tmp_path / "absent"))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((classifier / "config.json").read_text())
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="pickle"):
        Classifier.load(str(pickled))


@pytest.mark.parametrize("mood", ["negative", "positive"])
async def test_a_comment_that_the_word_list_does_not_know_is_read_in_the_background(
    home, tmp_path, practised_model, database_url, store, classifier, mood
):
    comment = SAID[mood][1]  # in Portuguese
    listed = interpret("", comment)
    feedback = {"classifier": str(classifier)}
    async with session(
        home, tmp_path / "w", settings(practised_model, database={"url": database_url}, feedback=feedback)
    ) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        await editor.accept(uri, offered)
        answer = await editor.execute("npllm.feedback", {"comment": comment})
        assert answer["reward"] == pytest.approx(listed.reward), "nobody waits for the classifier"
        id = answer["suggestionId"]
        (said,) = await until_reread(store, id)
        assert said.comment == comment and said.read_by == "classifier"
        assert (said.reward > 0.5) if mood == "positive" else (said.reward < -0.5)
        await editor.execute("npllm.evaluation.settle")
    case = await store.looking.case(id)
    assert case.experience.emotional == pytest.approx(said.reward)
    assert "(read by a classifier)" in as_text(case, FeedbackConfig())


async def test_what_says_nothing_in_particular_stays_as_the_word_list_read_it(
    home, tmp_path, practised_model, database_url, store, classifier
):
    feedback = {"classifier": str(classifier)}
    async with session(
        home, tmp_path / "w", settings(practised_model, database={"url": database_url}, feedback=feedback)
    ) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        await editor.complete(uri, len(CODE))
        first = await editor.execute("npllm.feedback", {"emoji": "👍", "comment": SAID["neutral"][0]})
        await editor.execute("npllm.feedback", {"comment": SAID["negative"][0]})  # read after the first one
        found = await until_reread(store, first["suggestionId"])
    assert [one.read_by for one in found] == ["lexicon", "classifier"]
    assert found[0].reward == pytest.approx(first["reward"])


@pytest.mark.parametrize("broken", ["absent", "labels"])
async def test_without_it_the_word_list_reads_comments_and_the_person_is_told(
    home, tmp_path, practised_model, database_url, store, classifier, broken
):
    folder = tmp_path / "absent"
    if broken == "labels":
        folder = make_classifier(tmp_path / "odd", steps=1, labels=("LABEL_0", "LABEL_1", "LABEL_2"))
        assert "LABEL_0" in json.loads((folder / "config.json").read_text())["id2label"].values()
    given = settings(practised_model, database={"url": database_url}, feedback={"classifier": str(folder)})
    async with session(home, tmp_path / "w", given, ready=False) as editor:
        await until(editor, lambda status: bool(status.base_fingerprint))
        uri = editor.open("shapes.py", CODE, "python")
        assert await editor.complete(uri, len(CODE)) is not None
        answer = await editor.execute("npllm.feedback", {"comment": "wrong again"})
        assert answer["recorded"] and answer["reward"] < -0.5
        told = await until(editor, lambda status: any("classifier" in one for one in status.problems))
        (problem,) = [one for one in told.problems if "classifier" in one]
        assert problem.startswith("Comments are read by the word list alone: feedback.classifier cannot be used")
        assert ("there is no folder" in problem) if broken == "absent" else ("LABEL_0" in problem)
        editor.configure({**given, "feedback": {}})
        await until(editor, lambda status: not any("classifier" in one for one in status.problems))


async def test_either_reading_may_arrive_first(store):
    made = make_suggestion()
    listed = Feedback(new_id(), made.id, "", "que chatice", 0.0, 0.0, 0.0, 0.0, datetime.now(UTC))
    better = dataclasses.replace(listed, frustration=0.8, reward=-0.8, read_by="classifier")
    for order in ([listed, better], [better, listed]):
        id = new_id()
        await store.write([made, *(dataclasses.replace(one, id=id) for one in order)])
        found = [one for one in (await store.looking.case(str(made.id))).feedback if one.id == id]
        assert [(one.read_by, one.reward) for one in found] == [("classifier", -0.8)]


async def test_what_only_the_word_list_took_for_anger_is_offered_again(
    home, tmp_path, practised_model, database_url, store, classifier
):
    comment = f"useless {SAID['positive'][1]}"
    config = settings(practised_model, database={"url": database_url}, feedback={"classifier": str(classifier)})
    assert interpret("", comment).frustration >= FeedbackConfig().avoid_frustration
    async with session(home, tmp_path / "w", config) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        said = await editor.execute("npllm.feedback", {"comment": comment})
        await until_reread(store, said["suggestionId"])
        again = await editor.complete(uri, len(CODE))
        assert again is not None and again.text == offered.text
