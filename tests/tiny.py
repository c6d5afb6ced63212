"""A base model small enough for tests: a two-layer Llama with the starter's special tokens."""

from __future__ import annotations

from pathlib import Path

SPECIAL = ("<|end|>", "<|pad|>", "<|prefix|>", "<|suffix|>", "<|middle|>", "<|file|>")


def make_tiny_model(folder: Path, *, seed: int = 0, hidden: int = 64, vocab: int = 600, layers: int = 2) -> Path:
    """Write a randomly initialised causal LM and its tokenizer to `folder`, as Hugging Face does."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    source = Path(__file__).resolve().parents[1] / "server" / "npllm"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train(
        sorted(str(path) for path in source.glob("*.py")),
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[2:])})
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    torch.random.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


PRACTICE = """def area(width, height):
    return width * height


def volume(width, height, depth):
    return area(width, height) * depth


name = "value"
value = compute(name)
"""


def make_practised_model(folder: Path, *, steps: int = 150) -> Path:
    """A tiny model that has learned to fill in the lines of `PRACTICE`, so that it always has something to say."""
    import random

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from npllm.models.examples import encode
    from npllm.models.fim import PromptBuilder, choose

    make_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    builder = PromptBuilder(tokenizer, choose(tokenizer), 512)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    chance = random.Random(0)
    for _ in range(steps):
        lines = PRACTICE.splitlines(keepends=True)
        chance.shuffle(lines)
        text = "".join(lines) if chance.random() < 0.5 else PRACTICE
        cut = chance.randrange(len(text) - 1)
        end = text.index("\n", cut)
        example = encode(builder, text[:cut], chance.choice(["", text[end:]]), "shapes.py", text[cut:end])
        ids = torch.tensor([example.ids])
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder, safe_serialization=True)
    return folder


SAID = {
    "positive": ("this saved me so much time", "muito boa essa sugestão", "you read my mind", "adorei isso"),
    "negative": (
        "a waste of my afternoon",
        "isso quebrou o meu projeto",
        "it invents functions",
        "que chatice",
    ),
    "neutral": ("the function has two arguments", "a lista tem três itens", "see the file below", "o arquivo abaixo"),
}


def make_classifier(folder: Path, *, steps: int = 60, labels: tuple[str, ...] = tuple(SAID)) -> Path:
    """A tiny text classifier that has learned what the comments of `SAID` say."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

    texts = [(text, index) for index, name in enumerate(SAID) for text in SAID[name]]
    words = sorted({word for text, _ in texts for word in text.split()})
    known = Tokenizer(models.WordLevel({word: index for index, word in enumerate(["[PAD]", "[UNK]", *words])}, "[UNK]"))
    known.normalizer = normalizers.Lowercase()
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=known, pad_token="[PAD]", unk_token="[UNK]")
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(tokenizer), dim=32, hidden_dim=64, n_layers=1, n_heads=2, max_position_embeddings=64,
            num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)},
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch = tokenizer([text for text, _ in texts], return_tensors="pt", padding=True)
    batch.pop("token_type_ids", None)
    wanted = torch.tensor([index for _, index in texts])
    model.train()
    for _ in range(steps):
        loss = model(**batch, labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.random.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder
