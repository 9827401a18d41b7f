"""What a status code is held against. Pure, and shared by the probe and the API's validation."""

import functools
import re

_PART = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")


@functools.lru_cache(maxsize=1024)
def parse_expected_status(text: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges, both ends included, of "200-299" or "200,204,301-308".

    Raises ValueError with one sentence for a person.
    """
    ranges = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()[:20]!r} is not a status code (100-599) or a range of them")
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise ValueError(f"the range {low}-{high} ends before it starts")
        ranges.append((low, high))
    return tuple(ranges)


@functools.lru_cache(maxsize=1024)
def status_matches(expected: str, status_code: int) -> bool:
    """Return whether a status code is in an expectation that `parse_expected_status` accepts."""
    return any(low <= status_code <= high for low, high in parse_expected_status(expected))
