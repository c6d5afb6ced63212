"""LoRA adapters around a base that never changes: load, choose with a strength, switch, unload.

W x + s * (alpha / r) * B A x (Hu et al. 2021, 2106.09685), s the strength. Adapters are plain PEFT folders
with a manifest; one whose hash or base fingerprint does not fit is refused, and the message says why. The
base's tensors are the same objects before, during and after; nothing is ever merged into them. Used from
the engine's thread.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import peft
import safetensors
import safetensors.torch
import torch
from peft.tuners.lora import LoraLayer

from npllm.models.base import Base
from npllm.models.engine import NO_ADAPTERS, AdapterChoice
from npllm.models.manifest import (
    MANIFEST,
    WEIGHTS,
    Manifest,
    publish_folder,
    read_manifest,
    sha256_file,
    whole_folder,
    write_manifest,
)
from npllm.types import ModelError

__all__ = [
    "MANIFEST",
    "WEIGHTS",
    "AdapterChoice",
    "AdapterSet",
    "Manifest",
    "check_plain",
    "publish_folder",
    "read_manifest",
    "sha256_file",
    "whole_folder",
    "write_manifest",
]

# Settings of peft's LoRA that make it more than W x + s B A x.
_MORE_THAN_LORA = (
    "alora_invocation_tokens",
    "arrow_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_qalora",
)

log = logging.getLogger(__name__)


class AdapterSet:
    """The adapters that are loaded beside one base. At first none acts."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._peft: Any = None  # a PeftModel while there is any adapter
        self._contexts: dict[UUID, str] = {}
        self._output_only: set[UUID] = set()
        self._active = NO_ADAPTERS
        base.adapters = self

    def loaded(self) -> tuple[UUID, ...]:
        """The versions that are loaded, in the order of loading."""
        return tuple(self._contexts)

    def load(self, version_id: UUID, folder: Path, context: str) -> Manifest:
        """Load a version. It does not act until it is chosen.

        Args:
            context: the adapter family it serves, e.g. "language:python".

        Raises:
            ModelError: it is loaded already, is not there, is damaged, or does not fit the base.
        """
        if version_id in self._contexts:
            raise ModelError(f"Adapter {version_id} is loaded already.")
        manifest = read_manifest(folder)
        if manifest.version_id != version_id:
            raise ModelError(f"{folder} holds adapter {manifest.version_id}, not {version_id}; it is not loaded.")
        if manifest.base_fingerprint != self._base.info.fingerprint:
            raise ModelError(
                f"Adapter {version_id} was trained for another base ({manifest.base_fingerprint[:12]}; this "
                f"one is {self._base.info.fingerprint[:12]}), so it is not loaded. What was learned is kept: "
                "the next sleep trains a new one for this base."
            )
        with _told(folder), torch.inference_mode(False):  # peft cannot handle tensors made in that mode
            tensors = _read_weights(folder / WEIGHTS, manifest)
            config = _read_config(folder)
            try:
                self._insert(version_id.hex, config, tensors)
            except Exception as error:
                self._remove(version_id.hex)
                self._act(self._active)
                raise ModelError(f"The adapter in {folder} does not fit the base: {_first_line(error)}") from error
            self._contexts[version_id] = context
            if self._on_output_alone(version_id.hex):
                self._output_only.add(version_id)
            self._act(self._active)
        return manifest

    def unload(self, version_id: UUID) -> None:
        """Forget a version; if it is acting, none acts from now on. Unknown ones are no error."""
        if self._contexts.pop(version_id, None) is None:
            return
        self._output_only.discard(version_id)
        with torch.inference_mode(False):
            if version_id in self._active.versions:
                self._active = NO_ADAPTERS
                self._act(NO_ADAPTERS)
            self._remove(version_id.hex)
            self._act(self._active)

    def fitting(self, contexts: Sequence[str]) -> tuple[tuple[str, UUID], ...]:
        """Of the given contexts those with an adapter, each with its newest version, in the given order."""
        newest = {family: version for version, family in self._contexts.items()}
        return tuple((context, newest[context]) for context in contexts if context in newest)

    def choose(self, contexts: Sequence[str], strength: float = 1.0) -> AdapterChoice:
        """What acts by the rules: the adapter of the first context that has one, alone; else none."""
        found = self.fitting(contexts)[:1] if strength else ()
        return AdapterChoice(tuple((version, strength) for _, version in found))

    def apply(self, choice: AdapterChoice) -> None:
        """Make a choice act.

        Raises:
            ModelError: a version in it is not loaded; what acted before goes on.
        """
        if choice == self._active:
            return
        for version in choice.versions:
            if version not in self._contexts:
                raise ModelError(f"Adapter {version} is not loaded.")
        with torch.inference_mode(False):
            self._act(choice)
        self._active = choice

    def before_output(self, choice: AdapterChoice) -> AdapterChoice:
        """The part of a choice that acts before the output layer: keys and values are the same without the rest."""
        return AdapterChoice(tuple(pair for pair in choice.strengths if pair[0] not in self._output_only))

    def _on_output_alone(self, name: str) -> bool:
        head = self._base.model.get_output_embeddings()
        layers = [module for module in self._base.model.modules() if isinstance(module, LoraLayer)]
        return all(module is head for module in layers if name in module.lora_A or name in module.lora_embedding_A)

    def _insert(self, name: str, config: Any, tensors: dict[str, torch.Tensor]) -> None:
        if self._peft is None:
            self._peft = peft.PeftModel(
                self._base.model,
                config,
                adapter_name=name,
                autocast_adapter_dtype=False,
                low_cpu_mem_usage=True,
            )
        else:
            self._peft.add_adapter(name, config, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
        dtype = getattr(torch, self._base.info.dtype)
        placed = {key: value.to(self._base.device, dtype) for key, value in tensors.items()}
        peft.set_peft_model_state_dict(self._peft, placed, adapter_name=name, low_cpu_mem_usage=True)
        wanted = peft.get_peft_model_state_dict(self._peft, adapter_name=name, save_embedding_layers=False)
        if wanted.keys() != placed.keys():
            odd = sorted(wanted.keys() ^ placed.keys())
            raise ModelError(f"{len(odd)} tensors are missing or too many, e.g. {odd[0]}.")
        self._peft.eval()

    def _remove(self, name: str) -> None:
        """Take an adapter out; with the last one go peft's layers too, and the base's own modules are back."""
        if self._peft is None or name not in self._peft.peft_config:
            return
        others = [other for other in self._peft.peft_config if other != name]
        if others:
            self._peft.base_model.set_adapter(others[:1], inference_mode=True)
            self._peft.delete_adapter(name)
            return
        self._peft.base_model.unload()
        self._peft = None
        if hasattr(self._base.model, "peft_config"):
            del self._base.model.peft_config

    def _act(self, choice: AdapterChoice) -> None:
        self._base.generation += 1
        if self._peft is None:
            return
        tuner = self._peft.base_model
        if choice.strengths:
            tuner.enable_adapter_layers()
            tuner.set_adapter([version.hex for version in choice.versions], inference_mode=True)
        else:
            tuner.disable_adapter_layers()
        for module in self._base.model.modules():
            if isinstance(module, LoraLayer):
                for version, strength in choice.strengths:
                    module.set_scale(version.hex, strength)
        # peft lets adapters that it switches on learn; here nothing may
        self._base.model.requires_grad_(False)


def check_plain(folder: Path, manifest: Manifest) -> None:
    """Whether a folder that came from outside holds plain LoRA in finite numbers; it is not put on a base.

    Raises:
        ModelError: it does not; says what it holds.
    """
    _read_config(folder)
    tensors = _read_weights(folder / WEIGHTS, manifest)
    odd = [name for name in tensors if ".lora_A" not in name and ".lora_B" not in name and "lora_embedding" not in name]
    if odd or not tensors:
        raise ModelError(f"{folder / WEIGHTS} holds more than plain LoRA or nothing ({odd[0] if odd else 'empty'}).")
    broken = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise ModelError(f"{folder / WEIGHTS} holds numbers that are not finite ({broken[0]}).")


def _read_weights(file: Path, manifest: Manifest) -> dict[str, torch.Tensor]:
    """The tensors of a file whose hash is the manifest's; what is hashed is what is used."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{file} cannot be read ({error.strerror}), so the adapter is not loaded. The next sleep trains a new one."
        ) from error
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise ModelError(
            f"{file} is not what its manifest says (sha256 differs), so the adapter is not loaded. The next "
            "sleep "
            "trains a new one."
        )
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ModelError(f"{file} is no safetensors file: {error}") from error


def _read_config(folder: Path) -> Any:
    """The adapter's peft configuration: plain LoRA and nothing that would reach beyond it."""
    file = folder / "adapter_config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        kind = raw.get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{file} cannot be read ({error}), so the adapter is not loaded.") from error
    if kind != "LORA" or raw.get("bias", "none") != "none" or any(raw.get(key) for key in _MORE_THAN_LORA):
        raise ModelError(
            f"{file} is not a plain LoRA adapter (peft_type LORA, bias none, no DoRA, no modules_to_save); "
            "it is not "
            "loaded."
        )
    with _told(folder):
        config = peft.LoraConfig.from_pretrained(str(folder))
    config.inference_mode = True
    config.init_lora_weights = True  # some of its other values would rewrite the base's weights
    return config


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """peft's warnings go to our log, with the adapter's name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for warning in caught:
                about_code = issubclass(warning.category, FutureWarning | DeprecationWarning)
                about_merging = "tie_word_embeddings" in str(warning.message)  # nothing is ever merged here
                level = logging.DEBUG if about_code or about_merging else logging.WARNING
                log.log(level, "adapter %s: %s", folder.name, warning.message)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
