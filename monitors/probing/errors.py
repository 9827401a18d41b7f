"""Every way libcurl can fail, as one of our reasons."""

import errno

import pycurl

from monitors.probing.outcome import Reason

# Refused before a packet left or for want of something of ours: the target had no part in it.
OURS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES)
)
NO_ROUTE = frozenset((errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT))

# These pycurl has no names for.
_E_HTTP2_STREAM, _E_HTTP3, _E_QUIC_CONNECT_ERROR, _E_TOO_LARGE = 92, 95, 96, 100

# What nobody listed is our own fault until proven otherwise: a false `inconclusive` costs one look, a false
# failure wakes somebody up.
REASONS: dict[int, Reason] = {
    **{getattr(pycurl, name): Reason.inconclusive for name in dir(pycurl) if name.startswith("E_")},
    pycurl.E_OK: Reason.ok,
    pycurl.E_OPERATION_TIMEDOUT: Reason.timeout,
    pycurl.E_COULDNT_RESOLVE_HOST: Reason.dns,
    pycurl.E_COULDNT_CONNECT: Reason.connect,
    pycurl.E_GOT_NOTHING: Reason.connect,
    pycurl.E_SEND_ERROR: Reason.connect,
    pycurl.E_RECV_ERROR: Reason.connect,
    pycurl.E_HTTP2: Reason.connect,
    _E_HTTP2_STREAM: Reason.connect,
    _E_HTTP3: Reason.connect,
    _E_QUIC_CONNECT_ERROR: Reason.connect,
    pycurl.E_UNSUPPORTED_PROTOCOL: Reason.connect,  # it answered HTTP/0.9, or something that is not HTTP
    pycurl.E_FTP_WEIRD_SERVER_REPLY: Reason.connect,  # CURLE_WEIRD_SERVER_REPLY: headers that are none
    pycurl.E_SSL_CONNECT_ERROR: Reason.tls,
    pycurl.E_PEER_FAILED_VERIFICATION: Reason.tls,
    pycurl.E_SSL_CERTPROBLEM: Reason.tls,
    pycurl.E_SSL_CIPHER: Reason.tls,
    pycurl.E_SSL_ISSUER_ERROR: Reason.tls,
    pycurl.E_SSL_INVALIDCERTSTATUS: Reason.tls,
    pycurl.E_SSL_PINNEDPUBKEYNOTMATCH: Reason.tls,
    pycurl.E_PARTIAL_FILE: Reason.body,
    pycurl.E_BAD_CONTENT_ENCODING: Reason.body,
    pycurl.E_TOO_MANY_REDIRECTS: Reason.redirect,
    pycurl.E_FILESIZE_EXCEEDED: Reason.too_large,
    _E_TOO_LARGE: Reason.too_large,
}

# OpenSSL's X509_V_ERR_*, as CURLINFO_SSL_VERIFYRESULT gives them.
_CERTIFICATE_PROBLEMS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
    19: "comes from an issuer that is not trusted (self-signed certificate in its chain)",
    20: "comes from an unknown issuer (is an intermediate certificate missing?)",
    21: "comes from an unknown issuer (is an intermediate certificate missing?)",
    23: "was revoked",
    26: "is not meant for servers",
    62: "is for another name",
    66: "has a key that is too weak",
}


def tls_sentence(message: str, verify_result: int) -> str:
    """Return what went wrong with TLS. message: curl's own; verify_result: CURLINFO_SSL_VERIFYRESULT."""
    if "subject name" in message:  # curl's own check; OpenSSL has no number for it
        return "The certificate is for another name."
    if verify_result:
        problem = _CERTIFICATE_PROBLEMS.get(verify_result, f"is not trusted (OpenSSL says {verify_result})")
        return f"The certificate {problem}."
    return f"No TLS connection: {message}."


def broken_sentence(code: int, message: str) -> str:
    """Return how an exchange that had begun came to its end. message: curl's own."""
    if code == pycurl.E_GOT_NOTHING:
        return "The server closed the connection without an answer."
    if code == pycurl.E_PARTIAL_FILE:
        return "The answer broke off before its end."
    if code == _E_TOO_LARGE:
        return "The headers are too large."
    if code in (pycurl.E_UNSUPPORTED_PROTOCOL, pycurl.E_FTP_WEIRD_SERVER_REPLY):
        return f"What came back is not HTTP: {message}."
    if REASONS.get(code) is Reason.connect:
        return f"The connection broke: {message}."
    return f"The probe failed: {message or f'curl error {code}'}."
