"""Who is calling: a person in a session, or a program with a key.

A session is a row of short-lived access tokens and single-use refresh tokens. Both carry the id of their session.
`OutstandingToken.token` holds that id instead of the token, so that a dump of the table is no bunch of keys. A
session lives as long as one of its refresh tokens is not blacklisted, and LONGEST_SESSION at most:

1. login      a new session; its first refresh token is outstanding
2. refresh    the token is blacklisted, its successor is outstanding
3. logout     every token of the session is blacklisted: its access tokens die with it
4. re-use     a token that was refreshed before has two holders, one a thief: as logout
"""

from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any, cast
from uuid import uuid4

from django.db import connection, transaction
from django.db.models import F, QuerySet
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed, InvalidToken, TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import AccessToken, Token
from rest_framework_simplejwt.utils import datetime_from_epoch, get_md5_hash_password

from accounts import tokens
from accounts.models import ApiKey, Team, User
from healthmon.lib.clock import now as read_clock

SESSION_CLAIM = "session"
BEGAN_CLAIM = "began"
# However often it is refreshed: a stolen token that nobody misses is no key for ever.
LONGEST_SESSION = timedelta(days=30)
CHALLENGE = 'Bearer realm="api", Api-Key realm="api"'
USE_NOTED_EVERY = timedelta(minutes=1)

# Asked at every request. Written by the ORM, with `_unspent` inside an Exists, it cost as much CPU as all the rest of
# reading one monitor.
_CALLER = """
    SELECT * FROM accounts_user u
     WHERE u.id = %s AND u.is_active
       AND EXISTS (SELECT FROM token_blacklist_outstandingtoken t
                    WHERE t.user_id = u.id AND t.token = %s
                      AND NOT EXISTS (SELECT FROM token_blacklist_blacklistedtoken b WHERE b.token_id = t.id))
"""
_KEY = """
    SELECT k.*, t.name AS team_name, t.slug AS team_slug, t.created_at AS team_created_at
      FROM accounts_apikey k JOIN accounts_team t ON t.id = k.team_id
     WHERE k.prefix = %s
"""
# Skips a row that somebody else is writing: of many requests at once one notes it, and none waits for another.
_USED = """
    UPDATE accounts_apikey SET last_used_at = %s
     WHERE id = (SELECT id FROM accounts_apikey
                  WHERE id = %s AND (last_used_at IS NULL OR last_used_at <= %s) FOR NO KEY UPDATE SKIP LOCKED)
"""


class Refresh(Token):
    token_type = "refresh"
    lifetime = api_settings.REFRESH_TOKEN_LIFETIME


class SessionAuthentication(JWTAuthentication):
    """`Authorization: Bearer <access token>`; one query tells that user, password and session still stand."""

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE

    def get_user(self, validated_token: Token) -> User:  # type: ignore[override]
        asked = [validated_token.get(api_settings.USER_ID_CLAIM), validated_token.get(SESSION_CLAIM)]
        user = next(iter(User.objects.raw(_CALLER, asked)), None)
        if user is None or not _same_password(validated_token, user):
            raise AuthenticationFailed("This session has ended. Log in again.")
        return user


