"""A team's own words: text with placeholders, and sections that are there when a fact is.

    {{ monitor.name }} is down since {{ since }}. {{#runbook}}See {{ runbook }}.{{/runbook}}

That is the whole language. Names come from one list, values are put in as they are and never read as a template;
there is nothing to call, to loop over, to include or to define. Why not a library: the Mustache ones that are kept
up (chevron-ng, combustache) read partials from files, call lambdas, walk attributes and escape for HTML, and what is
taken away from an engine is what gets forgotten (Uptime Kuma: GHSA-vffh-c9pq-4crh, then CVE-2026-33130).
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

# What may stand in a template → what is put in its place; empty where a message has no such thing.
NAMES = {
    "monitor.name": "the monitor's name",
    "monitor.url": "what is watched",
    "incident.id": "the incident's number",
    "incident.url": "where the incident is found in the console",
    "kind": "what kind of message it is, such as opened",
    "severity": "critical, warning or info",
    "reason": "why, in one word, such as timeout",
    "detail": "why, in a sentence",
    "at": "when it happened",
    "since": "when the incident was opened",
    "duration": "how long it has lasted, or lasted",
    "regions": "the regions that saw it",
    "runbook": "the monitor's runbook",
    "tags": "the monitor's tags",
    "by": "whose deed it was",
    "team": "the team's name",
    "subject": "our own subject",
    "text": "our own words",
}
MOST_TEMPLATE_CHARS = 10_000
MOST_CHARS = 20_000  # of what comes out; a value that is named a thousand times ends here

# Bounded, and with no two ways to match the same: linear in the length of the text.
_TAG = re.compile(r"\{\{([^{}]{0,80})\}\}")


class TemplateInvalid(ValueError):
    """A template that cannot be rendered, with one sentence for its owner."""


class _Part(NamedTuple):
    kind: str  # "" text, "=" placeholder, "#" a section begins, "/" one ends
    value: str


def problem(template: str) -> str | None:
    """This will return what is wrong with a template as one sentence, None if nothing is."""
    try:
        _parsed(template)
    except TemplateInvalid as invalid:
        return str(invalid)
    return None


def rendered(template: str, facts: Mapping[str, str]) -> str:
    """This will return a template with facts put in, at most MOST_CHARS long. Raises TemplateInvalid.

    facts: name → value, a fact that is not there being an empty one. Names beyond NAMES cannot be asked for.
    """
    written: list[str] = []
    room = MOST_CHARS
    hidden = 0  # how many sections deep in something that is not shown
    for kind, value in _parsed(template):
        if hidden:
            hidden += {"#": 1, "/": -1}.get(kind, 0)
        elif kind == "#":
            hidden = int(not facts.get(value))
        elif kind != "/":
            piece = (facts.get(value, "") if kind == "=" else value)[:room]
            written.append(piece)
            room -= len(piece)
            if not room:
                break
    return "".join(written)


@lru_cache(maxsize=256)
def _parsed(template: str) -> tuple[_Part, ...]:
    if len(template) > MOST_TEMPLATE_CHARS:
        raise TemplateInvalid(f"A template has at most {MOST_TEMPLATE_CHARS:,} characters.")
    parts: list[_Part] = []
    open_sections: list[str] = []
    # Of what `split` returns, every second piece is the inside of a tag.
    for number, piece in enumerate(_TAG.split(template)):
        if number % 2:
            parts.append(_tag(piece.strip(), open_sections))
        elif "{{" in piece:
            raise TemplateInvalid("There is a {{ that begins no placeholder, such as {{ monitor.name }}.")
        elif piece:
            parts.append(_Part("", piece))
    if open_sections:
        raise TemplateInvalid(f"The section {{{{#{open_sections[-1]}}}}} is not closed.")
    return tuple(parts)


def _tag(inside: str, open_sections: list[str]) -> _Part:
    kind, name = (inside[0], inside[1:].strip()) if inside[:1] in ("#", "/") else ("=", inside)
    if name not in NAMES:
        # ascii: a letter that only looks like another one is to be seen.
        raise TemplateInvalid(f"There is no placeholder {ascii(name)}. There are: {', '.join(NAMES)}.")
    if kind == "#":
        open_sections.append(name)
    elif kind == "/" and (not open_sections or open_sections.pop() != name):
        raise TemplateInvalid(f"{{{{/{name}}}}} closes a section that is not open there.")
    return _Part(kind, name)
