"""What the chats have in common: texts that fit and stay text, and links that lead where they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications import messages
from notifications.transports import chat
from tests.support.sending import envelope

Z = chat.ZERO_WIDTH_SPACE

MARKDOWN = [
    # text, Markdown that shows it
    ("plain, with 1.5 s & more - or less!", "plain, with 1.5 s & more - or less!"),
    ("*bold* _slanted_ ~~gone~~ `code` ||hidden||",
     r"\*bold\* \_slanted\_ \~\~gone\~\~ \`code\` \|\|hidden\|\|"),
    ("[bank](https://evil.example/)", r"\[bank\]\(https://evil.example/\)"),
    ("![x](https://evil.example/a_b.png)", r"!\[x\]\(https://evil.example/a_b.png\)"),
    ("# head\n- item\n  1. one\n+ plus\n===\n> quote",
     f"{Z}# head\n{Z}- item\n{Z}  1. one\n{Z}+ plus\n{Z}===\n\\> quote"),
    ("1.5 s", f"{Z}1.5 s"),
    ("\\*", r"\\\*"),
    ("<b>", rf"<{Z}b\>"),
    ("<@123> <!channel> <#5> <https://evil.example|bank>",
     rf"<{Z}@{Z}123\> <{Z}!channel\> <{Z}#5\> <{Z}https://evil.example\|bank\>"),
    ("@all @here, (@channel) _@everyone", rf"@{Z}all @{Z}here, \(@{Z}channel\) \_@{Z}everyone"),
    ("bob.b@example.com and b_b@example.com", r"bob.b@example.com and b\_b@example.com"),
    ("https://a.example/b_c*d_e?f=g_h", r"https://a.example/b_c\*d\_e?f=g\_h"),
    ("see https://a.example/b_c.", "see https://a.example/b_c."),
    ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), MARKDOWN)
def test_writes_text_as_markdown_that_shows_it(text, shown):
    assert chat.markdown(text) == shown


@given(st.text(alphabet="ab1 \n\\`*_[]()<>~|@#-+=.:/&", max_size=60))
def test_leaves_no_sign_that_means_something(text):
    shown = chat.markdown(text)
    assert shown.replace("\\", "").replace(Z, "") == text.replace("\\", "").replace(Z, "")
    outside = chat._MARKDOWN.sub(lambda found: "" if found["url"] else found[0], shown)
    bare = outside.replace("\\\\", "")
    for sign in "`*_[]()>~|":
        assert bare.count(sign) == bare.count("\\" + sign)


MENTIONS = [
    # text, what reaches nobody
    ("@bob", f"@{Z}bob"),
    ("(@bob)", f"(@{Z}bob)"),
    ("/@bob", f"/@{Z}bob"),
    ("_@bob", f"_@{Z}bob"),
    ("@@bob", f"@@{Z}bob"),
    ("@Ünal", f"@{Z}Ünal"),
    ("bob@example.com", "bob@example.com"),
    ("5 @ 3", "5 @ 3"),
]


@pytest.mark.parametrize(("text", "shown"), MENTIONS)
def test_lets_no_name_be_mentioned(text, shown):
    assert chat.unmentioned(text) == shown


FITS = [
    # text, most, what is left of it
    ("", 5, ""),
    ("abcde", 5, "abcde"),
    ("abcdef", 5, "abcd…"),
    ("*****", 5, r"\*\*…"),  # and not half an escape
    ("☠☠☠☠☠☠", 5, "☠☠☠☠…"),
    ("🔴🔴🔴", 5, "🔴🔴…"),  # an emoji counts as two
    ("abcdef", 1, "…"),
]


@pytest.mark.parametrize(("text", "most", "left"), FITS)
def test_cuts_so_that_it_fits(text, most, left):
    assert chat.fit(text, most, chat.markdown, chat.utf16) == left


@given(st.text(max_size=300), st.integers(1, 300))
def test_is_never_longer_than_it_may_be(text, most):
    made = chat.fit(text, most, chat.markdown, chat.utf16)
    assert chat.utf16(made) <= most


LINKS = [
    # URL, as it is shown
    ("https://a.example/x?y=1&z=%20#f", "https://a.example/x?y=1&z=%20#f"),
    ("http://[::1]:8000/a", "http://[::1]:8000/a"),
    ("http://10.0.0.1/a(b)[c]'\"<>|*_`", "http://10.0.0.1/a%28b%29%5Bc%5D%27%22%3C%3E%7C%2A_%60"),
    ("https://caf\u00e9.example/\u2620", "https://xn--caf-dma.example/%E2%98%A0"),
    ("javascript:alert(1)", None),
    ("https://user:pass@a.example/", None),
    ("https://a.example/ b", None),
    ("https://a.example/\nb", None),
    ("", None),
    ("https://a.example/" + "x" * 2048, None),
    ("https://a.example/" + "☠" * 500, None),  # too long once it is in ASCII
]


@pytest.mark.parametrize(("url", "shown"), LINKS)
def test_shows_links_that_are_links(url, shown):
    assert chat.links(envelope(links={"Runbook": url})) == ([("Runbook", shown)] if shown else [])


def test_leads_to_the_incident_and_never_to_a_deed():
    assert chat.main_link(envelope()) == envelope().links["Incident"]
    assert chat.main_link(envelope(links={"Acknowledge": "https://hm.example/ack/1"})) is None


@pytest.mark.parametrize("kind", [*messages.KINDS, "news"])
def test_has_a_look_for_everything(kind):
    look = chat.look(envelope(kind=kind))
    assert (look.mood in {"good", "attention", "warning", "accent"}) and 0 < look.colour < 1 << 24
    assert chat.headline(envelope(kind=kind)) == f"{look.emoji} DOWN: Shop (status) ☠"


@pytest.mark.parametrize(
    ("severity", "emoji"), [("critical", "🔴"), ("warning", "🟡"), ("info", "🔵"), ("odd", "🔴")]
)
def test_goes_by_severity_where_the_kind_says_nothing(severity, emoji):
    assert chat.look(envelope(kind="news", severity=severity)).emoji == emoji


WAITS = [(1, 1.0), (0.25, 0.25), (0, 0.0), (-1, None), ("5", None), (None, None), (True, None), ([], None),
         (float("inf"), None), (float("nan"), None)]  # fmt: skip


@pytest.mark.parametrize(("value", "wait"), WAITS)
def test_reads_a_waiting_time(value, wait):
    assert chat.seconds(value) == wait
