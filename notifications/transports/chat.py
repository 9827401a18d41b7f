"""What the chats have in common: looks, links, and texts that fit and stay text."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from healthmon.lib.addresses import ascii_url, url_problem
from notifications.transports.base import Envelope

T = TypeVar("T")

LONGEST_URL = 2048
ZERO_WIDTH_SPACE = "\u200b"


@dataclass(frozen=True, slots=True)
class Look:
    """colour: 0xRRGGBB. mood: `good`, `attention`, `warning` or `accent`."""

    emoji: str
    colour: int
    mood: str


_RED, _AMBER, _GREEN, _BLUE = 0xD32F2F, 0xF9A825, 0x2E7D32, 0x1976D2
_BY_KIND = {
    "opened": Look("🔴", _RED, "attention"),
    "reminder": Look("🔔", _RED, "attention"),
    "escalated": Look("⏫", _RED, "attention"),
    "acknowledged": Look("👀", _BLUE, "accent"),
    "resolved": Look("🟢", _GREEN, "good"),
    "recovered": Look("🟢", _GREEN, "good"),
    "degraded": Look("🟡", _AMBER, "warning"),
    "flapping": Look("🔁", _AMBER, "warning"),
    "certificate_expiring": Look("📜", _AMBER, "warning"),
    "channel_failing": Look("📵", _AMBER, "warning"),
    "test": Look("🧪", _BLUE, "accent"),
}
_BY_SEVERITY = {
    "critical": Look("🔴", _RED, "attention"),
    "warning": Look("🟡", _AMBER, "warning"),
    "info": Look("🔵", _BLUE, "accent"),
}


def look(envelope: Envelope) -> Look:
    """Return how a message shows what it is about at a glance."""
    return _BY_KIND.get(envelope.kind) or _BY_SEVERITY.get(envelope.severity, _BY_SEVERITY["critical"])


def headline(envelope: Envelope) -> str:
    """Return the subject behind its emoji, as plain text."""
    return f"{look(envelope).emoji} {envelope.subject}"


def utf16(text: str) -> int:
    """Return the length that most chats count: an emoji is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def fit(text: str, most: int, made: Callable[[str], T], size: Callable[[T], int]) -> T:
    """This will return what is made of a text, or of as much of its start as gives a size of at most `most`.

    made: such as an escape function, so that no escape is cut in two. It grows with its text. An ellipsis stands for
    what is lost.
    """
    whole = made(text)
    if size(whole) <= most:
        return whole
    least, beyond = 0, len(text)
    while beyond - least > 1:
        middle = (least + beyond) // 2
        if size(made(text[:middle] + "…")) <= most:
            least = middle
        else:
            beyond = middle
    return made(text[:least] + "…")


def links(envelope: Envelope, most: int = 5, longest: int = LONGEST_URL) -> list[tuple[str, str]]:
    """Return label and URL of the links that can be shown, each URL free of what means something to a markup."""
    shown = [(label, _bare(url)) for label, url in envelope.links.items()]
    return [(label, url) for label, url in shown if url and len(url) <= longest][:most]


def main_link(envelope: Envelope, longest: int = LONGEST_URL) -> str | None:
    """Return where a tap on the message itself leads: never to a deed, such as acknowledging."""
    return dict(links(envelope, longest=longest)).get("Incident")


def _bare(url: str) -> str:
    if url_problem(url):
        return ""
    try:
        url = ascii_url(url)
    except ValueError:
        return ""
    scheme, _, rest = url.partition("://")
    host = re.split("[/?#]", rest, maxsplit=1)[0]  # brackets may be part of it: http://[::1]/
    return f"{scheme}://{host}" + quote(rest.removeprefix(host), safe="%/:;=?@#&$+,~!")


# `https://a.example/b_c` is shown as a link to what it says, and a backslash in it would be part of where it leads.
# `<` matters even where Markdown does not care: Discord and, of webhooks, Mattermost read `<@id>` and `<!channel>`.
_MARKDOWN = re.compile(
    r"(?P<url>https?://[A-Za-z0-9._/:?#&=%+,;-]*[A-Za-z0-9/])"
    r"|(?P<sign>[\\`*_\[\]()>~|])"
    r"|(?P<angle><)"
    r"|^(?P<start>[ \t]*(?:[-+#=]|\d+\.))",
    re.MULTILINE,
)


def markdown(text: str) -> str:
    """This will return Markdown that shows a text as it is: no emphasis, list, heading, mention or disguised link."""
    return _MARKDOWN.sub(_shown, unmentioned(text))


def _shown(found: re.Match[str]) -> str:
    if found["sign"]:
        return "\\" + found["sign"]
    if found["angle"]:
        return "<" + ZERO_WIDTH_SPACE
    return found["url"] or ZERO_WIDTH_SPACE + found["start"]


def unmentioned(text: str) -> str:
    """This will return a text whose `@names` reach nobody: an invisible space follows the sign.

    A sign behind a letter or a digit, as in an e-mail address, is left alone: it mentions nobody.
    """
    return re.sub(r"(?<![^\W_])@(?=\w)", f"@{ZERO_WIDTH_SPACE}", text)


def seconds(value: Any) -> float | None:
    """Return a waiting time that an answer's JSON names, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        return None
    return float(value)
