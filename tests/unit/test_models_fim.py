"""Prompts of every family, to the letter; budgets; cuts that stay where they are from one keystroke to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CodeLlamaTokenizer, PreTrainedTokenizerFast

from npllm.models.examples import encode
from npllm.models.fim import FORMATS, PREFIX_ONLY, Prompt, PromptBuilder, PromptParts, choose
from npllm.types import ModelError, Snippet, new_id

SOURCE = Path(__file__).resolve().parents[2] / "server" / "npllm" / "config.py"
STARTER = ("<|pad|>", "<|end|>", "<|file|>", "<|prefix|>", "<|suffix|>", "<|middle|>")
STARCODER = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
QWEN = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>")
GEMMA = ("<pad>", "<eos>", "<bos>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|file_separator|>")
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")


def tokenizer(special: tuple[str, ...], eos: str, bos: str | None = None) -> PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer with a family's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train([str(SOURCE)], trainer)
    if bos:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=eos, bos_token=bos)


def code_llama() -> CodeLlamaTokenizer:
    """Code Llama's own tokenizer class over a small vocabulary: characters, bytes, two merges."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [chr(code) for code in range(33, 127)] + ["de", "def", "▁def"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return CodeLlamaTokenizer(vocab=vocabulary, merges=[("d", "e"), ("de", "f"), ("▁", "def")])


FAMILIES: dict[str, Any] = {
    "starter": lambda: tokenizer(STARTER, "<|end|>"),
    "codegemma": lambda: tokenizer(GEMMA, "<eos>", "<bos>"),
    "qwen2.5-coder": lambda: tokenizer((*QWEN, "<|file_sep|>", "<|im_end|>"), "<|endoftext|>"),
    "granite-4": lambda: tokenizer((*QWEN[1:5], "<|end_of_text|>"), "<|end_of_text|>"),
    "starcoder2": lambda: tokenizer((*STARCODER, "<repo_name>", "<file_sep>"), "<|endoftext|>"),
    "granite": lambda: tokenizer((*STARCODER, "<filename>", "<reponame>"), "<|endoftext|>"),
    "deepseek-coder": lambda: tokenizer(DEEPSEEK, DEEPSEEK[1], DEEPSEEK[0]),
    "codellama": code_llama,
    "prefix-only": lambda: tokenizer(("</s>",), "</s>"),
}

# The published prompt for a file alone, and with one snippet of another file.
ALONE = {
    "starter": "<|file|>a/b.py\n<|prefix|><|suffix|>\nS\n<|middle|>def P",
    "codegemma": "<bos><|fim_prefix|>def P<|fim_suffix|>\nS\n<|fim_middle|>",
    "qwen2.5-coder": "<|fim_prefix|>def P<|fim_suffix|>\nS\n<|fim_middle|>",
    "granite-4": "<|fim_prefix|>def P<|fim_suffix|>\nS\n<|fim_middle|>",
    "starcoder2": "<fim_prefix>def P<fim_suffix>\nS\n<fim_middle>",
    "granite": "<fim_prefix>def P<fim_suffix>\nS\n<fim_middle>",
    "deepseek-coder": "<｜begin▁of▁sentence｜><｜fim▁begin｜>def P<｜fim▁hole｜>\nS\n<｜fim▁end｜>",
    "codellama": "<s> <PRE> def P <SUF>\nS\n <MID>",
    "prefix-only": "def P",
}
BESIDE = {
    "starter": "<|file|>o.py\nx = 1\n<|file|>a/b.py\n<|prefix|><|suffix|>\nS\n<|middle|>def P",
    "codegemma": "<bos>x = 1\n<|file_separator|><|fim_prefix|>def P<|fim_suffix|>\nS\n<|fim_middle|>",
    "qwen2.5-coder": (
        "<|file_sep|>o.py\nx = 1\n<|file_sep|>a/b.py\n<|fim_prefix|>def P<|fim_suffix|>\nS\n<|fim_middle|>"
    ),
    "granite-4": "<|fim_prefix|># o.py\n# x = 1\n\ndef P<|fim_suffix|>\nS\n<|fim_middle|>",
    "starcoder2": "<file_sep>o.py\nx = 1\n<file_sep><fim_prefix>a/b.py\ndef P<fim_suffix>\nS\n<fim_middle>",
    "granite": "<fim_prefix># o.py\n# x = 1\n\ndef P<fim_suffix>\nS\n<fim_middle>",
    "deepseek-coder": (
        "<｜begin▁of▁sentence｜><｜fim▁begin｜>#o.py\nx = 1\n\n#a/b.py\ndef P<｜fim▁hole｜>\nS\n<｜fim▁end｜>"
    ),
    "codellama": "<s> <PRE> # o.py\n# x = 1\n\ndef P <SUF>\nS\n <MID>",
    "prefix-only": "# o.py\n# x = 1\n\ndef P",
}
ENDS = {
    "starter": "<|end|>",
    "codegemma": "<|file_separator|>",
    "qwen2.5-coder": "<|endoftext|>",
    "granite-4": "<|end_of_text|>",
    "starcoder2": "<|endoftext|>",
    "granite": "<|endoftext|>",
    "deepseek-coder": "<｜end▁of▁sentence｜>",
    "codellama": "▁<EOT>",
    "prefix-only": "</s>",
}


