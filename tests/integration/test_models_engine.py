"""The engine on real (tiny, random) networks: what it keeps, what it computes, that it can be stopped."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from npllm.models.base import Base, BaseInfo
from npllm.models.decoding import complete, score
from npllm.models.engine import Cancelled
from npllm.models.fim import PromptBuilder, PromptParts, choose
from npllm.models.stops import StopRules
from npllm.models.torch_engine import TorchEngine
from npllm.types import ModelError

NEVER = threading.Event()


class After:
    """Says "cancelled" from the n-th time on that it is asked."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return Base.load(str(tiny_model), device="cpu", threads=1)


@pytest.fixture
def engine(base: Base) -> TorchEngine:
    return TorchEngine(base)


def rules(prefix: str = "", suffix: str = "", end: frozenset[int] = frozenset()) -> StopRules:
    return StopRules(prefix, suffix, end_ids=end)


def reference(base: Base, ids: list[int]) -> torch.Tensor:
    """Logits [T, V] of transformers' own forward over the whole sequence, without any cache."""
    with torch.inference_mode():
        out: torch.Tensor = base.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return out


def test_nothing_can_be_trained(base: Base) -> None:
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    engine = TorchEngine(base)
    logits = engine.prefill(range(20), NEVER)
    assert logits.is_inference() and not logits.requires_grad


def test_a_longer_prompt_costs_only_what_is_new(base: Base, engine: TorchEngine) -> None:
    first = list(range(40, 340))
    engine.prefill(first, NEVER)
    assert engine.prefilled == 300
    second = [*first, 7, 8, 9]
    logits = engine.prefill(second, NEVER)
    assert engine.prefilled == 3
    torch.testing.assert_close(logits, reference(base, second)[-1], atol=1e-4, rtol=1e-4)


def test_a_prompt_that_differs_keeps_what_is_common(base: Base, engine: TorchEngine) -> None:
    engine.prefill(list(range(40, 240)), NEVER)
    other = [*range(40, 140), *range(300, 330)]
    logits = engine.prefill(other, NEVER)
    assert engine.prefilled == 30
    torch.testing.assert_close(logits, reference(base, other)[-1], atol=1e-4, rtol=1e-4)
    again = engine.prefill(other, NEVER)
    assert engine.prefilled == 1, "the same prompt again: its last token is computed for the logits"
    torch.testing.assert_close(again, logits, atol=1e-4, rtol=1e-4)
    shorter = engine.prefill(other[:50], NEVER)
    torch.testing.assert_close(shorter, reference(base, other[:50])[-1], atol=1e-4, rtol=1e-4)


def test_what_was_generated_is_kept_too(engine: TorchEngine) -> None:
    """The person accepts: the next prompt is the old one and the suggestion."""
    prompt = list(range(40, 140))
    decoded = complete(engine, prompt, stop=rules(), max_new_tokens=10, cancel=NEVER)
    engine.prefill([*prompt, *decoded.token_ids, 5], NEVER)
    assert engine.prefilled <= 2


def test_steps_verification_and_crop_agree_with_a_whole_forward(base: Base, engine: TorchEngine) -> None:
    ids = [*range(50, 110), 3, 1, 4, 1, 5, 9, 2, 6]
    whole = reference(base, ids)
    engine.prefill(ids[:60], NEVER)
    stepped = torch.stack([engine.step(token) for token in ids[60:]])
    torch.testing.assert_close(stepped, whole[60:], atol=1e-4, rtol=1e-4)
    engine.crop(60)
    assert engine.length == 60
    torch.testing.assert_close(engine.verify(ids[60:]), whole[60:], atol=1e-4, rtol=1e-4)
    assert engine.length == len(ids)


def test_the_last_hidden_state_is_the_heads_input(base: Base, engine: TorchEngine) -> None:
    with pytest.raises(ModelError, match="not computed anything"):
        engine.hidden()
    logits = engine.prefill(range(30), NEVER)
    assert engine.hidden().shape == (base.model.config.hidden_size,)
    with torch.inference_mode():
        torch.testing.assert_close(base.model.lm_head(engine.hidden()), logits)


def test_greedy_decoding_is_transformers_greedy_decoding(base: Base, engine: TorchEngine) -> None:
    prompt = list(range(60, 160))
    decoded = complete(engine, prompt, stop=rules("x ="), max_new_tokens=12, cancel=NEVER)
    with torch.inference_mode():
        out = base.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=len(decoded.token_ids),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(prompt) :]
    assert list(decoded.token_ids) == out.tolist()


def test_cancelled_between_prefill_chunks_and_what_was_done_is_kept(base: Base, engine: TorchEngine) -> None:
    ids = [index % 500 for index in range(1000)]
    with pytest.raises(Cancelled):
        engine.prefill(ids, After(2))
    assert 0 < engine.length < 1000
    done = engine.length
    logits = engine.prefill(ids, NEVER)
    assert engine.prefilled == 1000 - done
    torch.testing.assert_close(logits, reference(base, ids)[-1], atol=1e-4, rtol=1e-4)
    assert complete(engine, ids[::-1], stop=rules(), max_new_tokens=5, cancel=After(1)).finished == "cancelled"


