"""Settings: one TOML file, environment variables over it, the editor's settings over both.

The file is `config.toml` in the data folder (`NPLLM_HOME`, else the platform's user data folder).
A wrong key or value raises `ConfigError` naming the file, the key, what was expected and what was found.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from npllm import ignoring, schedule
from npllm.types import ConfigError


@dataclass(frozen=True, slots=True)
class BaseConfig:
    model: str = "starter"  # "starter", a folder, or a Hugging Face id
    device: str = "auto"  # "auto" | "cpu" | "cuda"; auto: a GPU for sleeps, and for answers of a large base
    threads: int = 0  # torch threads; 0 = half of the cores, at least 1
    context_tokens: int = 1024  # prompt and answer together; cut to what the base allows


@dataclass(frozen=True, slots=True)
class CompletionConfig:
    enabled: bool = True  # suggest at all
    max_new_tokens: int = 64  # the longest suggestion
    multiline: bool = True  # False = never more than the rest of a line
    min_mean_logprob: float = -1.6  # nats per token; below it nothing is shown
    timeout_ms: int = 4000  # then a request is given up


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    enabled: bool = True  # put what is remembered into the prompt
    record: bool = True  # write suggestions, outcomes and feedback down
    snippets: int = 3  # remembered pieces in a prompt, at most
    token_budget: int = 256  # prompt tokens that they may take
    min_similarity: float = 0.35  # cosine; less alike is left out
    wait_ms: int = 15  # how long a request waits for retrieval
    continuations: bool = True  # what followed the same tokens in the project has its say about each token
    working: bool = False  # what is on the desk, too: edits in other open documents, what is imported from them
    index: str = "off"  # search the project's code: "off" | "identifiers" | "identifiers+meaning"
    embedder: str = ""  # a folder or Hugging Face id of 384 numbers; "" = the one that npllm brings
    threads: int = 1  # embedder threads
    keep_suggestions: int = 500_000  # the newest, with what became of them; 0 = all
    keep_experiences: int = 500_000  # the newest, what versions are judged by and what is avoided; 0 = all
    keep_chunks: int = 200_000  # of indexed code, of the projects read last; 0 = all
    ignore: tuple[str, ...] = ()  # files that are neither read nor suggested in, in gitignore's syntax


@dataclass(frozen=True, slots=True)
class FeedbackConfig:
    implicit_weight: float = 0.7  # of what the edits say
    emotional_weight: float = 0.3  # of what the person says
    min_visible_ms: int = 750  # shorter on screen counts as never seen
    settle_s: float = 30.0  # then a rejection is settled and an accepted text first looked at
    keep_above: float = 0.7  # relevance
    discard_below: float = 0.3  # relevance; between the two: kept at low priority
    avoid_frustration: float = 0.7  # from here on a suggestion is never made again
    code_actions: bool = (
        True  # offer to say how a suggestion was, among the code actions that are asked for where it stands
    )
    hover: bool = True  # and in the hover on what it wrote, where the editor says that links there can run commands
    code_lens: bool = False  # and above the line of what was taken last; off, since the lines below move
    classifier: str = (
        ""  # that reads comments: a folder or a Hugging Face id of a text classifier; "" = the word list alone
    )
    avoid_refused: bool = True  # what was refused is not offered again behind the same two lines


@dataclass(frozen=True, slots=True)
class PacingConfig:
    enabled: bool = True  # hold back what is unlikely to be taken, be quiet after refusals, wait for the next key
    threshold: float = 0.25  # chance of being taken below which a suggestion is not shown
    min_outcomes: int = 50  # of suggestions that were seen, before a chance is estimated
    audit_share: float = 0.05  # of those that would be held back, shown all the same
    quiet_after: int = 5  # refusals in a row; 0 = never quiet
    quiet_s: float = 60.0  # how long, the first time; twice as long with each further refusal, up to 15 minutes
    debounce_ms: int = 100  # the longest that a request waits for the next key while the person types; 0 = never
    comments: bool = True  # suggest in comments
    languages_off: str = ""  # languages without suggestions, e.g. "markdown, plaintext"


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    enabled: bool = True  # let adapters act
    strength: float = 1.0  # 0 = the bare base, 1 = as trained


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    enabled: bool = False  # let satisfaction steer the attention to what is remembered, and learn how in sleep
    learning_rate: float = 0.05  # of the gains
    max_gain: float = 2.0  # a gain is never further from 0
    plastic: bool = False  # learn plastic gains (Backpropamine), which depend on the day's rewards


@dataclass(frozen=True, slots=True)
class ModulatorConfig:
    policy: str = "rules"  # "rules": the most specific adapter acts; "learned": what sleep makes of it
    exploration: float = 0.1  # of a learned policy's choices, made evenly; 0 = none, and nothing new is learned
    sticky_s: float = 120.0  # how long a choice is kept while the person stays about there
    min_decisions: int = 200  # with an outcome, before a policy is learned


@dataclass(frozen=True, slots=True)
class SleepConfig:
    enabled: bool = True  # fall asleep by itself
    idle_s: float = 600.0  # seconds without activity in any window
    min_experiences: int = 20  # new ones since the last sleep
    max_minutes: float = 20.0  # bounds the training; judging has no deadline, see docs/settings.md
    threads: int = 0  # 0 = all cores but one, at least 1
    nice: int = 10  # CPU priority of the sleeping child, 0 to 19 (lowest)
    min_battery: int = 50  # percent; on battery below it nobody sleeps. 0 = whatever the battery says
    max_load: float = 0.5  # others' share of all cores over the last minute; above it nobody sleeps. 0 = never mind
    schedule: str = ""  # local times, e.g. "22:00-06:30, 12:00-13:00"; "" = any time
    max_memory_mb: int = 0  # that the child may take for itself; 0 = half of the machine's
    layers: str = "auto"  # what is adapted: "output" layer, "all" others; auto = output for a base below 100M
    rank: int = 0  # of the LoRA matrices; 0 = 64 on the output layer, 16 on the others
    alpha: int = 0  # LoRA scale: alpha / rank; 0 = the rank on the output layer, twice the rank on the others
    learning_rate: float = 1e-3  # at its highest
    batch_tokens: int = 4096  # of one optimizer step
    max_tokens: int = 1024  # one example: prompt and answer
    epochs: int = 1  # passes over what is learned
    families: str = "language"  # contexts with adapters of their own: "language", "language+project", "all"
    new_share: float = 0.7  # of the experiences; the rest is replayed from earlier days
    project_share: float = 0.7  # of what is learned, passages of the project's own files; 0 = experiences alone
    written_files: bool = False  # passages of files that experiences lie in, too, where other files do not suffice
    general_share: float = 0.15  # of what is read, passages of general code, so that it is not displaced; 0 = none
    kl_weight: float = 1.0  # of saying on these what the base says; 0 = they are learned like everything else
    mas_lambda: float = 0.0  # weight of the penalty on moving what mattered in earlier sleeps; 0 = none
    dpo_weight: float = 0.0  # of preferring what the person wrote to what was suggested instead; 0 = none
    kto_weight: float = 0.1  # of accepted suggestions, and of refused and avoided ones without such a pair; 0 = none
    preference_beta: float = 0.1  # how far preferences may lead away from the version in use; smaller = farther
    replay: str = "prioritised"  # how the old are drawn: "prioritised" | "uniform" | "off" = none
    holdout_share: float = 0.2  # of the new, kept apart for the gate
    min_holdout: int = 30  # held-out texts; with less, nothing is learned yet
    max_holdout: int = 100  # held-out texts of a sleep, so that judging ends
    max_forgetting: float = 0.02  # that older slices may become less likely, of their nats, counted from their best
    max_general_loss: float = 0.01  # that general code may become less likely, of its nats, counted from its best
    keep_rejected: int = 3  # rejected adapters of a context, and cerebellums, whose weights are kept
    checkpoint_s: float = 20.0  # seconds between checkpoints
    seed: int = 0  # of what is held out and in which order is learned


@dataclass(frozen=True, slots=True)
class CerebellumConfig:
    enabled: bool = True  # have a cerebellum, where its model is there
    model: str = "starter"  # "starter" (the shipped base's small sister), a folder, or a Hugging Face id
    reflex: bool = True  # let it answer alone where it is sure
    blend: bool = True  # mix its prediction into the base's, where it has learned and as far as a sleep finds that good
    draft: bool = True  # let it draft for the base, where that is measured to pay
    plastic: bool = False  # learn a plastic layer (Backpropamine); off, since it was measured to harm
    precision: float = 0.7  # share of the reflexes that shall be exactly what the person writes
    min_confidence: float = 0.0  # of a reflex; 0 = as calibrated in sleep, in the projects that it has learned of
    context_tokens: int = 512  # prompt and answer together, of a reflex and in learning
    learning_rate: float = 1e-3  # at its highest
    batch_tokens: int = 2048  # of one optimizer step
    epochs: int = 2  # passes over what is learned
    time_share: float = 0.25  # of sleep.max_minutes; three fifths of it are its training
    mas_lambda: float = 0.0  # how much Memory Aware Synapses hold; 0 = off


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    url: str = ""  # "" = the embedded PostgreSQL
    pool_size: int = 4  # connections
    connect_timeout_s: float = 10.0  # then it counts as unreachable


@dataclass(frozen=True, slots=True)
class JournalConfig:
    flush_ms: int = 500  # how often the pump carries records to PostgreSQL
    batch: int = 200  # records at a time
    max_mb: int = 512  # that may wait for the database; then recording stops, and says so. 0 = no bound


@dataclass(frozen=True, slots=True)
class Config:
    home: Path
    base: BaseConfig = field(default_factory=BaseConfig)
    completion: CompletionConfig = field(default_factory=CompletionConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    pacing: PacingConfig = field(default_factory=PacingConfig)
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    modulator: ModulatorConfig = field(default_factory=ModulatorConfig)
    sleep: SleepConfig = field(default_factory=SleepConfig)
    cerebellum: CerebellumConfig = field(default_factory=CerebellumConfig)
    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    journal: JournalConfig = field(default_factory=JournalConfig)

    @property
    def adapters_dir(self) -> Path:
        return self.home / "adapters"

    @property
    def attention_dir(self) -> Path:
        return self.home / "attention"

    @property
    def cerebellum_dir(self) -> Path:
        return self.home / "cerebellum"

    @property
    def policies_dir(self) -> Path:
        return self.home / "policies"

    @property
    def journal_dir(self) -> Path:
        return self.home / "journal"

    @property
    def checkpoints_dir(self) -> Path:
        return self.home / "checkpoints"


SECTIONS: dict[str, type[Any]] = {
    "base": BaseConfig,
    "completion": CompletionConfig,
    "memory": MemoryConfig,
    "feedback": FeedbackConfig,
    "pacing": PacingConfig,
    "adapters": AdapterConfig,
    "attention": AttentionConfig,
    "modulator": ModulatorConfig,
    "sleep": SleepConfig,
    "cerebellum": CerebellumConfig,
    "database": DatabaseConfig,
    "journal": JournalConfig,
}

# What may be chosen from, by "section.key"; anything else is refused.
CHOICES: dict[str, tuple[str, ...]] = {
    "memory.index": ("off", "identifiers", "identifiers+meaning"),
    "modulator.policy": ("rules", "learned"),
    "sleep.families": ("language", "language+project", "all"),
    "sleep.layers": ("auto", "output", "all"),
    "sleep.replay": ("prioritised", "uniform", "off"),
}

# What else must hold of a text or a list, by "section.key"; raises ValueError.
FORMS: dict[str, Callable[[Any], object]] = {
    "memory.ignore": ignoring.check,
    "sleep.schedule": schedule.windows,
}

# Inclusive bounds, by "section.key"; a value outside is refused.
BOUNDS: dict[str, tuple[float, float]] = {
    "base.threads": (0, 256),
    "base.context_tokens": (64, 131072),
    "completion.max_new_tokens": (1, 1024),
    "completion.timeout_ms": (1, 120000),
    "memory.snippets": (0, 20),
    "memory.token_budget": (0, 65536),
    "memory.min_similarity": (-1, 1),
    "memory.wait_ms": (0, 60000),
    "memory.threads": (1, 64),
    "memory.keep_suggestions": (0, 1000000000),
    "memory.keep_experiences": (0, 1000000000),
    "memory.keep_chunks": (0, 1000000000),
    "feedback.implicit_weight": (0, 1),
    "feedback.emotional_weight": (0, 1),
    "feedback.min_visible_ms": (0, 60000),
    "feedback.settle_s": (0, 86400),
    "feedback.keep_above": (0, 1),
    "feedback.discard_below": (0, 1),
    "feedback.avoid_frustration": (0, 1),
    "pacing.threshold": (0, 1),
    "pacing.min_outcomes": (1, 1000000),
    "pacing.audit_share": (0, 1),
    "pacing.quiet_after": (0, 1000),
    "pacing.quiet_s": (0, 3600),
    "pacing.debounce_ms": (0, 2000),
    "adapters.strength": (0, 4),
    "attention.learning_rate": (0, 1),
    "attention.max_gain": (0, 10),
    "modulator.exploration": (0, 0.5),
    "modulator.sticky_s": (0, 86400),
    "modulator.min_decisions": (20, 1000000),
    "sleep.idle_s": (0.1, 604800),
    "sleep.min_experiences": (1, 1000000),
    "sleep.max_minutes": (0.01, 1440),
    "sleep.threads": (0, 256),
    "sleep.nice": (0, 19),
    "sleep.min_battery": (0, 100),
    "sleep.max_load": (0, 1),
    "sleep.max_memory_mb": (0, 16777216),
    "sleep.rank": (0, 256),
    "sleep.alpha": (0, 1024),
    "sleep.learning_rate": (0, 1),
    "sleep.batch_tokens": (64, 1048576),
    "sleep.max_tokens": (64, 131072),
    "sleep.epochs": (1, 1000),
    "sleep.new_share": (0, 1),
    "sleep.project_share": (0, 0.95),
    "sleep.general_share": (0, 0.95),
    "sleep.kl_weight": (0, 1000),
    "sleep.mas_lambda": (0, 1000000),
    "sleep.dpo_weight": (0, 1000),
    "sleep.kto_weight": (0, 1000),
    "sleep.preference_beta": (0.001, 100),
    "sleep.holdout_share": (0, 0.9),
    "sleep.min_holdout": (1, 100000),
    "sleep.max_holdout": (1, 100000),
    "sleep.max_forgetting": (0, 1),
    "sleep.max_general_loss": (0, 1),
    "sleep.keep_rejected": (0, 1000),
    "sleep.checkpoint_s": (0.1, 3600),
    "cerebellum.precision": (0.05, 0.999),
    "cerebellum.min_confidence": (0, 1),
    "cerebellum.context_tokens": (64, 131072),
    "cerebellum.learning_rate": (0, 1),
    "cerebellum.batch_tokens": (64, 1048576),
    "cerebellum.epochs": (1, 1000),
    "cerebellum.time_share": (0.01, 0.9),
    "cerebellum.mas_lambda": (0, 1e9),
    "database.pool_size": (1, 100),
    "database.connect_timeout_s": (0.1, 600),
    "journal.flush_ms": (1, 60000),
    "journal.batch": (1, 10000),
    "journal.max_mb": (0, 1048576),
}


def default_home() -> Path:
    """The data folder: `NPLLM_HOME`, else the platform's user data folder."""
    value = os.environ.get("NPLLM_HOME")
    return Path(value).expanduser() if value else Path(platformdirs.user_data_dir("npllm", appauthor=False))


def load(home: Path | None = None) -> Config:
    """Read `config.toml` under `home` (absent = all defaults) and the environment.

    Raises:
        ConfigError: the file is not TOML, or a key or value in it is wrong.
    """
    home = (home or default_home()).absolute()
    file = home / "config.toml"
    config = merge(Config(home=home), _read(file), source=str(file))
    for source, data in _environment():
        config = merge(config, data, source=source)
    return config


def load_leniently(home: Path | None = None) -> tuple[Config, list[str]]:
    """What `load` reads, without the wrong keys, and one sentence for each of those.

    For a server that must come up. If the file cannot be read at all, nobody knows what the person forbade: then
    nothing is recorded and no sleep begins by itself.
    """
    home = (home or default_home()).absolute()
    file = home / "config.toml"
    problems = []
    try:
        data = _read(file)
    except ConfigError as error:
        problems.append(f"{error} Until then nothing is recorded, and npllm does not fall asleep.")
        data = {"memory": {"record": False}, "sleep": {"enabled": False}}
    config, wrong = merge_leniently(Config(home=home), data, source=str(file))
    problems += wrong
    for source, data in _environment():
        config, wrong = merge_leniently(config, data, source=source)
        problems += wrong
    return config, problems


def _read(file: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. Mend or remove the file.") from error


def _environment() -> list[tuple[str, Mapping[str, Any]]]:
    """The variables that are set, and the settings that they mean."""
    meant = {"NPLLM_DATABASE_URL": ("database", "url"), "NPLLM_BASE_MODEL": ("base", "model")}
    return [(name, {section: {key: os.environ[name]}}) for name, (section, key) in meant.items() if name in os.environ]


def merge(config: Config, data: Mapping[str, Any], *, source: str) -> Config:
    """`config` with the sections and keys in `data` replaced.

    Raises:
        ConfigError: an unknown section or key, a wrong type, or a value out of bounds.
    """
    merged, problems = merge_leniently(config, data, source=source)
    if problems:
        raise ConfigError(problems[0])
    return merged


def merge_leniently(config: Config, data: Mapping[str, Any], *, source: str) -> tuple[Config, list[str]]:
    """`config` with the valid keys in `data` replaced, and one sentence for each of the others.

    A `memory.record` that is no boolean counts as false, and so does any beside a wrong `memory.ignore`: whoever wrote
    one had a wish about being recorded.
    """
    problems: list[str] = []
    changed: dict[str, Any] = {}
    for section, values in data.items():
        if section not in SECTIONS:
            problems.append(f"{source}: unknown section [{section}]. Known: {', '.join(SECTIONS)}.")
            continue
        checked: dict[str, Any] = {}
        in_doubt = False
        if not isinstance(values, Mapping):
            problems.append(f"{source}: {section} must be a table of settings, not {values!r}.")
            values = {}
        for key, value in values.items():
            try:
                checked[key] = _checked(section, key, value)
            except ValueError as error:
                problems.append(f"{source}: {error}")
                in_doubt |= (section, key) in (("memory", "record"), ("memory", "ignore"))
        if in_doubt:
            checked["record"] = False
        changed[section] = dataclasses.replace(getattr(config, section), **checked)
    merged = dataclasses.replace(config, **changed)
    if merged.feedback.discard_below > merged.feedback.keep_above:
        problems.append(f"{source}: feedback.discard_below must not be above feedback.keep_above.")
        before = config.feedback
        feedback = dataclasses.replace(
            merged.feedback, discard_below=before.discard_below, keep_above=before.keep_above
        )
        merged = dataclasses.replace(merged, feedback=feedback)
    return merged, problems


def _checked(section: str, key: str, value: Any) -> Any:
    """The value as its type says (an int becomes a float where one is wanted); ValueError says what is wrong."""
    name = f"{section}.{key}"
    hints = typing.get_type_hints(SECTIONS[section])
    if key not in hints:
        raise ValueError(f"unknown setting {name}. Known: {', '.join(hints)}.")
    expected = hints[key]
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if expected == tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{name} must be a list of texts, not {value!r}.")
        value, expected = tuple(value), tuple
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ValueError(f"{name} must be {expected.__name__}, not {type(value).__name__} ({value!r}).")
    if name in CHOICES and value not in CHOICES[name]:
        raise ValueError(f"{name} must be one of {', '.join(CHOICES[name])}, not {value!r}.")
    if name in FORMS:
        try:
            FORMS[name](value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if name in BOUNDS:
        low, high = BOUNDS[name]
        if not low <= value <= high:
            raise ValueError(f"{name} must be between {low} and {high}, not {value!r}.")
    return value
