"""Secrets are found, whatever kind they are, and what is none stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from npllm.assist.context import PREFIX_CHARS, SUFFIX_CHARS, window
from npllm.assist.filters import Avoided
from npllm.memory import redaction, second_pass
from npllm.memory.journal import Journal, read_batch
from npllm.memory.redaction import Redactor, redact, redact_parts
from npllm.types import Experience, Outcome, Suggestion
from tests.fixtures_memory import make_experience, make_outcome, make_place, make_suggestion
from tests.fixtures_secrets import Planted, plant

SEEDS = range(5)
BY_PATTERNS_TOO = "azure sas, redis url without a user, telegram, digitalocean, shopify, yaml password, curl".split(
    ", "
)


@pytest.mark.parametrize("index", range(len(plant())), ids=lambda index: plant()[index].name)
def test_a_secret_of_each_kind_is_replaced_and_the_text_around_it_stays(index: int) -> None:
    for seed in SEEDS:
        secret = plant(seed)[index]
        text = f"import os\n\n{secret.text}\nprint(1)\n"
        found = redact(text, secret.language)
        assert secret.core not in found
        assert found.startswith("import os\n") and found.endswith("\nprint(1)\n")
        assert "<secret:" in found
        assert redact(found, secret.language) == found, "twice is once"


def test_there_are_more_than_forty_kinds() -> None:
    assert len({secret.name for secret in plant()}) >= 40


@pytest.mark.parametrize("name", BY_PATTERNS_TOO)
def test_what_detect_secrets_misses_our_own_patterns_find(name: str) -> None:
    secret = next(one for one in plant(3) if one.name == name)
    assert secret.core not in redact(secret.text, secret.language, second_pass=False)


def test_without_detect_secrets_the_own_patterns_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("detect_secrets")

    monkeypatch.setattr(second_pass, "_load_plugins", broken)
    second_pass._plugins.cache_clear()
    second_pass._line.cache_clear()
    try:
        secret = next(one for one in plant() if one.name == "github classic")
        assert secret.core not in redact(secret.text)
    finally:
        second_pass._plugins.cache_clear()
        second_pass._line.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        "password = get_password()",
        "password: str",
        "def login(user: str, password: str) -> None: ...",
        'password = os.environ["PASSWORD"]',
        'PASSWORD = "password"',
        'form.label("password", "new_password")',
        'token = "<eos>"',
        "max_tokens = 512",
        "key = sorted(items, key=lambda item: item.created_at)",
        'tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen2.5-Coder-1.5B")',
        'url = "https://example.com:8080/a@b"',
        "return self.token_transformer or EsmFold2DiffusionTransformer",
        'parser.add_argument("--password", help="asked for when it is missing")',
        "secret = settings.secrets[name]",
        "id = '01890a5d-ac96-774b-bcce-b302099a8057'",
    ],
)
def test_ordinary_code_stays_as_it_is(text: str) -> None:
    assert redact(text, "python") == text


def test_our_own_source_is_hardly_touched() -> None:
    root = Path(__file__).parents[2]
    listed = subprocess.run(["git", "ls-files", "server"], cwd=root, capture_output=True, text=True, check=True)
    hits = []
    for name in listed.stdout.split():
        if name.endswith(".py") and "memory/secret_" not in name and (root / name).exists():  # those speak of them
            hits += [(name, one) for one in redaction.find((root / name).read_text(encoding="utf-8"), "python")]
    assert hits == []


def test_references_in_configuration_stay() -> None:
    text = "db:\n  password: ${DB_PASSWORD}\n  secret: '{{ vault_secret }}'\n  pwd: null\n  password_file: /run/x\n"
    assert redact(text, "yaml").splitlines()[:4] == text.splitlines()[:4]


def test_a_secret_across_the_cursor_leaves_no_half() -> None:
    for secret in plant(1):
        middle = len(secret.before) + len(secret.value) // 2
        for cut in (middle, len(secret.before), len(secret.before) + len(secret.value)):
            parts = (f"x = 1\n{secret.text[:cut]}", secret.text[cut:], "\ny = 2\n")
            found = redact_parts(parts, secret.language)
            assert len(found) == 3 and found[0].startswith("x = 1\n") and found[2].endswith("y = 2\n")
            whole = "".join(found)
            half = len(secret.core) // 2
            assert secret.core[: half - 1] not in whole or len(secret.core) < 8, secret.name
            assert secret.core[half + 1 :] not in whole or len(secret.core) < 8, secret.name


def test_an_outcome_is_read_with_what_stood_around_it() -> None:
    redactor = Redactor()
    suggestion = make_suggestion(prefix='db = connect(password="', text='changeme1")', suffix="\n")
    redactor.record(suggestion)
    outcome = redactor.record(make_outcome(suggestion, final_text='tulip77!")'))
    assert isinstance(outcome, Outcome)
    assert outcome.final_text == '<secret:password>")' and "changeme1" not in outcome.suggested


def test_records_keep_everything_else() -> None:
    place = make_place(language="python", offset=40)
    suggestion = make_suggestion(place=place, prefix="def add(values):\n    ", text="return total", suffix="\n")
    redactor = Redactor()
    assert redactor.record(suggestion) == suggestion
    experience = make_experience(prefix='API_KEY = "', final_text='sk_live_4eC39HqLyjWDarjtT1zdp7dc"\n', suggested='"')
    found = redactor.record(experience)
    assert isinstance(found, Experience)
    assert found.final_text == '<secret:stripe-key>"\n' and found.id == experience.id and found.suggested == '"'


def test_a_record_that_cannot_be_looked_through_is_kept_without_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(redaction, "_in_parts", breaks)
    suggestion = make_suggestion(text="return 1")
    found = Redactor().record(suggestion)
    assert isinstance(found, Suggestion) and (found.id, found.text, found.prefix) == (suggestion.id, "", "")


def test_the_journal_holds_no_secret_and_every_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    secrets = plant(2)
    journal.append([_suggestion(secret) for secret in secrets])
    assert journal.path is not None
    written = journal.path.read_bytes().decode("ascii")
    assert [secret.name for secret in secrets if secret.core in written] == []
    batch = read_batch(journal.path, 1000, complete=False)
    assert batch is not None and len(batch.records) == len(secrets)


def _suggestion(secret: Planted) -> Suggestion:
    return make_suggestion(place=make_place(language=secret.language), prefix=secret.text + "\nx = ", text="1")


def test_what_is_read_around_the_cursor_begins_and_ends_with_a_line() -> None:
    text = "".join(f"line {number} of a long document\n" for number in range(1000))
    offset = text.index("of a long", len(text) // 2)
    prefix, suffix = window(text, offset)
    assert prefix + suffix in text
    assert prefix.startswith("line ") and suffix.endswith("document\n")
    assert PREFIX_CHARS - 40 < len(prefix) <= PREFIX_CHARS and SUFFIX_CHARS - 40 < len(suffix) <= SUFFIX_CHARS
    one = "x" * 20_000
    assert window(one, 10_000) == ("x" * PREFIX_CHARS, "x" * SUFFIX_CHARS)
    assert window("short", 2) == ("sh", "ort")


def test_a_suggestion_with_a_mark_is_not_offered() -> None:
    avoided = Avoided()
    assert avoided.covers("python", '<secret:aws-key>"')
    assert not avoided.covers("python", "return total")
