import json

import pytest
from cryptography.fernet import Fernet

from healthmon.lib.sealing import SealBroken, new_key, seal, unseal

OLD, NEW = new_key(), new_key()


@pytest.mark.parametrize(
    "value", [None, "", "s3cret", {"headers": {"A": "ü\n\0"}, "body": None}, [1, 2.5, True]]
)
def test_opens_what_it_sealed(value):
    token = seal([NEW], value, "channel:1")
    assert token.isascii()
    assert "s3cret" not in token
    assert unseal([NEW], token, "channel:1") == value


def test_opens_with_any_key_and_seals_with_the_first():
    token = seal([OLD], "x", "c")
    assert unseal([NEW, OLD], token, "c") == "x"
    with pytest.raises(SealBroken):
        unseal([NEW], token, "c")
    assert unseal([NEW], seal([NEW, OLD], "x", "c"), "c") == "x"


@pytest.mark.parametrize("context", ["channel:2", "channel:1 ", ""])
def test_does_not_open_in_another_place(context):
    with pytest.raises(SealBroken):
        unseal([NEW], seal([NEW], "x", "channel:1"), context)


@pytest.mark.parametrize("token", ["", "nonsense", "gAAAAA", "\u00fc", "s" * 1000])
def test_does_not_open_what_it_did_not_seal(token):
    with pytest.raises(SealBroken):
        unseal([NEW], token, "c")


@pytest.mark.parametrize("plain", [b"not json", json.dumps("x").encode(), json.dumps(["c"]).encode()])
def test_does_not_open_what_somebody_else_sealed_with_the_same_key(plain):
    with pytest.raises(SealBroken):
        unseal([NEW], Fernet(NEW).encrypt(plain).decode(), "c")


@pytest.mark.parametrize("keys", [[], ["short"], [NEW, "not a key!"], [NEW[:-4]], ["\u00fc"]])
def test_names_the_remedy_for_a_key_that_is_none(keys):
    with pytest.raises(ValueError, match="make one with") as raised:
        seal(keys, "x", "c")
    assert not any(key in str(raised.value) for key in keys if key != "short")
