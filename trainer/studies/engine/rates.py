"""Rates as they are typed: a list with commas, in which `...` counts on at the step before it."""

from __future__ import annotations

from ....cache.errors import UserError

EXAMPLE = "0,0.1,...,0.7"
DIGITS = 9  # decimals of a rate that is counted up to


def rates_of(text: str) -> tuple[float, ...]:
    """`0,0.1,...,0.7` or a plain list, in ascending order, each once. Raises UserError for anything else."""
    parts = [part.strip() for part in (text).split(",") if part.strip()]
    if not parts:
        raise UserError(f"--rates names no rate. Give some with commas, for example {EXAMPLE}.")
    found: list[float] = []
    for place, part in enumerate(parts):
        if part in ("...", "…"):
            if place < 2 or place == len(parts) - 1 or "..." in parts[place - 2 : place]:
                raise UserError(f"--rates {text}: '...' stands between two rates and the last, as in {EXAMPLE}.")
            found += counted_up(found[-2], found[-1], number(parts[place + 1], text), text)
        else:
            found.append(number(part, text))
    outside = [rate for rate in found if not 0 <= rate < 1]
    if outside:
        raise UserError(f"--rates {text}: a missing rate is a share from 0 to under 1, and {outside[0]:g} is none.")
    return tuple(sorted(set(found)))


def number(part: str, text: str) -> float:
    """One rate."""
    try:
        return float(part)
    except ValueError:
        raise UserError(f"--rates {text}: {part!r} is no number. An example: {EXAMPLE}.") from None


def counted_up(first: float, second: float, last: float, text: str) -> list[float]:
    """The rates between `second` and `last` at the step from `first` to `second`."""
    step = round(second - first, DIGITS)
    count = round((last - second) / step) if step > 0 else 0
    if count < 1 or count > 1000 or abs(second + count * step - last) > 1e-6:
        raise UserError(f"--rates {text}: steps of {step:g} from {second:g} do not lead to {last:g}.")
    return [round(second + place * step, DIGITS) for place in range(1, count)]
