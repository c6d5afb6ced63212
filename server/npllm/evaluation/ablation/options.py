"""The words of `npllm eval replay --ablate`, and what they are where they are not said."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from npllm.evaluation import replay
from npllm.evaluation.ablation import arms
from npllm.evaluation.sources import EvaluationError

#: Two projects in two styles, of which the starter model has read nothing (`starter.sources.RESERVED`).
PROJECTS = (
    "textual=0.40.0,0.44.0,0.48.0,0.52.0,0.56.0,0.60.0",
    "httpx=0.13.0,0.15.0,0.17.0,0.19.0,0.22.0,0.28.1",
)
#: What differs with `--quick`: about half an hour on two cores.
QUICK: Mapping[str, Any] = {
    "days": 2,
    "morning": 60,
    "heldout": 40,
    "general": 20,
    "seeds": [0],
    "minutes": 30.0,
    "arms": list(arms.QUICK),
}
QUICK_SETTINGS: Mapping[str, Any] = {"sleep.max_tokens": 512, "sleep.min_holdout": 10}
FULL: Mapping[str, Any] = {
    "days": 5,
    "morning": 120,
    "heldout": 80,
    "general": 40,
    "seeds": [0, 1, 2],
    "minutes": None,
    "arms": None,
}
LONGEST_SLEEP = "sleep.max_minutes"

DESCRIPTION = (
    "What does each mechanism gain, over days of real projects' history? Ctrl-C, or a kill, loses the day under way: "
    "the same command goes on with it."
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The words, with what stands for those that are missing."""
    args = _parser().parse_args(argv)
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.swap_base is not None:
        args.swap_base = args.swap_base.absolute()  # the child runs elsewhere
    return args


def common(args: argparse.Namespace) -> dict[str, Any]:
    """Settings for all arms.

    Raises:
        EvaluationError: one is not SECTION.KEY=VALUE, or this version does not have it.
    """
    made: dict[str, Any] = dict(QUICK_SETTINGS if args.quick else {})
    if base := replay.base_settings(args.base):
        made["base.model"] = base["base"]["model"]
    if args.sleep_minutes is not None:
        made[LONGEST_SLEEP] = args.sleep_minutes
        if not arms.known(made):
            raise EvaluationError(f"A sleep cannot take at most {args.sleep_minutes:g} minutes.")
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise EvaluationError(f"--set wants SECTION.KEY=VALUE, not {text!r}.")
        with contextlib.suppress(ValueError):
            value = json.loads(value)
        made[name] = value
        if not arms.known({name: value}):
            raise EvaluationError(f"{name} = {value!r} is no setting of this version.")
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm eval replay --ablate", description=DESCRIPTION)
    parser.add_argument("--ablate", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="about 30 minutes on two cores: fewer arms, days, lines")
    source = parser.add_argument_group("what to replay")
    source.add_argument(
        "--package",
        action="append",
        metavar="NAME=V0,V1,...",
        help=f"successive releases, one day between two; may be repeated (default: {' and '.join(PROJECTS)})",
    )
    source.add_argument("--git", action="append", metavar="DIR|URL", help="a git repository; may be repeated")
    source.add_argument("--from", dest="from_revision", metavar="REV", help="its first state (default: late enough)")
    source.add_argument("--to", dest="to_revision", metavar="REV", help="its last state (default: HEAD)")
    source.add_argument("--endings", default=".py", help="file name endings, with commas (default: .py)")
    size = parser.add_argument_group("how much (with --quick: less)")
    size.add_argument("--days", type=replay.positive, metavar="N", help="days, one sleep each (5)")
    size.add_argument("--morning", type=replay.positive, metavar="N", help="lines to work on in a day (120)")
    size.add_argument("--heldout", type=replay.positive, metavar="N", help="lines to ask after each sleep (80)")
    size.add_argument("--general", type=replay.positive, metavar="N", help="lines of general code (40)")
    size.add_argument("--seeds", type=replay.seeds, metavar="N,N,...", help="(0,1,2)")
    size.add_argument("--minutes", type=float, metavar="M", help="begin no day after so long (no end; --quick: 30)")
    size.add_argument("--sleep-minutes", type=float, metavar="M", help="the longest sleep (240: until all is learned)")
    size.add_argument("--arms", type=lambda text: text.split(","), metavar="NAME,NAME,...", help="only these (all)")
    parser.add_argument("--base", metavar="MODEL", help="base model: folder or hub id (default: as configured)")
    parser.add_argument("--swap-base", type=Path, metavar="FOLDER", help="carry what was learned over to this base")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a setting of all arms")
    parser.add_argument("--home", type=Path, default=Path(".eval"), help="where everything is kept (default: .eval)")
    parser.add_argument("--report", action="store_true", help="only tell what is there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between this page's marks")
    return parser
