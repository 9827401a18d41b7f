"""What pages of the admin console share: looking without changing, and forms that the API's serializers judge."""

from collections.abc import Iterator, Mapping
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.forms.models import construct_instance
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from rest_framework.serializers import Serializer
from unfold.admin import ModelAdmin
from unfold.dataclasses import ActionDialog


def asked(question: str, description: str, submit: str) -> ActionDialog:
    """This will describe the dialog before a deed: a deed is a POST with a CSRF token, never a link to follow."""
    return ActionDialog(title=question, description=description, form_class=None, form_submit_text=submit)


def shown(model: str, object_id: object) -> HttpResponse:
    """This will send the dialog's page to an object of `app_model`, where it says what was done."""
    return HttpResponse(headers={"HX-Redirect": reverse(f"admin:{model}_change", args=[object_id])})


def chosen(options: ModelAdmin, request: HttpRequest, object_id: str) -> QuerySet:
    """This will return the one row that a deed is about, as a queryset. Raises Http404."""
    row = options.get_object(request, object_id)
    if row is None:
        raise Http404
    return options.get_queryset(request).filter(pk=row.pk)


class ToLookAt(ModelAdmin):
    """
    Rows that machines write: shown, never edited. Before the class that says who sees them; deeds on them take its
    permission `act`.
    """

    list_per_page = 50
    show_full_result_count = False  # a count over every row, at each page, of tables that only grow

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class JudgedForm(forms.ModelForm):
    """A form whose fields are judged by a serializer, so that console and API take and refuse the same.

    After `is_valid`, `validated` holds what the serializer made of it.
    """

    validated: Mapping[str, Any]

    def serializer(self, data: Mapping[str, Any]) -> Serializer:
        """This will return the serializer that judges `data`."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        # Instead of the model's own validation: the serializer knows more, and the database has the last word.
        if self.errors:
            return
        serializer = self.serializer(self.cleaned_data)
        if serializer.is_valid():
            self.validated = serializer.validated_data
            if self.instance._state.adding:  # never saved, but named in messages, and asked for its team
                construct_instance(self, self.instance)
            return
        for field, problem in serializer.errors.items():
            self.add_error(
                field if field in self.fields else None, forms.ValidationError(list(_sentences(problem)))
            )


def _sentences(problem: Any, of: str = "") -> Iterator[str]:
    if isinstance(problem, Mapping):
        for name, inner in problem.items():
            yield from _sentences(inner, f"{of}{name}: ")
    elif isinstance(problem, list | tuple):
        for inner in problem:
            yield from _sentences(inner, of)
    else:
        yield f"{of}{problem}"
