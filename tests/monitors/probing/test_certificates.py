import pytest

from monitors.probing.certificates import LOOK_EVERY_SECONDS, CertificateLooks, expires_at


@pytest.mark.parametrize(
    ("chain", "seconds"),
    [
        ([[(b"Subject", b"CN = a"), (b"Expire date", b"Jan  1 00:00:00 2020 GMT")]], 1577836800),
        (
            [
                [(b"Expire date", b"Jan  1 00:00:00 2020 GMT")],
                [(b"Expire date", b"Jan  1 00:00:00 2000 GMT")],
            ],
            1577836800,
        ),
        ([[(b"Subject", b"CN = a")], [(b"Expire date", b"Jan  1 00:00:00 2020 GMT")]], None),
        ([[(b"Expire date", b"some day")]], None),
        ([[(b"Expire date", b"\xff\xfe")]], None),
        ([[]], None),
        ([], None),
    ],
)
def test_reads_when_the_leaf_expires(chain, seconds):
    assert expires_at(chain) == seconds


def test_is_due_every_ten_minutes_for_each_monitor():
    looks = CertificateLooks()
    assert looks.is_due(1, now=0)
    looks.looked(1, now=0)
    assert not looks.is_due(1, now=LOOK_EVERY_SECONDS - 1)
    assert looks.is_due(1, now=LOOK_EVERY_SECONDS)
    assert looks.is_due(2, now=1)
