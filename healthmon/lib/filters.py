"""Filters of lists that refuse what they do not know."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.db.models import QuerySet
from django.db.models.lookups import IContains
from django_filters import CharFilter, FilterSet, NumberFilter
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

if TYPE_CHECKING:
    from rest_framework.views import APIView

PAGING = {"cursor", "limit"}


class IdFilter(NumberFilter):
    """By an id. A NumberFilter takes 1.5 and 1e3 too, and looks for 1 and 1000."""

    field_class = forms.IntegerField


class Containing(IContains):
    """`icontains` as ILIKE. Of UPPER(name) PostgreSQL has no statistics: it takes a word in every name for a rare one,
    and reads and sorts all rows (8 ms of 10,000) where it could stop at a page of them (0.1 ms)."""

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, tuple]:
        column, before = compiler.compile(self.lhs)
        pattern, parameters = self.process_rhs(compiler, connection)
        return f"{column} ILIKE {pattern}", (*before, *parameters)


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
            empty = [
                name
                for name, each in filters.base_filters.items()
                if "" in request.query_params.getlist(name) and not isinstance(each, CharFilter)
            ]
            if empty:  # `?until=`, from a script whose variable was not set
                raise ValidationError(dict.fromkeys(empty, "Give it a value, or leave it out."))
            if not request.query_params.keys() & filters.base_filters.keys():
                return queryset  # making a filter set takes a millisecond
        return super().filter_queryset(request, queryset, view)

    def get_filterset(self, request: Request, queryset: QuerySet, view: "APIView") -> FilterSet | None:
        filterset = super().get_filterset(request, queryset, view)
        if filterset:
            for each in filterset.filters.values():
                # A choice of several asks for DISTINCT, lest a join show rows twice. Our filters follow no join that
                # could, and to compare whole rows PostgreSQL would have to make all of them, not those of a page.
                each.distinct = False
        return filterset
