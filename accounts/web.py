"""The pages of an account that are not django-allauth's own."""

from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from requests import RequestException

from accounts import second_factor, selectors
from accounts.models import User
from accounts.single_sign_on import Endpoints

TEAMS_SHOWN = 50


@never_cache
@require_safe
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Who you are, your teams, and the ways to your password, second factors and the console."""
    user = request.user
    assert isinstance(user, User)  # login_required
    return render(
        request,
        "account/home.html",
        {
            "teams": selectors.teams_of(user).order_by("name")[:TEAMS_SHOWN],
            "factors": Authenticator.objects.filter(user=user, type__in=second_factor.FACTORS).count(),
        },
    )


def to_issuer(request: HttpRequest, provider_id: str) -> HttpResponse:
    """
    Single sign-on, as allauth begins it, but not by a redirect: browsers hold `form-action` against wherever a form
    leads in the end, and the issuer's pages are wherever the issuer says.
    """
    try:
        response = OAuth2LoginView.adapter_view(Endpoints(request, provider_id))(request)
    except SocialApp.DoesNotExist:
        raise Http404 from None
    except (OAuth2Error, RequestException) as problem:  # allauth expects them of the way back alone
        provider = get_adapter().get_provider(request, provider_id)
        return render_authentication_error(request, provider, exception=problem)
    if response.status_code == 302 and not response["Location"].startswith("/"):
        return render(request, "account/to_issuer.html", {"there": response["Location"]})
    return response


def from_issuer(request: HttpRequest, provider_id: str) -> HttpResponse:
    """The way back. allauth's own view takes its own adapter, whatever the provider says, and checks less."""
    try:
        return OAuth2CallbackView.adapter_view(Endpoints(request, provider_id))(request)
    except SocialApp.DoesNotExist:
        raise Http404 from None
