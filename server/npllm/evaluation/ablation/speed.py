"""How fast the sleep's training is beside a bare loop: `python -m npllm.evaluation.ablation.speed SETTINGS`.

The same base, the same samples (lines of Python's standard library) and the same steps, in turns, so that a machine
that is busy with something else is so for both; the middle one of the rounds' ratios counts. SETTINGS is JSON,
"section.key" -> value. Prints one JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ROUNDS = 3
STEPS = 5
SHORT = 64  # tokens; no sample is shorter


def main() -> None:
    """Measure, and print."""
    print(json.dumps(measure(json.loads(sys.argv[1]))))


def measure(settings: dict[str, Any]) -> dict[str, float]:
    """Tokens per second of both (the middle ones), and the ratio."""
    from npllm import config as configuration
    from npllm.config import Config
    from npllm.evaluation.ablation import exam
    from npllm.evaluation.ablation.arms import nested
    from npllm.models import examples
    from npllm.models.base import Base
    from npllm.models.fim import PromptBuilder, choose
    from npllm.sleep import bare, lora
    from npllm.sleep.learner import control_tokens
    from npllm.sleep.objectives import Nll, Sample
    from npllm.sleep.process import threads
    from npllm.sleep.recipe import recipe_of
    from npllm.sleep.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        config = configuration.merge(Config(home=Path(folder)), nested(settings), source="the settings")
        base = Base.load(
            config.base.model, device=config.base.device, threads=threads(config.sleep.threads), asleep=True
        )
        recipe = recipe_of(config, base.info.parameters)
        most = min(config.sleep.max_tokens, base.info.context_tokens)
        builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), most)
        samples: list[Sample] = []
        for visit in exam.general(STEPS * recipe.batch_tokens // SHORT, each=1):
            for ask in visit.asks:
                above, below = visit.change.around(ask.number)
                line = visit.change.new[ask.number]
                prefix = above[-3 * most :] + line[: ask.column]
                made = examples.encode(builder, prefix, below[: 3 * most], visit.path, visit.truth(ask))
                samples.append(Sample(made.ids, made.loss_start))
            if sum(len(sample.ids) for sample in samples) >= STEPS * recipe.batch_tokens:
                break
        adapted = lora.attach(base.model, recipe.shape, seed=0)
        control, pad = control_tokens(base, builder), builder.end_id or 0
        found: list[tuple[float, float]] = []
        for number in range(ROUNDS):
            file = Path(folder) / f"{number}.safetensors"
            trainer = Trainer(adapted, samples, [], recipe, control=control, pad=pad, file=file, stop=threading.Event())
            position = trainer.run(3600.0).position
            alone = bare.tokens_per_s(adapted, samples, recipe, Nll(recipe.mu, control, pad))
            found.append((position.tokens / position.seconds, alone))
    ratios = [ours / alone for ours, alone in found]
    ours, alone = (statistics.median(column) for column in zip(*found, strict=True))
    return {"sleep": ours, "bare": alone, "ratio": statistics.median(ratios)}


if __name__ == "__main__":
    main()
