"""Plain LoRA beside aLoRA (2504.12397), which acts only from a control token on, inside the base's layers.

    python -m tests.benchmarks.alora --seed 0

The same samples, rank, rate and number of steps, one after the other; learned is the answer alone (aLoRA cannot learn
the prompt's tokens before its invocation). Prints bits per byte of held-out lines, and what a change of adapter costs:
the prefill of a prompt anew, against what aLoRA has to compute again, as a ratio measured in the same run.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from npllm.evaluation import lines, sources
from npllm.evaluation import plan as days
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep import lora
from npllm.sleep.objectives import Sample
from tests.benchmarks.adapter_layers import asked, bits

CONTEXT = 1024
INVOCATION = "<|middle|>"
TOGETHER = 4  # samples of a step
REPEATS = 5


def adapted(base: Base, rank: int, invocation: list[int] | None) -> Any:
    """The base with a fresh adapter on all layers but the output."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(lora.targets(base.model, "all")),
        alora_invocation_tokens=invocation,
    )
    torch.manual_seed(0)
    return get_peft_model(base.model, config)


def learn(model: Any, samples: list[Sample], rate: float) -> None:
    """One pass, `TOGETHER` samples a step, AdamW with a cosine to a tenth."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    steps = [samples[at : at + TOGETHER] for at in range(0, len(samples), TOGETHER)]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(steps), eta_min=rate / 10)
    for step in steps:
        count = sum(len(sample.ids) - sample.loss_start for sample in step)
        optimizer.zero_grad()
        for sample in step:
            ids = torch.tensor([sample.ids])
            rows = model(input_ids=ids, use_cache=False).logits[0, sample.loss_start - 1 : -1].float()
            loss = torch.nn.functional.cross_entropy(rows, ids[0, sample.loss_start :], reduction="sum") / count
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


def seconds(model: Any, ids: tuple[int, ...]) -> float:
    """The best of some prefills."""
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        with torch.inference_mode():
            model(input_ids=torch.tensor([ids]), use_cache=False)
        found.append(time.perf_counter() - began)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="textual=0.40.0,0.60.0", metavar="NAME=OLD,NEW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--morning", type=int, default=200)
    parser.add_argument("--heldout", type=int, default=100)
    args = parser.parse_args()
    name, _, versions = args.package.partition("=")
    old, new = versions.split(",")
    pair = sources.package(name, old, new, Path(".eval/wheels"))
    parts = days.make(lines.changes(pair), morning=args.morning, held_out=args.heldout, seed=args.seed)
    for way in ("LoRA", "aLoRA"):
        base = Base.load("starter", device="cpu", threads=1, shared=False)
        builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), CONTEXT)
        samples = [sample for sample, _ in asked(builder, parts.morning)]
        random.Random(0).shuffle(samples)
        judged = asked(builder, parts.held_out)
        token = builder.codec.token_id(INVOCATION)
        assert token is not None
        model = adapted(base, args.rank, [token] if way == "aLoRA" else None)
        before = bits(model, judged)
        learn(model, samples, args.rate)
        after = bits(model, judged)
        print(f"{way}: {before:.4f} -> {after:.4f} bits per byte ({after / before - 1:+.2%})", flush=True)
        if way == "aLoRA":
            prompt = max((sample.ids[: sample.loss_start] for sample in samples), key=len)
            again = len(prompt) - max(at for at, found in enumerate(prompt) if found == token)
            whole, rest = seconds(base.model, prompt), seconds(base.model, prompt[-again:])
            print(
                f"a change of adapter computes {again} of {len(prompt)} tokens again: {rest / whole:.2f} of a prefill"
            )


if __name__ == "__main__":
    main()
