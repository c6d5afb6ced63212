"""Export: a folder that plain `AutoModelForCausalLM` and `AutoTokenizer` load, 16 bit, safetensors only.

The folder is written beside its target and then takes its place, so a reader never meets half a model.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from npllm.starter.corpus import Manifest, write_manifest
from npllm.starter.network import llama_config
from npllm.starter.presets import Shape
from npllm.starter.tokens import END, FILE, MIDDLE, PAD, PREFIX, SUFFIX


def plain_tokenizer(tokenizer_json: Path, positions: int) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers keeps it: eos and pad set, no bos, nothing added to a text by itself."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_json),
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[FILE, PREFIX, SUFFIX, MIDDLE],
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )


def network_from_checkpoint(checkpoint: Path, shape: Shape) -> LlamaForCausalLM:
    """The network of a training checkpoint, in fp32 and eval mode."""
    network = LlamaForCausalLM(llama_config(shape))
    with safe_open(checkpoint, "pt") as stored, torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(stored.get_tensor(f"model.{name}"))
    return network.eval()


def export(checkpoint: Path, shape: Shape, tokenizer_json: Path, manifest: Manifest, out: Path) -> None:
    """Write the model folder `out`, keeping a MODEL_CARD.md that is already there. Raises OSError."""
    building = out.with_name(out.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    network = network_from_checkpoint(checkpoint, shape).to(torch.bfloat16)
    ids = network.config
    network.generation_config = GenerationConfig(
        eos_token_id=ids.eos_token_id, pad_token_id=ids.pad_token_id, do_sample=False
    )
    network.save_pretrained(building, safe_serialization=True)
    plain_tokenizer(tokenizer_json, shape.positions).save_pretrained(building)
    _name_tokenizer_class(building / "tokenizer_config.json")
    write_manifest(manifest, building / "manifest.json")
    if (out / "MODEL_CARD.md").exists():
        shutil.copy2(out / "MODEL_CARD.md", building / "MODEL_CARD.md")
    _replace(building, out)


def _name_tokenizer_class(path: Path) -> None:
    """Name the class that transformers 4 and 5 both know; 5 writes a name that 4 does not."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _replace(building: Path, out: Path) -> None:
    for file in building.iterdir():
        file.chmod(0o644)
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    retired = out.with_name(out.name + ".retired")
    shutil.rmtree(retired, ignore_errors=True)
    if out.exists():
        out.rename(retired)
    building.rename(out)
    shutil.rmtree(retired, ignore_errors=True)