class Machine:
    """`request.user` where an API key sent it: somebody who was let in, and no person."""

    pk = id = None
    is_authenticated = is_active = True
    is_anonymous = is_staff = is_superuser = False

    def __init__(self, key: ApiKey) -> None:
        self.key = key

    def __str__(self) -> str:
        return f"API key {self.key.name}"


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Api-Key hm_…`; one query tells that the key still stands and whose it is (`request.auth`)."""

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE

    def authenticate(self, request: Request) -> tuple[Any, ApiKey] | None:
        scheme, _, shown = request.META.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
        if scheme.lower() != "api-key":
            return None
        now = read_clock()
        key = standing_key(shown.strip(), now)
        if key is None:
            raise AuthenticationFailed("This API key is unknown, expired or revoked.")
        note_use(key, now)
        return Machine(key), key


def standing_key(shown: str, now: datetime) -> ApiKey | None:
    """Return the key, with its team, that was made as `shown` and is neither expired nor revoked; else None."""
    parts = tokens.split_key(shown)
    if parts is None:
        return None
    prefix, secret = parts
    key = next(iter(ApiKey.objects.raw(_KEY, [prefix])), None)
    if key is None or not compare_digest(tokens.digest(secret), key.secret_hash):
        return None
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        return None
    team: Any = key  # the columns that the query adds
    columns = [team.team_id, team.team_name, team.team_slug, team.team_created_at]
    key.team = Team.from_db("default", ["id", "name", "slug", "created_at"], columns)
    return key


def note_use(key: ApiKey, now: datetime) -> None:
    """Write down that a key is used, once a minute: what is written at every request is a lock to queue at."""
    stale = now - USE_NOTED_EVERY
    if key.last_used_at is None or key.last_used_at <= stale:
        with connection.cursor() as cursor:
            cursor.execute(_USED, [now, key.pk, stale])


def caller(request: Request) -> User | None:
    """The person who sent this request; None where a program did. For views that let nobody in who is neither."""
    return None if isinstance(request.auth, ApiKey) else cast(User, request.user)


def person(request: Request) -> User:
    """The person who sent this request. PermissionDenied where a program did."""
    user = caller(request)
    if user is None:
        raise PermissionDenied("This takes a person who is logged in, not an API key.")
    return user


def via(request: Request) -> str:
    """By what it was sent where no person did, such as "API key deploy"; else empty."""
    return str(request.user) if isinstance(request.auth, ApiKey) else ""


def identity(request: Request) -> str:
    """One word for who sent this request, the same in every one of theirs: `user:5`, `key:7`, empty for nobody."""
    if isinstance(request.auth, ApiKey):
        return f"key:{request.auth.pk}"
    return f"user:{request.user.pk}" if request.user else ""


def open_session(user: User) -> dict[str, str]:
    """Begin a session: {"access", "refresh"}. The caller has made sure that it is the user."""
    return _tokens(user, session=uuid4().hex)


def renew_session(refresh: str, now: datetime) -> dict[str, str]:
    """Spend a refresh token for a new pair; InvalidToken if it is forged, expired, spent or revoked."""
    token = _read(refresh)
    began = token.get(BEGAN_CLAIM)
    with transaction.atomic():
        user = _holder(token)
        spent = _unspent(token[SESSION_CLAIM]).filter(user=user, jti=token["jti"]).first()
        young = isinstance(began, int) and now < datetime_from_epoch(began) + LONGEST_SESSION
        if user and spent and young and user.is_active and _same_password(token, user):
            BlacklistedToken.objects.create(token=spent)
            return _tokens(user, session=token[SESSION_CLAIM], began=began)
        _end(_unspent(token[SESSION_CLAIM]).filter(user_id=token["user_id"]))
    # Outside of the block: raised inside, it would undo the ending.
    raise InvalidToken("This refresh token is not valid any more. Log in again.")


def close_session(refresh: str) -> None:
    """End the session of a refresh token; ending it twice is fine. InvalidToken if forged or expired."""
    token = _read(refresh)
    with transaction.atomic():
        _holder(token)
        _end(_unspent(token[SESSION_CLAIM]).filter(user_id=token["user_id"]))


@transaction.atomic
def close_sessions(user: User) -> None:
    """End every session of a person, those of browsers too."""
    # The same lock that a refresh takes: one that is under way has its successor written before it is ended here.
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    _end(OutstandingToken.objects.filter(user=user, blacklistedtoken=None))
    User.objects.filter(pk=user.pk).update(sessions_ended=F("sessions_ended") + 1)


def _read(refresh: str) -> Refresh:
    try:
        token = Refresh(refresh)  # type: ignore[arg-type]
    except TokenError as error:
        raise InvalidToken(str(error)) from error
    if SESSION_CLAIM not in token:
        raise InvalidToken("This refresh token belongs to no session. Log in again.")
    return token


def _tokens(user: User, session: str, began: int | None = None) -> dict[str, str]:
    access, refresh = AccessToken.for_user(user), Refresh.for_user(user)
    access[SESSION_CLAIM] = refresh[SESSION_CLAIM] = session
    refresh[BEGAN_CLAIM] = refresh["iat"] if began is None else began
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


def _end(unspent: QuerySet[OutstandingToken]) -> None:
    BlacklistedToken.objects.bulk_create(BlacklistedToken(token=row) for row in unspent)


def _same_password(token: Token, user: User) -> bool:
    return token.get(api_settings.REVOKE_TOKEN_CLAIM) == get_md5_hash_password(user.password)
