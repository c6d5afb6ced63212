"""The shipped starter model: loads plainly, knows Python better than its baselines, uses what stands in its context."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from npllm.starter import evaluate as evaluation
from npllm.starter.corpus import SourceFile
from npllm.starter.evaluate import infilling_passage, line_bits, load, prefix_bits
from npllm.starter.fim import Cut
from npllm.starter.held import Held
from npllm.starter.paths import SHIPPED, SHIPPED_CEREBELLUM
from npllm.starter.questions import Place
from npllm.starter.scoring import Network, Passage, negative_log_likelihoods
from npllm.starter.snippets import SnippetIndex
from npllm.starter.tokens import Codec

#: Code that is in nobody's training data: our own.
OWN = sorted((SHIPPED.parent).glob("*.py"))


@pytest.fixture(scope="module")
def shipped() -> tuple[LlamaForCausalLM, Codec]:
    return load(SHIPPED)


@pytest.fixture(scope="module")
def own() -> Held:
    files = tuple(SourceFile(f"npllm/starter/{path.name}", path.read_text(encoding="utf-8")) for path in OWN[:8])
    return Held("own", files, SnippetIndex(files, seed=0))


def test_it_is_small_plain_and_complete() -> None:
    assert (SHIPPED / "model.safetensors").stat().st_size <= 30_000_000
    assert not [file.name for file in SHIPPED.iterdir() if file.suffix in (".bin", ".pt", ".pkl", ".py")]
    model = AutoModelForCausalLM.from_pretrained(SHIPPED, trust_remote_code=False, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED, trust_remote_code=False, local_files_only=True)
    assert type(model) is LlamaForCausalLM and model.dtype == torch.bfloat16
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|end|>", "<|pad|>", None)
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer("x = 1\n").input_ids == Codec.load(SHIPPED / "tokenizer.json").encode("x = 1\n")
    assert (model.config.eos_token_id, model.config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_its_card_names_licences_figures_and_limits_and_no_machine() -> None:
    card = (SHIPPED / "MODEL_CARD.md").read_text(encoding="utf-8")
    for word in ("## Data", "Apache-2.0", "## Figures", "python -m npllm.starter.evaluate", "## Limits", "tornado"):
        assert word in card
    everything = card + (SHIPPED / "manifest.json").read_text() + (SHIPPED / "config.json").read_text()
    assert not [trace for trace in ("/tmp", "/home/", "/root", "/work") if trace in everything]


def test_it_beats_uniform_bytes_and_xz_on_code_it_never_saw(shipped: tuple[LlamaForCausalLM, Codec], own: Held) -> None:
    bits, size = prefix_bits(Network(*shipped), shipped[1], [own], per_package=12_000)
    assert size >= 12_000
    texts = [file.text[:6000].encode() for file in own.files]
    squeezed = 8 * sum(len(lzma.compress(text, preset=9)) for text in texts) / sum(map(len, texts))
    assert bits < 0.35 * 8.0
    assert bits < squeezed


def test_an_earlier_version_in_its_context_makes_a_line_likelier(shipped: tuple[LlamaForCausalLM, Codec]) -> None:
    lines = [
        "wobble = quantise_gauge(ledger_entry, tolerance=0.25)",
        "self._pending_sprockets.append(sprocket_for(customer, region))",
        "return merge_manifests(primary, overrides, keep_order=True)",
    ]
    places = []
    for line in lines:
        before = "import os\n\n\ndef run(self, customer, region, ledger_entry, primary, overrides):\n    "
        known = ("shop/older.py", f"def run_all(self):\n    for item in self.items:\n        {line}\n    self.close()")
        other = (
            "shop/paint.py",
            "def paint(self, colour):\n    self.colour = colour\n    self.refresh()\n    return 1",
        )
        places.append(Place("shop/run.py", Cut(before, line, "\n\n\ndef stop():\n    pass\n"), known, known, other))
    judge, codec = Network(*shipped), shipped[1]
    alone = line_bits(judge, codec, places, None)
    with_version = line_bits(judge, codec, places, "related")
    assert with_version < alone - 0.1
    assert with_version < line_bits(judge, codec, places, "unrelated") - 0.1


def test_batched_likelihoods_equal_single_ones(shipped: tuple[LlamaForCausalLM, Codec]) -> None:
    network, codec = shipped
    texts = [
        "def f(x):\n    return x + 1\n",
        "import os\n",
        "class A:\n    def b(self):\n        self.c = self.d(1, 2, 3)\n",
    ]
    passages = [Passage((codec.file, *codec.encode(text)), 2, len(codec.encode(text)) + 1) for text in texts]
    together = negative_log_likelihoods(network, passages)
    alone = [negative_log_likelihoods(network, [passage])[0] for passage in passages]
    assert together == pytest.approx(alone, rel=1e-3)
    with torch.inference_mode():
        ids = torch.tensor([passages[0].ids])
        log_p = network(input_ids=ids).logits.log_softmax(-1)[0, 1:-1].gather(1, ids[0, 2:, None])
    assert alone[0] == pytest.approx(-float(log_p.sum()), rel=1e-3)


def test_a_line_is_completed_up_to_its_end(shipped: tuple[LlamaForCausalLM, Codec]) -> None:
    network, codec = shipped
    parts = Cut("import os\n\n\ndef main():\n    retu", "", "\n\n\nmain()\n")
    written = Network(network, codec).write(infilling_passage(codec, "a.py", parts, "spm").ids, 40, line=True)
    assert written.ended and "\n" not in written.text and written.text.startswith("rn")


def test_a_folder_that_is_no_model_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluation.main([str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.endswith("it has no config.json\n")


def test_the_cerebellum_beside_it_is_an_eighth_of_its_size_and_reads_the_same_tokens() -> None:
    small, large = (
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        for folder in (SHIPPED_CEREBELLUM, SHIPPED)
    )
    sizes = [sum(weights.numel() for weights in model.parameters()) for model in (small, large)]
    assert sizes[1] / 9 < sizes[0] < sizes[1] / 6
    assert (SHIPPED_CEREBELLUM / "tokenizer.json").read_bytes() == (SHIPPED / "tokenizer.json").read_bytes()
    assert "drafts" in (SHIPPED_CEREBELLUM / "MODEL_CARD.md").read_text(encoding="utf-8")
    files = [file for folder in (SHIPPED, SHIPPED_CEREBELLUM) for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) <= 40_000_000
