"""The modulator's part of a sleep: its decisions, PPO on those in some documents, the gate on the others', publication.

Does nothing unless `modulator.policy = "learned"`. It takes seconds, so it keeps no checkpoint: a sleep that is
interrupted does it again. A policy is first a whole folder, then a row with its announcement, as adapters are.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from npllm.config import Config, ModulatorConfig
from npllm.memory.policies import Decided
from npllm.memory.store import Store
from npllm.models.manifest import TEMPORARY, Manifest, read_manifest, sha256_file, whole_folder, write_manifest
from npllm.types import ModelError, PolicyVersion, VersionState, new_id

if TYPE_CHECKING:
    from npllm.models.policy import Policy

log = logging.getLogger(__name__)

LEAST_SHARE = 0.25  # of `modulator.min_decisions`, on each side


async def learn(store: Store, config: Config, base_fingerprint: str, consolidation: UUID, stop: threading.Event) -> str:
    """Learn a policy from what the modulator decided by chance; a sentence for the report, "" where there is none.

    Raises:
        Interrupted, StoreError
        ModelError: the disk refuses.
    """
    if config.modulator.policy != "learned":
        return ""
    for leftover in config.policies_dir.glob(TEMPORARY + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    known = await store.policies.versions(base_fingerprint)
    if any(version.consolidation_id == consolidation for version in known):
        return ""
    decisions = await store.policies.decided(base_fingerprint)
    if reason := waits_for(decisions, known, config.modulator):
        return reason
    made = await asyncio.to_thread(_made, config, decisions, base_fingerprint, consolidation, known, stop)
    await store.policies.insert(made)
    gain, low, high = (made.metrics[name] for name in ("gain", "gain_low", "gain_high"))
    return (
        f"modulator: {made.state.value}. Learned from {len(decisions)} decisions; mean reward (doubly robust estimate) "
        f"{made.metrics['before']:.3f} to {made.metrics['after']:.3f} ({gain:+.3f}, 90 % interval {low:+.3f} to "
        f"{high:+.3f}). {made.reason}"
    )


def waits_for(decisions: Sequence[Decided], known: Sequence[PolicyVersion], settings: ModulatorConfig) -> str:
    """What keeps a policy from being learned yet, in a sentence; "" where nothing does.

    It learns from all decisions each time, and each time the same half judges it: one more try takes as many new
    decisions as the first one took, since each has its chance to pass by luck.

    Args:
        known: policies for the base, newest first.
    """
    wanted = settings.min_decisions
    if len(decisions) < wanted:
        return f"modulator: {len(decisions)} decisions with an outcome; {wanted} are needed, so the policy waits."
    last = next((version for version in known if version.state is not VersionState.FORGOTTEN), None)
    if last is not None:
        new = sum(one.decision > last.id for one in decisions)  # ids are ordered by time
        if new < wanted:
            return f"modulator: {new} new decisions with an outcome; {wanted} are needed, so the policy waits."
    least = max(1, math.ceil(LEAST_SHARE * wanted))
    for part, what in zip(halves(decisions), ("learn from", "judge by"), strict=True):
        if len(part) < least:
            return (
                f"modulator: {len(part)} of {len(decisions)} decisions are in documents to {what}; {least} are needed, "
                "so the policy waits for other documents."
            )
    return ""


def halves(decisions: Sequence[Decided]) -> tuple[list[Decided], list[Decided]]:
    """To learn from and to judge by: by a hash of the document's URI, so that a document is always on the same side.

    A policy begins at its parent; what judges it, none of its ancestors has learned. With few documents the sides may
    be of very different size, or one of them empty.
    """
    sides: tuple[list[Decided], list[Decided]] = [], []
    for one in decisions:
        sides[hashlib.sha256(one.uri.encode()).digest()[0] % 2].append(one)
    return sides


def _made(
    config: Config,
    decisions: Sequence[Decided],
    base_fingerprint: str,
    consolidation: UUID,
    known: Sequence[PolicyVersion],
    stop: threading.Event,
) -> PolicyVersion:
    """Learn, judge and write a version; synchronous."""
    from npllm.models.base import resolve
    from npllm.models.folder import read_config
    from npllm.models.policy import Policy, load_policy
    from npllm.sleep import policy_gate, ppo

    learned_from, judged_by = halves(decisions)
    hidden = int(read_config(resolve(config.base.model)).hidden_size)
    start = in_use = Policy(hidden)
    parent = next((version for version in known if version.state is VersionState.PUBLISHED), None)
    if parent is not None:
        try:
            start = in_use = load_policy(config.home / parent.folder, parent.id, hidden, base_fingerprint)
            if _learned(config.home, parent.id, known) & {str(id) for one in judged_by for id in one.suggestions}:
                raise ModelError("it, or an ancestor, learned from what is to judge.")
        except ModelError as error:
            log.warning("the policy in use cannot be learned on from: %s", error)
            start, parent = Policy(hidden), None
    exploration, seed = config.modulator.exploration, config.sleep.seed
    learned = ppo.improve(start, ppo.batch(learned_from), exploration=exploration, seed=seed, stop=stop)
    judgement = policy_gate.judge(learned, in_use, ppo.batch(judged_by), exploration=exploration, seed=seed)
    metrics = {name: float(value) for name, value in asdict(judgement).items() if name not in ("passed", "reason")}
    metrics["decisions"] = float(len(learned_from) + len(judged_by))
    version = new_id()
    folder = config.policies_dir / str(version)
    data = {
        name: [str(id) for one in part for id in one.suggestions]
        for name, part in (("learned", learned_from), ("held_out", judged_by))
    }
    digest = _write(learned, folder, version, base_fingerprint, consolidation, parent, metrics, data)
    return PolicyVersion(
        id=version,
        base_fingerprint=base_fingerprint,
        parent=parent.id if parent else None,
        consolidation_id=consolidation,
        folder=folder.relative_to(config.home).as_posix(),
        sha256=digest,
        state=VersionState.PUBLISHED if judgement.passed else VersionState.REJECTED,
        reason=judgement.reason,
        metrics=metrics,
        created_at=datetime.now(UTC),
    )


def _learned(home: Path, version: UUID, known: Sequence[PolicyVersion]) -> set[str]:
    """The suggestions that a version and its ancestors learned from. Raises ModelError: that cannot be told."""
    by_id = {one.id: one for one in known}
    found: set[str] = set()
    line: UUID | None = version
    while line is not None:
        one = by_id.get(line)
        learned = read_manifest(home / one.folder).data.get("learned") if one else None
        if one is None or learned is None:
            raise ModelError(f"what {line} learned from is not known.")
        found.update(learned)
        line = one.parent
    return found


def _write(
    policy: Policy,
    folder: Path,
    version: UUID,
    base_fingerprint: str,
    consolidation: UUID,
    parent: PolicyVersion | None,
    metrics: dict[str, float],
    data: dict[str, list[str]],
) -> str:
    """Put a policy's folder in place, whole or not at all; the sha256 of its weights."""
    import safetensors.torch

    from npllm.models.policy import POLICY_CONTEXT, POLICY_WEIGHTS

    with whole_folder(folder) as temporary:
        safetensors.torch.save_file(policy.state_dict(), temporary / POLICY_WEIGHTS)
        digest = sha256_file(temporary / POLICY_WEIGHTS)
        made = Manifest(
            version_id=version,
            context=POLICY_CONTEXT,
            base_fingerprint=base_fingerprint,
            parent=parent.id if parent else None,
            consolidation_id=consolidation,
            sha256=digest,
            created_at=datetime.now(UTC),
            data=data,
            metrics=metrics,
        )
        write_manifest(temporary, made)
    return digest
