"""What the cerebellum's confidence is worth: from which one on it may answer alone.

On lines that it has not seen it says (confidence c, whether the line was exactly what the person wrote). The threshold
is the least c for which the precision of all lines at or above it is at least the target *with confidence*: the lower
bound of Wilson's interval (1927),

    (p + z^2/2n - z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n) >= target,

so that few lines promise little. No such c: no reflexes. Pure arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from npllm.models.cerebellum import Calibration

Z = 1.0  # one standard deviation: 84 % sure, one-sided
MIN_ANSWERED = 5


def calibrate(judged: Sequence[tuple[float, bool]], target: float) -> Calibration:
    """The threshold for a precision of `target`, from (confidence, right) pairs."""
    ordered = sorted(judged, key=lambda pair: -pair[0])
    best: tuple[float, int, int] | None = None
    right = 0
    for number, (confidence, hit) in enumerate(ordered, 1):
        right += hit
        ties = number < len(ordered) and ordered[number][0] == confidence  # all of one confidence or none
        if not ties and number >= MIN_ANSWERED and lower_bound(right, number) >= target:
            best = confidence, number, right
    if best is None:
        return Calibration(None, len(ordered), 0, 0)
    threshold, answered, hits = best
    return Calibration(threshold, len(ordered), answered, hits)


def lower_bound(right: int, total: int, z: float = Z) -> float:
    """Of Wilson's interval for `right` of `total`."""
    p = right / total
    spread = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return (p + z * z / (2 * total) - spread) / (1 + z * z / total)
