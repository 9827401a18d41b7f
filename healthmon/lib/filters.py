"""Filters of lists that refuse what they do not know."""

from typing import TYPE_CHECKING

from django import forms
from django.db.models import QuerySet
from django_filters import NumberFilter
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

if TYPE_CHECKING:
    from rest_framework.views import APIView

PAGING = {"cursor", "limit"}


class IdFilter(NumberFilter):
    """By an id. A NumberFilter takes 1.5 and 1e3 too, and looks for 1 and 1000."""

    field_class = forms.IntegerField


class StrictFilters(DjangoFilterBackend):
    """
    A filter set's parameters, those of paging, and no others: a mistyped `?statsu=dead` must not be answered, or
    replayed, as if it had not been there.
    """

    def filter_queryset(self, request: Request, queryset: QuerySet, view: "APIView") -> QuerySet:
        if filters := self.get_filterset_class(view, queryset):
            unknown = request.query_params.keys() - filters.base_filters.keys() - PAGING
            if unknown:
                raise ValidationError(dict.fromkeys(sorted(unknown), "There is no such filter."))
        return super().filter_queryset(request, queryset, view)
