import pycurl
import pytest

from monitors.probing.errors import REASONS, broken_sentence, tls_sentence
from monitors.probing.outcome import FAILING, Reason

ERRORS = {name: getattr(pycurl, name) for name in dir(pycurl) if name.startswith("E_")}
MULTI = {name for name in ERRORS if name.startswith("E_MULTI_")}  # numbered apart; never a transfer's result

# Who speaks against the target. Everything else is our own fault, and the list is here a second time so that a
# code cannot change sides by accident.
AGAINST = {
    "E_OPERATION_TIMEDOUT": Reason.timeout,
    "E_COULDNT_RESOLVE_HOST": Reason.dns,
    "E_COULDNT_CONNECT": Reason.connect,
    "E_GOT_NOTHING": Reason.connect,
    "E_SEND_ERROR": Reason.connect,
    "E_RECV_ERROR": Reason.connect,
    "E_HTTP2": Reason.connect,
    "E_UNSUPPORTED_PROTOCOL": Reason.connect,
    "E_FTP_WEIRD_SERVER_REPLY": Reason.connect,
    "E_SSL_CONNECT_ERROR": Reason.tls,
    "E_PEER_FAILED_VERIFICATION": Reason.tls,
    "E_SSL_CERTPROBLEM": Reason.tls,
    "E_SSL_CIPHER": Reason.tls,
    "E_SSL_ISSUER_ERROR": Reason.tls,
    "E_SSL_INVALIDCERTSTATUS": Reason.tls,
    "E_SSL_PINNEDPUBKEYNOTMATCH": Reason.tls,
    "E_PARTIAL_FILE": Reason.body,
    "E_BAD_CONTENT_ENCODING": Reason.body,
    "E_TOO_MANY_REDIRECTS": Reason.redirect,
    "E_FILESIZE_EXCEEDED": Reason.too_large,
}


@pytest.mark.parametrize("name", sorted(set(ERRORS) - MULTI))
def test_has_one_reason_for_every_error_of_curl(name):
    code = ERRORS[name]
    if code in (pycurl.E_OK, -1):  # -1: CURLE_CALL_MULTI_PERFORM of long ago
        return
    same = {alias for alias, other in ERRORS.items() if other == code} - MULTI
    expected = next((AGAINST[alias] for alias in same if alias in AGAINST), Reason.inconclusive)
    assert REASONS[code] is expected


@pytest.mark.parametrize("code", sorted(set(REASONS)))
def test_has_a_sentence_for_every_error(code):
    assert broken_sentence(code, "words of curl").endswith(".")


@pytest.mark.parametrize(
    ("message", "verify_result", "sentence"),
    [
        (
            "SSL: no alternative certificate subject name matches target hostname 'a'",
            1,
            "is for another name.",
        ),
        ("…", 10, "has expired."),
        ("…", 18, "is self-signed."),
        ("…", 4711, "is not trusted (OpenSSL says 4711)."),
        ("wrong version number", 0, "No TLS connection: wrong version number."),
    ],
)
def test_says_plainly_what_is_wrong_with_tls(message, verify_result, sentence):
    assert tls_sentence(message, verify_result).endswith(sentence)


def test_never_calls_a_code_both_ours_and_theirs():
    assert {REASONS[ERRORS[name]] for name in AGAINST} <= FAILING
