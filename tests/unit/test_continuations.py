"""What followed the same tokens, counted by hand and by the index; and what decoding makes of it."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from npllm.models import weighing
from npllm.models.continuations import Continuations, Index
from npllm.models.weighing import LEVELS, ORDERS, Matches, Weighing, features

VOCABULARY = 6
documents = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=30), min_size=1, max_size=4)


def index(*texts: Sequence[int]) -> Index:
    return Index({str(name): np.array(text, dtype=np.int32) for name, text in enumerate(texts)}, VOCABULARY)


def in_project(before: Sequence[int], *indexes: tuple[Index, str | None]) -> Continuations:
    return Continuations(before, project=indexes)


def by_hand(
    project: Sequence[Sequence[int]], document: Sequence[int], context: Sequence[int], base: Sequence[float]
) -> list[float]:
    """The module's equation, by counting; lambda is as the network says."""
    matches, follows = Matches.none(), dict[int, Counter[int]]()
    for number, order in enumerate(ORDERS):
        last = list(context[-order:])
        for source, texts in enumerate((project, [document])):
            follow = Counter(
                text[at] for text in texts for at in range(order, len(text)) if list(text[at - order : at]) == last
            )
            if order > len(context) or not follow:
                continue
            level = 2 * number + source
            most = max(follow.values())
            often = min(token for token, count in follow.items() if count == most)
            follows[level] = follow
            matches.total[level], matches.most[level], matches.often[level] = sum(follow.values()), most, often
            matches.distinct[level], matches.once[level] = len(follow), list(follow.values()).count(1)
            matches.expected[level] = base[often]
    nats = -sum(p * math.log(p) for p in base)
    weights = weighing.shipped()(features(matches, np.asarray(max(base)), np.asarray(nats)))
    mixed = list(base)
    for level, follow in follows.items():
        weight, total = float(weights[level]), sum(follow.values())
        mixed = [(1 - weight) * p + weight * follow[token] / total for token, p in enumerate(mixed)]
    return mixed


@settings(deadline=None, max_examples=200)
@given(
    documents,
    st.lists(st.integers(0, VOCABULARY - 1), max_size=30),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=16),
    st.integers(0, 1000),
)
def test_the_mixture_is_the_equation(
    texts: list[list[int]], document: list[int], context: list[int], seed: int
) -> None:
    logits = 3 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed))
    cut = len(context) // 2
    known = Continuations(context[:cut], index(document), [(index(*texts), None)])
    mixed = known.mix(logits, context[cut:]).exp()
    assert mixed.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert mixed.tolist() == pytest.approx(by_hand(texts, document, context, logits.softmax(-1).tolist()), abs=1e-5)


def matched(**levels: tuple[int, int, int, float]) -> Matches:
    """Levels as `document3=(total, most, often, expected)`; all others of it came once."""
    made = Matches.none()
    for name, (total, most, often, expected) in levels.items():
        source = name.rstrip("0123456789")
        at = 2 * ORDERS.index(int(name.removeprefix(source))) + ("project", "document").index(source)
        made.total[at], made.most[at], made.often[at], made.expected[at] = total, most, often, expected
        made.distinct[at], made.once[at] = total - most + 1, total - most
    return made


def weight(matches: Matches, order: int, surest: float = 0.5, nats: float = 2.0) -> float:
    """lambda of the document's match of an order."""
    x = features(matches, np.asarray(surest), np.asarray(nats))
    return float(weighing.shipped()(x)[2 * ORDERS.index(order) + 1])


def test_many_that_agree_count_more_and_more_where_the_model_does_not_know() -> None:
    agreed = weight(matched(document2=(8, 8, 1, 0.1)), 2)
    assert agreed > weight(matched(document2=(8, 1, 1, 0.1)), 2)
    assert agreed > weight(matched(document2=(8, 8, 1, 0.1)), 2, surest=0.99, nats=0.1)
    assert agreed < weight(matched(document2=(8, 8, 1, 0.5)), 2)  # the model expects the same


def test_a_match_counts_less_where_a_longer_one_says_something_else() -> None:
    def beside(often: int) -> float:
        return weight(matched(document1=(6, 5, 1, 0.2), document3=(3, 3, often, 0.2)), 1)

    assert beside(1) > beside(2)


def test_features_by_hand() -> None:
    matches = matched(project1=(4, 2, 7, 0.2), document1=(3, 3, 7, 0.2), document2=(2, 1, 5, 0.1))
    x = features(matches, np.asarray(0.6), np.asarray(1.5))
    log = math.log
    of_longest = [log(2), log(1.5 / 3), log(0.1)]
    assert x[1].tolist() == pytest.approx(
        [
            *(log(3), log(0.5 / 4), log(0.4), log(0.2), 1.0, log(1), log(0.5 / 4), 0.0, 4 / 14),
            *(*of_longest, 0.0, 1.0, 0.0, log(1.5 / 3), 1.0, log(2.5 / 5), 1.0, 1.5),  # no shorter one, a longer one
            *(1, 0, 0, 0, 0, 0, 0, 1),  # of one token, in the document
        ]
    )
    assert x[3].tolist() == pytest.approx(
        [
            *(log(2), log(1.5 / 3), log(0.4), log(0.1), 0.5, log(2), log(1.5 / 3), 1.0, 4 / 14),
            *(*of_longest, 1.0, 0.0, log(0.5 / 4), 0.0, 0.0, 0.0, 0.0, 1.5),  # a shorter one, no longer one
            *(0, 1, 0, 0, 0, 0, 0, 1),
        ]
    )


