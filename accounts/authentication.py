"""Who is calling: sessions, each a row of short-lived access tokens and single-use refresh tokens.

Both tokens carry the id of their session. `OutstandingToken.token` holds that id instead of the token, so
that a dump of the table is no bunch of keys. A session lives as long as one of its refresh tokens is not
blacklisted:

1. login      a new session; its first refresh token is outstanding
2. refresh    the token is blacklisted, its successor is outstanding
3. logout     every token of the session is blacklisted: its access tokens die with it
4. re-use     a token that was refreshed before has two holders, one a thief: as logout
"""

from typing import cast
from uuid import uuid4

from django.db import transaction
from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed, InvalidToken, TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import AccessToken, Token
from rest_framework_simplejwt.utils import datetime_from_epoch, get_md5_hash_password

from accounts.models import User

SESSION_CLAIM = "session"


# Asked at every request. Written by the ORM, with `_unspent` inside an Exists, it cost as much CPU as all the rest of
# reading one monitor.
_CALLER = """
    SELECT * FROM accounts_user u
     WHERE u.id = %s AND u.is_active
       AND EXISTS (SELECT FROM token_blacklist_outstandingtoken t
                    WHERE t.user_id = u.id AND t.token = %s
                      AND NOT EXISTS (SELECT FROM token_blacklist_blacklistedtoken b WHERE b.token_id = t.id))
"""


class Refresh(Token):
    token_type = "refresh"
    lifetime = api_settings.REFRESH_TOKEN_LIFETIME


class SessionAuthentication(JWTAuthentication):
    """`Authorization: Bearer <access token>`; one query tells that user, password and session still stand."""

    def get_user(self, validated_token: Token) -> User:  # type: ignore[override]
        found = User.objects.raw(_CALLER, [validated_token["user_id"], validated_token.get(SESSION_CLAIM)])
        user = next(iter(found), None)
        if user is None or not _same_password(validated_token, user):
            raise AuthenticationFailed("This session has ended. Log in again.")
        return user


def caller(request: Request) -> User:
    """Who sent this request; for views that let nobody in who is not logged in."""
    return cast(User, request.user)


def open_session(user: User) -> dict[str, str]:
    """Begin a session: {"access", "refresh"}. The caller has made sure that it is the user."""
    return _tokens(user, session=uuid4().hex)


def renew_session(refresh: str) -> dict[str, str]:
    """Spend a refresh token for a new pair; InvalidToken if it is forged, expired, spent or revoked."""
    token = _read(refresh)
    with transaction.atomic():
        user = _holder(token)
        spent = _unspent(token[SESSION_CLAIM]).filter(user=user, jti=token["jti"]).first()
        if user and spent and user.is_active and _same_password(token, user):
            BlacklistedToken.objects.create(token=spent)
            return _tokens(user, session=token[SESSION_CLAIM])
        _end(token)
    # Outside of the block: raised inside, it would undo the ending.
    raise InvalidToken("This refresh token is not valid any more. Log in again.")


def close_session(refresh: str) -> None:
    """End the session of a refresh token; ending it twice is fine. InvalidToken if forged or expired."""
    token = _read(refresh)
    with transaction.atomic():
        _holder(token)
        _end(token)


def _read(refresh: str) -> Refresh:
    try:
        token = Refresh(refresh)  # type: ignore[arg-type]
    except TokenError as error:
        raise InvalidToken(str(error)) from error
    if SESSION_CLAIM not in token:
        raise InvalidToken("This refresh token belongs to no session. Log in again.")
    return token


def _tokens(user: User, session: str) -> dict[str, str]:
    access, refresh = AccessToken.for_user(user), Refresh.for_user(user)
    access[SESSION_CLAIM] = refresh[SESSION_CLAIM] = session
    # Tidied where they are made: nobody has to remember to prune them.
    OutstandingToken.objects.filter(user=user, expires_at__lt=refresh.current_time).delete()
    OutstandingToken.objects.create(
        user=user,
        jti=refresh["jti"],
        token=session,
        created_at=refresh.current_time,
        expires_at=datetime_from_epoch(refresh["exp"]),
    )
    return {"access": str(access), "refresh": str(refresh)}


def _holder(token: Refresh) -> User | None:
    # Locked: of two refreshes, or a refresh and a logout, at once, the second sees what the first has done.
    return User.objects.select_for_update(no_key=True).filter(pk=token["user_id"]).first()


def _unspent(session: str | None) -> QuerySet[OutstandingToken]:
    return OutstandingToken.objects.filter(token=session, blacklistedtoken=None)


def _end(token: Refresh) -> None:
    unspent = _unspent(token[SESSION_CLAIM]).filter(user_id=token["user_id"])
    BlacklistedToken.objects.bulk_create(BlacklistedToken(token=row) for row in unspent)


def _same_password(token: Token, user: User) -> bool:
    return token.get(api_settings.REVOKE_TOKEN_CLAIM) == get_md5_hash_password(user.password)
