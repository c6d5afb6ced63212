"""The texts that one version is judged on, in one row to be scored, and back from the scores to the gate's word.

Knows the plan and the gate; knows no model: who scores gets the texts in `Exam.experiences` and `Exam.passages`, in
this order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from npllm.config import SleepConfig
from npllm.sleep.dataset import file_of
from npllm.sleep.gate import Judgement, Old, Scored, best_of, bytes_key, general_marks, judge, marks, same_ones
from npllm.sleep.general import general as general_code
from npllm.sleep.plan import Plan
from npllm.sleep.project import Passage
from npllm.types import Experience


@dataclass(frozen=True, slots=True)
class Exam:
    """What a version is judged on.

    Attributes:
        experiences: the new held-out ones, then those of each older slice.
        passages: of general code.
        note: why there are none; "" where there are.
    """

    plan: Plan
    experiences: tuple[Experience, ...]
    passages: tuple[Passage, ...]
    note: str

    @classmethod
    def of(cls, plan: Plan, experiences: Callable[[Sequence[UUID]], Sequence[Experience]]) -> Exam:
        """The exam of a plan.

        Args:
            experiences: those with these ids.
        """
        texts = (*experiences(plan.held_out), *(text for item in plan.slices for text in experiences(item.ids)))
        languages = Counter(item.place.language for item in texts)  # a project or a framework may have several
        passages, note = general_code(languages.most_common(1)[0][0] if languages else "")
        return cls(plan, texts, passages, note)

    @property
    def sizes(self) -> list[int]:
        """UTF-8 bytes of each text."""
        texts = (*(item.final_text for item in self.experiences), *(passage.line for passage in self.passages))
        return [len(text.encode()) for text in texts]

    def judged(
        self,
        before: Sequence[float],
        after: Sequence[float],
        config: SleepConfig,
        *,
        tokens: int,
        sizes: Sequence[int] | None = None,
        way: str = "",
        lineage: Sequence[Mapping[str, float]] = (),
    ) -> tuple[Judgement, dict[str, float]]:
        """The gate's word, and what later sleeps compare with (for the version's metrics).

        Args:
            before, after: nats of each text, under the version in use and under the new one.
            tokens: of context, within which they were read.
            sizes: UTF-8 bytes of what was scored, where that is not all of each text.
            way: in which of several ways of serving, if so; the best of older slices is then looked up in the metrics
                of `lineage`. Of the new texts nothing is kept then: they may be read with more than older ones are.
        """
        files = [*map(file_of, self.experiences), *(passage.path for passage in self.passages)]
        scored = [
            Scored(file, size, old, new)
            for file, size, old, new in zip(files, sizes or self.sizes, before, after, strict=True)
        ]
        held_out = scored[: len(self.plan.held_out)]
        same = set(same_ones(self.plan.held_out))
        own = [one for id, one in zip(self.plan.held_out, held_out, strict=True) if id in same]
        found = {} if way else marks(str(self.plan.version_id), own, tokens)
        older: list[Old] = []
        at = len(held_out)
        for item in self.plan.slices:
            part = tuple(scored[at : at + len(item.ids)])
            at += len(item.ids)
            name = f"{way}{item.version}"
            marked = marks(name, part, tokens)
            best = best_of(lineage, name, int(marked[bytes_key(name)]), tokens) if way else item.best
            older.append(Old(str(item.version), item.held_at.date().isoformat(), part, best))
            found |= marked
        general = scored[at:]
        best = None
        if not way:
            same_texts = self.plan.general_bytes == sum(one.utf8_bytes for one in general)  # another Python has others
            best = self.plan.general_best if same_texts else None
            found |= general_marks(general, best, tokens)
        judgement = judge(
            held_out,
            min_held_out=config.min_holdout,
            old=older,
            general=general,
            general_best=best,
            max_forgetting=config.max_forgetting,
            max_general_loss=config.max_general_loss,
            seed=config.seed,
        )
        return judgement, found
