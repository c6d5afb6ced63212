"""The cerebellum's say: the interpolation, computed by hand from two models, whatever way decoding goes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from npllm.models.base import Base
from npllm.models.blend import Blend, mixed, of_answer
from npllm.models.continuations import Continuations, Index
from npllm.models.torch_engine import TorchEngine
from tests.tiny import make_tiny_model

PROMPT = (7, 11, 13, 17, 19)
NEVER = threading.Event()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base.load(str(make_tiny_model(tmp_path_factory.mktemp("small"), seed=5, hidden=32)), shared=False)


def base_logits(small: Base) -> torch.Tensor:
    return torch.randn(int(small.model.config.vocab_size), generator=torch.Generator().manual_seed(1))


def expected(small: Base, logits: torch.Tensor, ids: Sequence[int], share: float) -> torch.Tensor:
    with torch.inference_mode():
        other = small.model(torch.tensor([[*PROMPT, *ids]])).logits[0, -1].float()
    if not ids:
        return logits.log_softmax(-1)  # the first token is the base's
    product = logits.softmax(-1) ** (1 - share) * other.softmax(-1) ** share
    return (product / product.sum()).log()


def test_each_token_is_interpolated_also_after_a_draft_that_was_wrong(small: Base) -> None:
    blend = Blend(TorchEngine(small), PROMPT, 0.3, 100, NEVER)
    logits = base_logits(small)
    for ids in ((), (3,), (3, 4), (3, 4, 5), (3, 6), (), (8, 9, 10)):
        found = blend.mix(logits, ids)
        assert torch.allclose(found, expected(small, logits, ids, 0.3), atol=1e-4), ids
        assert float(found.exp().sum()) == pytest.approx(1.0, abs=1e-4)


def test_what_a_sleep_asks_is_what_serves(small: Base) -> None:
    answer, logits = (3, 4, 5), torch.stack([base_logits(small) * scale for scale in (1.0, 0.5, 2.0)])
    with torch.inference_mode():
        said = small.model(torch.tensor([[*PROMPT, *answer[:-1]]])).logits[0, -3:].float()
    blend = Blend(TorchEngine(small), PROMPT, 0.3, 100, NEVER)
    served = torch.stack([blend.mix(row, answer[:at]) for at, row in enumerate(logits)])
    assert torch.allclose(of_answer(logits, said, 0.3), served, atol=1e-4)
    assert of_answer(logits[:0], said[:0], 0.3).shape == logits[:0].shape


def test_behind_what_it_was_trained_for_the_base_is_alone(small: Base) -> None:
    blend, logits = Blend(TorchEngine(small), PROMPT, 0.3, len(PROMPT) + 2, NEVER), base_logits(small)
    assert not torch.allclose(blend.mix(logits, (3,)), logits.log_softmax(-1), atol=1e-3)
    assert torch.allclose(blend.mix(logits, (3, 4)), logits.log_softmax(-1))


def test_a_request_that_was_taken_back_waits_for_nothing(small: Base) -> None:
    cancelled = threading.Event()
    cancelled.set()
    engine, logits = TorchEngine(small), base_logits(small)
    assert torch.equal(Blend(engine, PROMPT, 0.3, 100, cancelled).mix(logits, (3,)), logits.log_softmax(-1))
    assert engine.length == 0


def test_no_share_is_the_base(small: Base) -> None:
    logits = base_logits(small)
    assert torch.equal(mixed(logits, -logits, 0.0), logits.log_softmax(-1))
    assert torch.equal(Blend(TorchEngine(small), PROMPT, 0.0, 100, NEVER).mix(logits, (3,)), logits.log_softmax(-1))


def test_what_is_known_word_for_word_has_its_say_after_it(small: Base) -> None:
    vocabulary = int(small.model.config.vocab_size)
    document = Index({"": np.array([*PROMPT, 23, 1, *PROMPT, 23], dtype=np.int32)}, vocabulary)
    known, logits = Continuations(PROMPT, document), base_logits(small)
    for ids in ((), (23, 1)):
        found = Blend(TorchEngine(small), PROMPT, 0.3, 100, NEVER, known).mix(logits, ids)
        assert torch.allclose(found, known.mix(expected(small, logits, ids, 0.3), ids), atol=1e-4)
    found = Blend(TorchEngine(small), PROMPT, 0.3, 100, NEVER, known).mix(logits, ())
    assert float(found[23]) > float(expected(small, logits, (), 0.3)[23]) + 1.0


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_a_share_that_is_none_is_refused_where_it_is_read(share: float) -> None:
    from npllm.models.cerebellum import Calibration

    with pytest.raises(ValueError, match="share"):
        Calibration.from_json(Calibration(None, 1, 0, 0, share=share).to_json())