def test_features_are_of_each_place_alone() -> None:
    one, other = matched(document1=(9, 3, 2, 0.1), project4=(2, 2, 5, 0.3)), matched(project2=(4, 1, 1, 0.2))
    both = Matches(*(np.stack([getattr(one, name), getattr(other, name)]) for name in Matches.__slots__))
    together = features(both, np.array([0.4, 0.7]), np.array([2.0, 1.0]))
    for at, (matches, surest, nats) in enumerate(((one, 0.4, 2.0), (other, 0.7, 1.0))):
        assert np.allclose(together[at], features(matches, np.asarray(surest), np.asarray(nats)))


def test_trust_multiplies_the_odds_of_all_that_followed() -> None:
    x = features(matched(document1=(9, 3, 2, 0.1)), np.asarray(0.5), np.asarray(2.0))
    once, twice = (weighing.shipped()(x, trust) for trust in (1.0, 2.0))
    assert np.allclose(twice / (1 - twice), 2 * once / (1 - once))


def test_it_can_be_told_how_much_a_match_counts() -> None:
    inputs = features(Matches.none(), np.asarray(0.5), np.asarray(1.0)).shape[-1]
    sure = Weighing({"A": np.zeros((1, inputs)), "a": np.zeros(1), "v": np.zeros(1), "b": np.full(1, 50.0)})
    said = Continuations([1], project=[(index([1, 4, 1, 4]), None)], weighing=sure).mix(torch.zeros(VOCABULARY), ())
    assert said.exp()[4].item() == pytest.approx(1.0) and 2 * len(ORDERS) == LEVELS


def test_several_indexes_count_as_one() -> None:
    one, other = [1, 2, 3, 1, 2, 4], [1, 2, 4]
    logits = torch.zeros(VOCABULARY)
    apart = in_project([1, 2], (index(one), None), (index(other), None)).mix(logits, ())
    assert torch.allclose(apart, in_project([1, 2], (index(one, other), None)).mix(logits, ()))


def test_a_document_can_be_left_out_and_nothing_runs_on_from_one_to_the_next() -> None:
    both = index([1, 2], [3, 1, 5])
    logits = torch.zeros(VOCABULARY)
    assert torch.allclose(in_project([2], (both, None)).mix(logits, ()), logits.log_softmax(-1))
    assert (
        in_project([1], (both, None)).mix(logits, ()).exp()[5] > in_project([1], (both, "1")).mix(logits, ()).exp()[5]
    )
    assert torch.allclose(
        in_project([1], (both, "1")).mix(logits, ()), in_project([1], (index([1, 2]), None)).mix(logits, ())
    )


def test_without_any_match_the_model_alone_decides() -> None:
    logits = torch.randn(VOCABULARY)
    for before in ([], [0]):
        assert torch.equal(in_project(before, (index([1, 2, 3]), None)).mix(logits, ()), logits.log_softmax(-1))
    assert torch.equal(
        Continuations([1], project=[(index([1, 2]), None)], trust=0.0).mix(logits, ()), logits.log_softmax(-1)
    )


def test_the_longer_match_decides() -> None:
    known = index([1, 2, 3, 4, 5], [0, 3, 2], [0, 3, 2], [0, 3, 2])
    said = in_project([1, 2, 3], (known, None)).mix(torch.zeros(VOCABULARY), ())
    assert int(said.argmax()) == 4  # once, after three tokens; 2 three times, after one


def test_decoding_is_the_same_with_drafts_and_its_score_is_of_the_mixture() -> None:
    from npllm.models import decoding
    from npllm.models.base import Base
    from npllm.models.drafting import Costs, Drafting, PromptLookup, Source
    from npllm.models.fim import PromptBuilder, PromptParts, choose
    from npllm.models.stops import StopRules
    from npllm.models.torch_engine import TorchEngine

    base = Base.load("starter", device="cpu", threads=1)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), 512)
    line = "zebra_quality = harvest_moon(zebra_quality, 17)"
    above = f"def f():\n    {line}\n    x = 1\n\ndef g():\n    {line[:5]}"
    prompt = builder.build(PromptParts("a.py", above, ""), reserve=64).ids
    text = builder.codec.encode(f"def h():\n    {line}\n    return 3\n" * 2)
    size = int(base.model.config.vocab_size)
    before = builder.codec.encode(f"def g():\n    {line[:5]}")
    known = in_project(before, (Index({"": np.array(text, dtype=np.int32)}, size), None))
    engine = TorchEngine(base)
    stop = StopRules(above, "", end_ids=builder.end_ids, multiline=False)
    never = threading.Event()

    def written(drafts: Drafting | None) -> decoding.Decoded:
        return decoding.complete(engine, prompt, stop=stop, max_new_tokens=40, cancel=never, drafts=drafts, known=known)

    with torch.inference_mode():
        plain = written(None)
        drafted = written(Drafting([Source("prompt", PromptLookup(), Costs(1.0, 0.1, 0.0))]))
        rest = line[5:]
        ids = builder.encode_middle(rest)
        alone = decoding.score(engine, prompt, ids, rest, never)
        mixed = decoding.score(engine, prompt, ids, rest, never, known=known)
        by_steps, logits = 0.0, engine.prefill(prompt, never)
        for at, token in enumerate(ids):
            by_steps -= float(known.mix(logits, ids[:at])[token])
            logits = engine.step(token)
    assert plain.token_ids == drafted.token_ids and plain.mean_logprob == pytest.approx(drafted.mean_logprob, abs=1e-4)
    assert mixed.nats == pytest.approx(by_steps, abs=1e-3) and mixed.nats < alone.nats
