"""The model card: what kind of model it is, which preset ships and why, figures that can be renewed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from npllm.starter.card import model_card, with_figures
from npllm.starter.corpus import Manifest, PackageEntry
from npllm.starter.curve import Curve, CurvePoint, read_curve
from npllm.starter.figures import Asked, Figures, Group, Score
from npllm.starter.network import new_network
from npllm.starter.paths import WorkFolder
from npllm.starter.presets import PRESETS
from npllm.starter.trials import Trial, parameters, read_trials, trial_of, write_trial

SCORE = Score(1.234, 1.345, 1.299, 0.25, 0.125, 0.75)
GROUP = Group("Python", Asked(1000, 10, 8, 8, 4), SCORE, None, 2.5, 0.5, None, (("tornado", 1.234),))
FIGURES = Figures((GROUP,), 0)
CURVE = Curve((CurvePoint(1_000_000, 5.0, 1.5),), 2_000_000, 300, 12.0, "2 CPU processes of one thread")
MANIFEST = Manifest(
    (
        PackageEntry("one", "1.0", "MIT", "train", 3, 2_000_000),
        PackageEntry("npm:two", "2.0", "ISC", "train", 3, 1_000_000, "typescript"),
        PackageEntry("tornado", "6.0", "Apache-2.0", "held-out", 3, 1_000_000),
    ),
    (),
    ("click", "pytest"),
)


def trial(preset: str, bits: float) -> Trial:
    chosen = PRESETS[preset]
    return Trial(preset, chosen.role, parameters(chosen.shape), 10**7, 50.0, "one GPU, bfloat16", bits, 1.3, 0.1)


def test_a_card_says_at_once_which_of_the_two_models_it_is() -> None:
    base = model_card(PRESETS["starter-cpu"], MANIFEST, FIGURES, CURVE)
    draft = model_card(PRESETS["cerebellum-cpu"], MANIFEST, FIGURES, CURVE)
    assert base.startswith("# The npllm starter: the base model that ships\n")
    assert draft.startswith("# The npllm cerebellum's starter: the draft model that ships\n") and "verifies" in draft
    for card in (base, draft):
        for words in ("MIT (1), ISC (1)", "2.0 MB of Python and 1.0 MB of JavaScript", "click, pytest", "| 1.234 |"):
            assert words in card
        assert "1.0M | 5 | 1.500" in card and "## Limits" in card and "tornado 6.0 (Apache-2.0)" in card


def test_a_card_says_which_preset_ships_and_why() -> None:
    preset = PRESETS["starter-cpu"]
    alone = model_card(preset, MANIFEST, FIGURES, CURVE, [trial("starter-cpu", 1.2), trial("cerebellum-cpu", 0.5)])
    assert "the only preset of its kind that was tried" in alone and "Not tried: `starter`." in alone
    assert "| `cerebellum-cpu` |" not in alone
    worse = model_card(preset, MANIFEST, FIGURES, CURVE, [trial("starter-cpu", 1.2), trial("starter", 0.9)])
    assert "not the one to ship: `starter` needs fewer" in worse and "Not tried" not in worse
    better = model_card(
        PRESETS["starter"], MANIFEST, FIGURES, CURVE, [trial("starter-cpu", 1.2), trial("starter", 0.9)]
    )
    assert "`starter`, the one to ship" in better
    assert better.index("| `starter` |") < better.index("| `starter-cpu` |")


def test_trials_are_kept_beside_their_runs_and_found_again(tmp_path: Path) -> None:
    for name in ("starter", "cerebellum"):
        made = trial_of(PRESETS[name], CURVE, FIGURES)
        assert (made.prefix_only, made.tokens, made.role) == (1.234, 2_000_000, PRESETS[name].role)
        write_trial(WorkFolder(tmp_path, name, PRESETS[name].data), made)
    assert [made.preset for made in read_trials(tmp_path)] == ["cerebellum", "starter"]


def test_parameters_are_counted_right() -> None:
    for preset in PRESETS.values():
        small = dataclasses.replace(preset.shape, vocabulary=300)
        assert parameters(small) == sum(p.numel() for p in new_network(small, 0).parameters())


def test_figures_in_a_card_can_be_renewed() -> None:
    card = model_card(PRESETS["starter"], MANIFEST, FIGURES, CURVE)
    newer = Figures((dataclasses.replace(GROUP, model=dataclasses.replace(SCORE, prefix_only=0.987)),), 5_000_000)
    renewed = with_figures(card, newer)
    assert "0.987" in renewed and "5.0M tokens of the training text" in renewed
    assert with_figures(renewed, FIGURES) == card
    with pytest.raises(ValueError, match="no figures"):
        with_figures("# Another card\n", newer)


def test_a_curve_is_read_as_the_training_writes_it(tmp_path: Path) -> None:
    (tmp_path / "curve.jsonl").write_text(
        '{"step": 0, "seconds": 0.0, "tokens": 0, "on": "one GPU"}\n'
        '{"step": 20, "seconds": 60.0, "tokens": 5000, "loss": 3.0}\n'
        '{"step": 30, "seconds": 90.0, "tokens": 7500, "validation": 1.5}\n'
        '{"step": 40, "seconds": 120.0, "tokens": 10000, "loss": 2.5}\n'
    )
    assert read_curve(tmp_path / "curve.jsonl") == Curve((CurvePoint(7500, 1.5, 1.5),), 10_000, 40, 2.0, "one GPU")