def test_cancelled_between_tokens(engine: TorchEngine) -> None:
    decoded = complete(engine, list(range(30)), stop=rules(), max_new_tokens=50, cancel=After(5))
    assert decoded.finished == "cancelled" and decoded.text == ""
    assert 1 <= len(decoded.token_ids) <= 5


def test_end_tokens_and_length_end_a_completion(engine: TorchEngine) -> None:
    prompt = list(range(300, 400))
    free = complete(engine, prompt, stop=rules("x ="), max_new_tokens=6, cancel=NEVER)
    assert free.finished == "length" and len(free.token_ids) == 6
    assert free.mean_logprob < 0
    end = frozenset({free.token_ids[0]})
    none = complete(engine, prompt, stop=rules("x =", end=end), max_new_tokens=6, cancel=NEVER)
    assert (none.finished, none.text, none.token_ids) == ("stop", "", ())


def test_no_more_tokens_than_the_base_takes(base: Base, engine: TorchEngine) -> None:
    most = base.info.context_tokens
    ids = [index % 500 for index in range(most)]
    decoded = complete(engine, ids[: most - 3], stop=rules("x ="), max_new_tokens=64, cancel=NEVER)
    assert len(decoded.token_ids) <= 3
    with pytest.raises(ModelError, match=f"the base takes {most}"):
        engine.prefill([*ids, 1], NEVER)
    with pytest.raises(ModelError, match="empty prompt"):
        engine.prefill([], NEVER)


def test_a_score_is_the_likelihood_of_the_text_after_the_prompt(base: Base, engine: TorchEngine) -> None:
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), 512)
    prompt = builder.build(PromptParts("a.py", "def f(x):\n    ", "\n"), reserve=64).ids
    text = "return x + 'é'  # ok\n" * 20
    target = builder.encode_middle(text)
    found = score(engine, prompt, target, text, NEVER)
    rows = torch.log_softmax(reference(base, [*prompt, *target]).double(), -1)[len(prompt) - 1 : -1]
    expected = -sum(float(row[token]) for row, token in zip(rows, target, strict=True))
    assert math.isclose(found.nats, expected, rel_tol=1e-5)
    assert found.tokens == len(target) > 256, "long enough for more than one forward"
    assert found.utf8_bytes == len(text.encode())
    assert math.isclose(found.bits_per_byte, found.nats / math.log(2) / found.utf8_bytes)
    assert score(engine, prompt, (), "", NEVER).nats == 0.0
    with pytest.raises(Cancelled):
        score(engine, prompt, target, text, After(1))


def test_the_text_shown_is_the_text_that_was_decoded(base: Base, engine: TorchEngine) -> None:
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), 512)
    for text in ("  x = 1", "é😀\n", "a\tb"):
        ids = builder.encode_middle(text)
        assert engine.text(ids) == text
    emoji = builder.encode_middle("😀")
    assert engine.text(emoji[:-1]) == "", "half a character is none"


# Other architectures, as transformers builds them: every one whose cache or mask is special.
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 600}
WIDE = {"num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 512}
NETWORKS: dict[str, Any] = {
    "qwen2": lambda: transformers.Qwen2Config(**SMALL, **WIDE),
    "starcoder2 with a sliding window": lambda: transformers.Starcoder2Config(**SMALL, **WIDE, sliding_window=16),
    "mistral with a sliding window": lambda: transformers.MistralConfig(**SMALL, **WIDE, sliding_window=16),
    "gemma2, half of its layers sliding": lambda: transformers.Gemma2Config(
        **SMALL, **WIDE, head_dim=8, sliding_window=16
    ),
    "granite": lambda: transformers.GraniteConfig(**SMALL, **WIDE),
    "gpt-bigcode": lambda: transformers.GPTBigCodeConfig(
        n_embd=32, n_head=4, n_layer=2, n_positions=512, vocab_size=600
    ),
    "mamba, which cannot go back": lambda: transformers.MambaConfig(
        hidden_size=32, num_hidden_layers=2, vocab_size=600, state_size=4
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_other_architectures_keep_their_cache_rightly(name: str, tiny_model: Path) -> None:
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(NETWORKS[name]()).eval().requires_grad_(False)
    info = BaseInfo(name, tiny_model, "", 0, 512, "starter", "float32", "cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    base = Base(model, tokenizer, info, torch.device("cpu"))
    engine = TorchEngine(base)
    ids = [index * 7 % 600 for index in range(120)]
    engine.prefill(ids[:80], NEVER)
    longer = engine.prefill(ids[:90], NEVER)
    assert engine.prefilled == 10
    torch.testing.assert_close(longer, reference(base, ids[:90])[-1], atol=1e-3, rtol=1e-3)
    branch = [*ids[:60], *ids[100:]]
    torch.testing.assert_close(engine.prefill(branch, NEVER), reference(base, branch)[-1], atol=1e-3, rtol=1e-3)
    assert engine.prefilled == (80 if "cannot" in name else 20)
    engine.crop(50)
    torch.testing.assert_close(engine.verify(ids[50:60]), reference(base, ids[:60])[50:], atol=1e-3, rtol=1e-3)
