"""Single sign-on with one OpenID Connect issuer, over our address guard.

A person is the pair of issuer and subject. Addresses change hands and are no key: one stands for an account only
where HEALTHMON_OIDC_MATCH_EMAIL says so, and the issuer that it has verified it.
"""

import hashlib
from typing import Any

import requests
import structlog
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.internal import jwtkit
from allauth.socialaccount.providers.base import ProviderException
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from accounts.models import User
from healthmon.lib.addresses import AddressRefused, Guard
from healthmon.lib.guarded_requests import Wire

log = structlog.get_logger(__name__)

NEEDED = {"issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"}
UID_CHARS = 191  # the column's length in allauth's migrations
TIMEOUT_SECONDS = 10.0  # of each request to the issuer: a worker's thread waits meanwhile


class GuardedSession(requests.Session):
    """For one `with` block: each connection is judged by the guard, and no redirect is followed."""

    def __enter__(self) -> "GuardedSession":
        self.wire = Wire(Guard(settings.HEALTHMON_ALLOWED_NETS), TIMEOUT_SECONDS)
        self.trust_env = False
        self.mount("https://", self.wire)
        self.mount("http://", self.wire)
        self.wire.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self.wire.__exit__(*problem)
        super().__exit__(*problem)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        try:
            return super().send(request, **options)
        except AddressRefused as refused:
            raise requests.ConnectionError(f"It may not be dialled: {refused}.") from None

    def get_redirect_target(self, resp: requests.Response) -> None:
        # An issuer says where its endpoints are; one that sends the client secret on elsewhere is none of ours.
        return None


class Adapter(DefaultSocialAccountAdapter):
    def get_requests_session(self) -> requests.Session:
        return GuardedSession()

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return settings.HEALTHMON_OPEN_SIGN_UP in {"sso", "yes"}

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Exception | None = None,
        extra_context: Any = None,
    ) -> None:
        # Up to where allauth quotes the answer: tokens may stand in it.
        problem = str(exception or "").partition(": b")[0]
        log.warning("single_sign_on_failed", error=str(error), problem=problem, kind=type(exception).__name__)

    def populate_user(self, request: HttpRequest, sociallogin: Any, data: dict[str, Any]) -> User:
        user = super().populate_user(request, sociallogin, data)
        user.email = (user.email or "").lower()
        user.name = str(data.get("name") or "")[:100]
        return user


class Endpoints(OpenIDConnectOAuth2Adapter):
    @property
    def openid_config(self) -> dict[str, Any]:
        config = super().openid_config
        if not isinstance(config, dict) or not config.keys() >= NEEDED:
            raise OAuth2Error("The issuer's configuration lacks some of its endpoints.")
        if str(config["issuer"]).rstrip("/") != settings.HEALTHMON_OIDC_ISSUER.rstrip("/"):
            raise OAuth2Error("The issuer's configuration names another issuer.")
        return config

    def get_callback_url(self, request: HttpRequest, app: Any) -> str:
        path = reverse("openid_connect_callback", kwargs={"provider_id": self.provider_id})
        return settings.HEALTHMON_BASE_URL + path

    def _decode_id_token(self, app: Any, id_token: str) -> dict[str, Any]:
        # Its signature is looked at even when it came straight from the issuer.
        config = self.openid_config
        try:
            return jwtkit.verify_and_decode(
                credential=id_token,
                keys_url=config["jwks_uri"],
                issuer=config["issuer"],
                audience=app.client_id,
                lookup_kid=jwtkit.lookup_kid_jwk,
            )
        except (KeyError, TypeError, ValueError) as problem:  # keys and headers of any shape
            raise OAuth2Error("The issuer's keys or its ID token are malformed.") from problem


class Provider(OpenIDConnectProvider):
    package = "allauth.socialaccount.providers.openid_connect"
    oauth2_adapter_class = Endpoints

    def extract_uid(self, data: dict[str, Any]) -> str:
        token, said = data.get("id_token"), data.get("userinfo")
        if not isinstance(token, dict) or not token.get("sub"):
            raise ProviderException("The issuer sent no ID token with a subject.")
        if said is not None and said.get("sub") != token["sub"]:
            raise ProviderException("The issuer's user info is about somebody else than its ID token.")
        uid = f"{token['iss']} {token['sub']}"
        return uid if len(uid) <= UID_CHARS else f"sha256 {hashlib.sha256(uid.encode()).hexdigest()}"

    def extract_extra_data(self, data: dict[str, Any]) -> dict[str, Any]:
        # What the connections page shows; the rest of the claims is nothing we need to keep.
        known = {**data["id_token"], **(data.get("userinfo") or {})}
        return {"userinfo": {name: known[name] for name in ("sub", "email", "name") if name in known}}

    def get_auth_params_from_request(self, request: HttpRequest, action: str) -> dict[str, Any]:
        return self.get_auth_params()  # and nothing that a link puts into its query

    def get_scope_from_request(self, request: HttpRequest) -> list[str]:
        return self.get_scope()
