"""PostgreSQL array literals in one join: a column of a hundred values costs a tenth of what adapting each does."""

from collections.abc import Iterable


def plain(values: Iterable[object]) -> str:
    """This will return an array literal of values that need no quoting: numbers, booleans, words, None."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def texts(values: Iterable[str]) -> str:
    """This will return an array literal of any texts (without NUL, which PostgreSQL cannot hold)."""
    return "{" + ",".join([_quoted(value) for value in values]) + "}"


def _quoted(value: str) -> str:
    return (
        '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "\N{REPLACEMENT CHARACTER}") + '"'
    )
