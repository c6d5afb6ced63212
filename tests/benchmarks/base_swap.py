"""How much of what was learned does one sleep on another base bring back? Two bases of different size are made for it.

    python -m tests.benchmarks.base_swap
    python -m tests.benchmarks.base_swap --first FOLDER_OR_NAME --second FOLDER_OR_NAME --days 2

The first base sleeps after each of the days. Then the base is changed, and it sleeps once. On lines that neither has
learned, in nats per byte:

    share = gain of the second base in its one sleep / gain of an adapter that the second base makes over the same days

The second figure is what the second base has when it was the base all along. Without bases given, two tiny Llamas are
trained for a short while on the standard library's text; npllm's own source is the person's work. Then the first base
comes back: the adapters that it finds are the old ones.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sysconfig
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch

from npllm.config import Config
from npllm.memory.postgres import destroy
from npllm.memory.store import Store
from npllm.models import examples
from npllm.models.adapters import AdapterSet
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep.objectives import Sample, answer_nats
from npllm.sleep.protocol import Ending
from npllm.sleep.supervisor import Sleeper
from npllm.types import Experience, VersionState, new_id
from tests.fixtures_sleep import MORNING, config_for, from_source
from tests.tiny import make_tiny_model

FILES = ("types.py", "config.py", "cli.py", "doctor.py", "memory/store.py", "memory/journal.py", "sleep/scheduler.py")
CONTEXT = 256


def practise(folder: Path, *, hidden: int, layers: int, steps: int) -> Path:
    """A tiny Llama that has read some of the standard library."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_tiny_model(folder, hidden=hidden, layers=layers)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40]
    ids = tokenizer(
        "\n".join(path.read_text(encoding="utf-8", errors="replace")[:20_000] for path in library)
    ).input_ids
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    chance = random.Random(0)
    for _ in range(steps):
        starts = [chance.randrange(len(ids) - 128) for _ in range(8)]
        batch = torch.tensor([ids[start : start + 128] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder, safe_serialization=True)
    return folder


def nats(config: Config, adapter: tuple[object, Path] | None, judged: Sequence[Experience]) -> float:
    """Per byte of the judged lines."""
    base = Base.load(config.base.model, device="cpu", threads=1)
    if adapter is not None:
        loaded = AdapterSet(base)
        loaded.load(adapter[0], adapter[1], judged[0].context)  # type: ignore[arg-type]
        loaded.apply(loaded.choose((judged[0].context,)))
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), CONTEXT)
    total = 0.0
    with torch.inference_mode():
        for item in judged:
            made = examples.encode(builder, item.prefix, item.suffix, item.place.path, item.final_text)
            sample = Sample(made.ids, made.loss_start)
            total += answer_nats(base.model, sample, last=len(made.ids) - made.loss_start - 1)
    return total / sum(len(item.final_text.encode()) for item in judged)


async def sleep(config: Config) -> None:
    sleeper = Sleeper(config)
    await sleeper.start(new_id(), "a benchmark")
    ended = await sleeper.wait()
    assert ended is not None and ended.ending is Ending.DONE, ended
    print("   ", ended.text.splitlines()[0][:150], flush=True)


async def in_use(store: Store, config: Config) -> tuple[object, Path] | None:
    from npllm.models.base import fingerprint, resolve

    found = await store.adapter_versions(
        state=VersionState.PUBLISHED, base_fingerprint=fingerprint(resolve(config.base.model))
    )
    return (found[0].id, config.home / found[0].folder) if found else None


async def live(home: Path, models: Sequence[str], days: Sequence[Sequence[Experience]]) -> list[tuple[Config, Store]]:
    """Days on the first of the models, then a sleep on each of the others."""
    home.mkdir()
    first, *others = [
        config_for(home, Path(model), epochs=1, layers="auto", rank=0, alpha=0, learning_rate=1e-3) for model in models
    ]
    store = await Store.connect(first)
    for day in days:
        await store.write(day)
        await sleep(first)
    for other in others:
        await sleep(other)
    return [(first, store), *((other, store) for other in others)]


async def measure(first: str, second: str, count: int, per_day: int, folder: Path) -> None:
    days = [from_source(per_day, files=FILES, start=MORNING + timedelta(days=day), offset=day) for day in range(count)]
    held = [
        item
        for item in from_source(4 * per_day, files=FILES, offset=2)
        if item.final_text not in {one.final_text for day in days for one in day}
    ][:150]
    print(f"{count} days on {first}, then one sleep on {second}:")
    swapped = await live(folder / "swapped", [first, second], days)
    print(f"the same days on {second} all along:")
    along = await live(folder / "along", [second], days)
    try:
        (old, store), (new, _) = swapped
        ((own, own_store),) = along
        bare = nats(new, None, held)
        after = nats(new, await in_use(store, new), held)
        whole = nats(own, await in_use(own_store, own), held)
        back = nats(old, await in_use(store, old), held), nats(old, None, held)
    finally:
        for home, connected in (("swapped", swapped[0][1]), ("along", along[0][1])):
            await connected.close()
            await asyncio.to_thread(destroy_soon, folder / home)
    bits = [value / math.log(2) for value in (*reversed(back), bare, after, whole)]
    print(f"first base, bits per byte of {len(held)} lines: bare {bits[0]:.4f}, with its adapters again {bits[1]:.4f}")
    print(f"second base: bare {bits[2]:.4f}, one sleep after the change {bits[3]:.4f}, all along {bits[4]:.4f}")
    if whole >= bare:
        print(
            "no share: even all along the second base gained nothing on these lines. Give it more days, or lines a day."
        )
        return
    print(f"share of the gain recovered after one sleep on the new base: {(bare - after) / (bare - whole):.0%}")


def destroy_soon(home: Path) -> None:
    """The database's server may still be on its way out."""
    import time

    from npllm.types import StoreError

    for _ in range(100):
        try:
            return destroy(home)
        except StoreError:
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", default="", help="by default a tiny Llama of 2 layers, 64 wide")
    parser.add_argument("--second", default="", help="by default one of 3 layers, 96 wide")
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--per-day", type=int, default=120)
    parser.add_argument("--steps", type=int, default=300, help="of the tiny bases' training")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="npllm-base-swap-") as place:
        folder = Path(place)
        first = args.first or str(practise(folder / "small", hidden=64, layers=2, steps=args.steps))
        second = args.second or str(practise(folder / "larger", hidden=96, layers=3, steps=args.steps))
        asyncio.run(measure(first, second, args.days, args.per_day, folder))


if __name__ == "__main__":
    main()