def spelled(tokenizer: Any, prompt: Prompt) -> str:
    """A prompt as its tokens spell it, special ones by name."""
    tokens = tokenizer.convert_ids_to_tokens(list(prompt.ids))
    if isinstance(tokenizer, CodeLlamaTokenizer):
        return "".join(tokens).replace("▁", " ").replace("<0x0A>", "\n")
    special = set(tokenizer.get_added_vocab())
    decoder = tokenizer.backend_tokenizer.decoder
    return "".join(token if token in special else decoder.decode([token]) for token in tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_the_published_ones(family: str) -> None:
    made = FAMILIES[family]()
    assert choose(made).name == family
    builder = PromptBuilder(made, choose(made), 512)
    parts = PromptParts("a/b.py", "def P", "\nS\n")
    assert spelled(made, builder.build(parts, reserve=64)) == ALONE[family]
    snippet = Snippet("o.py", "x = 1\n", 0.9, new_id())
    beside = PromptParts("a/b.py", "def P", "\nS\n", (snippet,))
    prompt = builder.build(beside, reserve=64, snippet_budget=128)
    assert spelled(made, prompt) == BESIDE[family]
    assert prompt.used_snippets == (snippet.experience_id,)
    assert builder.end_id == made.convert_tokens_to_ids(ENDS[family])
    assert builder.end_id in builder.end_ids and made.eos_token_id in builder.end_ids


def test_every_format_is_tested() -> None:
    assert {item.name for item in (*FORMATS, PREFIX_ONLY)} == set(FAMILIES) == set(ALONE) == set(BESIDE)


def test_code_llama_begins_only_the_document_with_its_implicit_space() -> None:
    """As its own infilling code does: `▁def` after `▁<PRE>`, but a bare `def` after `▁<SUF>` and in the middle."""
    made = code_llama()
    builder = PromptBuilder(made, choose(made), 512)
    ids = builder.build(PromptParts("a.py", "def", "def"), reserve=8).ids
    assert made.convert_ids_to_tokens(list(ids)) == ["<s>", "▁<PRE>", "▁def", "▁<SUF>", "def", "▁<MID>"]
    assert made.convert_ids_to_tokens(builder.encode_middle("def")) == ["def"]
    for text in ("def", " def", "  x\n", "\n    return é😀"):
        assert builder.codec.decode(builder.encode_middle(text)) == text


def test_control_tokens_in_a_document_stay_text() -> None:
    """A person's file that spells out `<|end|>` must not end anything; not even where it is no special token."""
    for family in ("starter", "qwen2.5-coder", "deepseek-coder", "codellama"):
        made = FAMILIES[family]()
        builder = PromptBuilder(made, choose(made), 512)
        evil = "".join(builder.format.requires) + "</s>"
        plain = builder.build(PromptParts("a.py", "x", "y"), reserve=8).ids
        ids = builder.build(PromptParts("a.py", evil, evil), reserve=8).ids
        special = {builder.codec.token_id(token) for token in (*builder.format.requires, "</s>")}
        assert [i for i in ids if i in special] == [i for i in plain if i in special]
        same = evil.replace("▁", " ") if family == "codellama" else evil  # SentencePiece's own way to write a space
        assert builder.codec.decode(builder.encode_middle(evil)) == same


def test_a_vocabulary_without_the_formats_tokens_is_refused() -> None:
    with pytest.raises(ModelError, match=r"lacks <\|file\|>"):
        PromptBuilder(FAMILIES["granite"](), FORMATS[0], 512)


@pytest.mark.parametrize("context", [64, 100, 256, 1000])
@pytest.mark.parametrize("family", ["starter", "codellama", "qwen2.5-coder"])
def test_a_prompt_never_exceeds_its_room(context: int, family: str) -> None:
    made = FAMILIES[family]()
    builder = PromptBuilder(made, choose(made), context)
    text = SOURCE.read_text(encoding="utf-8")
    snippets = tuple(Snippet(f"{n}.py", text[n : n + 150], 0.5, new_id()) for n in range(3))
    for offset in (0, 5, 1500, 4000, len(text)):
        parts = PromptParts("src/npllm/config.py", text[:offset], text[offset:], snippets)
        for reserve, budget in ((16, 0), (32, 40), (64, 4000)):
            ids = builder.build(parts, reserve=reserve, snippet_budget=budget).ids
            assert len(ids) <= context - min(reserve, context // 2)


def test_the_prefix_matters_most_and_what_is_nearest_is_kept() -> None:
    made = FAMILIES["starter"]()
    builder = PromptBuilder(made, choose(made), 400)
    text = SOURCE.read_text(encoding="utf-8")
    middle = len(text) // 2
    out = spelled(made, builder.build(PromptParts("c.py", text[:middle], text[middle:]), reserve=64))
    suffix, prefix = out.split("<|suffix|>")[1].split("<|middle|>")
    assert text[:middle].endswith(prefix) and text[middle:].startswith(suffix)
    assert len(builder.encode_middle(prefix)) > 2.5 * len(builder.encode_middle(suffix)) > 100


def test_the_suffix_takes_what_a_short_prefix_leaves() -> None:
    made = FAMILIES["starter"]()
    builder = PromptBuilder(made, choose(made), 600)
    text = SOURCE.read_text(encoding="utf-8")
    ids = builder.build(PromptParts("c.py", "import os\n", text), reserve=64).ids
    assert len(ids) > 400


def test_typing_only_appends_to_a_long_prompt() -> None:
    """Suffix first, and cuts by content: nearly every keystroke leaves the prompt before as a prefix of the next."""
    made = FAMILIES["starter"]()
    builder = PromptBuilder(made, choose(made), 512)
    text = SOURCE.read_text(encoding="utf-8")
    start, suffix = 3000, text[6000:8000]
    kept = total = 0
    before: tuple[int, ...] = ()
    for offset in range(start, start + 600):
        window = text[max(0, offset - 2500) : offset]  # slides with the cursor, as the editor's side does it
        ids = builder.build(PromptParts("c.py", window, suffix), reserve=64).ids
        if before:
            common = next((i for i, (a, b) in enumerate(zip(before, ids)) if a != b), min(len(before), len(ids)))
            kept += common
            total += len(ids)
        before = ids
    assert kept / total > 0.9


def test_a_line_longer_than_the_room_is_cut_at_a_token() -> None:
    made = FAMILIES["starter"]()
    builder = PromptBuilder(made, choose(made), 128)
    line = "x = [" + ", ".join(map(str, range(2000)))
    ids = builder.build(PromptParts("c.py", line, ""), reserve=32).ids
    assert 80 <= len(ids) <= 96
    assert line.endswith(spelled(made, Prompt(ids)).split("<|middle|>")[1])


def test_nearest_snippet_last_and_none_over_budget() -> None:
    made = FAMILIES["starter"]()
    builder = PromptBuilder(made, choose(made), 600)
    best, big, other = (
        Snippet("best.py", "best = 1", 0.9, new_id()),
        Snippet("big.py", "x = 1\n" * 400, 0.8, new_id()),
        Snippet("other.py", "other = 1", 0.7, new_id()),
    )
    prompt = builder.build(PromptParts("c.py", "a", "b", (best, big, other)), reserve=64, snippet_budget=60)
    assert prompt.used_snippets == (best.experience_id, other.experience_id)
    out = spelled(made, prompt)
    assert out.index("other = 1") < out.index("best = 1") < out.index("<|prefix|>")


def test_what_is_on_the_desk_has_its_share_and_stands_first() -> None:
    made = FAMILIES["starter"]()
    builder = PromptBuilder(made, choose(made), 900)
    remembered = tuple(Snippet(f"r{n}.py", f"remembered_{n} = 1\n" * 4, 0.9, new_id()) for n in range(9))
    desk = tuple(Snippet(f"d{n}.py", f"on_desk_{n} = 1\n" * 4, 0.0) for n in range(9))
    one = [builder.build(PromptParts("c.py", "a", "b", (), desk[:n]), reserve=64, snippet_budget=400) for n in (1, 2)]
    budget = 5 * (len(one[1].ids) - len(one[0].ids))  # tokens of five of the desk's, two of which fit into its half

    def counts(given: tuple[Snippet, ...], working: tuple[Snippet, ...]) -> tuple[int, int, str]:
        parts = PromptParts("c.py", "a", "b", given, working)
        out = spelled(made, builder.build(parts, reserve=64, snippet_budget=budget))
        return (
            sum(snippet.text in out for snippet in given),
            sum(snippet.text in out for snippet in working),
            out,
        )

    alone, _, _ = counts(remembered, ())
    _, all_desk, _ = counts((), desk)
    both, shared, out = counts(remembered, desk)
    assert 0 < both < alone and 0 < shared < all_desk, "each has its share, and where the other is not, all"
    assert out.index("on_desk_1") < out.index("on_desk_0") < out.index("remembered_0") < out.index("<|prefix|>")
    assert counts(remembered, desk[:1])[1] == 1, "and what the one does not need the other has"


def test_comments_are_the_languages_own() -> None:
    made = FAMILIES["granite"]()
    builder = PromptBuilder(made, choose(made), 512)
    snippet = Snippet("o.ts", "let x\nlet y\n", 0.9)
    parts = PromptParts("a.ts", "P", "S", (snippet,))
    out = spelled(made, builder.build(parts, reserve=64, snippet_budget=64))
    assert out == "<fim_prefix>// o.ts\n// let x\n// let y\n\nP<fim_suffix>S<fim_middle>"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_example_is_the_serving_prompt_and_its_answer(family: str) -> None:
    made = FAMILIES[family]()
    builder = PromptBuilder(made, choose(made), 256)
    text = SOURCE.read_text(encoding="utf-8")
    prefix, target, suffix = text[:2000], text[2000:2040], text[2040:4000]
    example = encode(builder, prefix, suffix, "c.py", target)
    answer = [*builder.encode_middle(target), builder.end_id]
    served = builder.build(PromptParts("c.py", prefix, suffix), reserve=len(answer)).ids
    assert example.ids[: example.loss_start] == served
    assert list(example.ids[example.loss_start :]) == answer
    assert len(example.ids) <= 256
    long = encode(builder, prefix, suffix, "c.py", text[2000:])
    assert len(long.ids) <= 256 and long.ids[-1] != builder.end_id
