"""The days of the cerebellum's plastic layer: experiences as it lives through them, and what they make of it.

The rule and its learning are `backpropamine`'s; here it meets the network, whose last hidden states it works on, and
the files of versions. Knows nothing of the database.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from npllm.models import plastic
from npllm.models.base import Base
from npllm.models.cerebellum import read_plastic
from npllm.models.manifest import read_manifest
from npllm.sleep import backpropamine
from npllm.sleep.backpropamine import Moment, Plastic
from npllm.sleep.objectives import Sample, answer_nats

log = logging.getLogger(__name__)

PASSES = 6  # over the mornings
RATE = 3e-3


@torch.no_grad()
def moment(base: Base, sample: Sample, reward: float) -> Moment:
    """A sample as the plastic layer lives through it: the last hidden states before each token of its answer."""
    seen: list[torch.Tensor] = []
    handle = base.model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        nats = answer_nats(base.model, sample)
    finally:
        handle.remove()
    count = len(sample.ids) - sample.loss_start
    hidden = seen[0][0, -count - 1 : -1].float().cpu()
    return Moment(hidden, torch.tensor(sample.ids[sample.loss_start :]), reward, nats / count)


def live_through(
    base: Base,
    mornings: Sequence[Sequence[Moment]],
    newest: Sequence[Moment],
    *,
    start: Path,
    seed: int,
    stop: threading.Event,
    retroactive: bool = True,
) -> dict[str, torch.Tensor]:
    """Learn the layer through the mornings, then roll its trace, from nothing, through the newest one.

    Deterministic, so an interruption only costs the time.

    Args:
        start: the version whose layer is learned on, where it has one that fits; never its trace.

    Returns: what `plastic.safetensors` holds.

    Raises:
        Interrupted: `stop` was set.
    """
    layer = Plastic(
        base.model.get_output_embeddings().weight.detach().float().cpu(), seed=seed, retroactive=retroactive
    )
    _continue_with(layer, start)
    losses = backpropamine.train(layer, mornings, stop, passes=PASSES, rate=RATE)
    log.info("the plastic layer learned through %d mornings: %.3f to %.3f", len(mornings), losses[0], losses[-1])
    own = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    return own | {"hebb": layer.roll(newest, stop).hebb}


def layer_in(folder: Path) -> plastic.PlasticLayer | None:
    """The plastic layer that serves in a version's folder; None where there is none.

    Raises:
        ModelError: it is damaged.
    """
    if not (folder / plastic.WEIGHTS).is_file():  # the model as it came; a manifest there is its maker's own
        return None
    digest = read_manifest(folder).data.get("plastic_sha256")
    return read_plastic(folder, str(digest)) if digest else None


def _continue_with(layer: Plastic, folder: Path) -> None:
    file = folder / plastic.WEIGHTS
    if not file.is_file():
        return
    tensors = load_file(file)
    own = dict(layer.named_parameters())
    if all(name in tensors and tensors[name].shape == parameter.shape for name, parameter in own.items()):
        for name, parameter in own.items():
            parameter.data.copy_(tensors[name])
