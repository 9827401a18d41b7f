"""The page behind the link of an invitation, for people in a browser: what `views.AcceptView` is for programs."""

from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods
from rest_framework.exceptions import ValidationError as InvalidName

from accounts import selectors, services
from healthmon.lib.api import one_line
from healthmon.lib.clock import now as read_clock


class JoinForm(forms.Form):
    """For who has no account yet."""

    name = forms.CharField(max_length=100, required=False, widget=forms.TextInput({"autocomplete": "name"}))
    password = forms.CharField(
        max_length=1_000, strip=False, widget=forms.PasswordInput({"autocomplete": "new-password"})
    )

    def clean_name(self) -> str:
        try:
            one_line(self.cleaned_data["name"])
        except InvalidName as odd:
            raise ValidationError([str(sentence) for sentence in odd.detail]) from None
        return self.cleaned_data["name"]


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """This will show who invites to what; the POST of its button accepts.

    A GET changes nothing: programs that look for bad links follow every one that comes by mail.
    """
    now = read_clock()
    try:
        asked = services.invitation_of(token, now)
    except services.InvitationGone as gone:
        return _page(request, "This invitation does not work", f"{gone} Ask for another one.", status=404)
    user = request.user if request.user.is_authenticated else None
    facts: dict[str, Any] = {"invitation": asked}
    title = f"Join {asked.team.name}"
    if user and user.email != asked.email:
        other = f"This invitation is for {asked.email}; you are signed in as {user.email}."
        sentence = f"{other} Sign out, then open it again."
        return _page(request, title, sentence, status=403, **facts)
    if user is None and selectors.has_account(asked.email):
        here = reverse("invitation", args=[token])
        facts["login"] = f"{resolve_url(settings.LOGIN_URL)}?next={here}"
        return _page(request, title, f"There is an account of {asked.email}. Sign in to accept.", **facts)

    form = None if user else JoinForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and (form is None or form.is_valid()):
        given = form.cleaned_data if form else {"name": "", "password": ""}
        try:
            services.accept(token, by=user, name=given["name"], password=given["password"], now=now)
        except ValidationError as weak:
            assert form is not None  # only a new account has a new password
            form.add_error("password", weak)
        except (services.InvitationGone, services.LoginNeeded) as lost:
            return _page(request, "This invitation does not work", str(lost), status=409)  # taken meanwhile
        else:
            facts["login"] = resolve_url(settings.LOGIN_REDIRECT_URL if user else settings.LOGIN_URL)
            sentence = f"You are on the team {asked.team.name} now, as {asked.role}."
            return _page(request, "Welcome", sentence, done=True, **facts)
    status = 400 if form and form.errors else 200
    return _page(request, title, "", status=status, form=form, asking=True, **facts)


def _page(request: HttpRequest, title: str, sentence: str, status: int = 200, **facts: Any) -> HttpResponse:
    page = render(
        request, "accounts/invitation.html", {"title": title, "sentence": sentence, **facts}, status=status
    )
    page["X-Robots-Tag"] = "noindex, nofollow"
    # The address is the key, so no other site is told of it. Not "no-referrer": browsers then send the form with
    # `Origin: null`, which the check against forgery refuses.
    page["Referrer-Policy"] = "same-origin"
    return page
