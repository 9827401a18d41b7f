"""Seal every secret in the database with the newest of HEALTHMON_FIELD_KEYS, so that older keys can be dropped."""

from typing import Any

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Model

from accounts import second_factor
from accounts.models import KeptAnswer
from healthmon.lib import sealing
from monitors.models import Monitor
from notifications.models import Channel

SEALED: tuple[tuple[type[Model], str], ...] = (
    (Channel, "sealed_secrets"),
    (Monitor, "sealed_headers"),
    (KeptAnswer, "sealed_answer"),
)
AT_ONCE = 500


class Command(BaseCommand):
    help = __doc__

    def handle(self, **_options: Any) -> None:
        if not settings.HEALTHMON_FIELD_KEYS:
            raise CommandError("HEALTHMON_FIELD_KEYS is empty: there is no key to seal with.")
        lost = sum(self._rotate(model, column) for model, column in SEALED) + self._rotate_second_factors()
        if lost:
            raise CommandError(
                f"{lost} cannot be opened with any key in HEALTHMON_FIELD_KEYS and were left as they are: put the key"
                " that sealed them back into the list, or give these secrets anew."
            )

    def _rotate_second_factors(self) -> int:
        """This will do the same for the secrets inside of the rows of django-allauth."""
        rotated, lost = 0, 0
        sealed = Authenticator.objects.filter(type__in=list(second_factor.SEALED)).order_by("pk")
        for pk in list(sealed.values_list("pk", flat=True)):
            with transaction.atomic():
                row = Authenticator.objects.select_for_update().filter(pk=pk).first()
                if row is None:
                    continue  # removed in the meantime
                name = second_factor.SEALED[Authenticator.Type(row.type)]
                token = row.data[name]
                try:
                    resealed = sealing.resealed(settings.HEALTHMON_FIELD_KEYS, token)
                except sealing.SealBroken:
                    lost += 1
                    self.stderr.write(f"second factor {row.pk} cannot be opened")
                    continue
                if resealed != token:
                    row.data = row.data | {name: resealed}
                    row.save(update_fields=["data"])
                    rotated += 1
        self.stdout.write(f"second factors: {rotated} sealed anew, {lost} not to be opened")
        return lost

    def _rotate(self, model: type[Model], column: str) -> int:
        """This will seal a column anew, some rows at a time, and return how many rows could not be opened."""
        rows = model._default_manager.exclude(**{column: ""}).order_by("pk")
        last, rotated, lost = 0, 0, 0
        while True:
            with transaction.atomic():
                batch = list(rows.filter(pk__gt=last).select_for_update(of=("self",))[:AT_ONCE])
                for row in batch:
                    token = getattr(row, column)
                    try:
                        resealed = sealing.resealed(settings.HEALTHMON_FIELD_KEYS, token)
                    except sealing.SealBroken:
                        lost += 1
                        self.stderr.write(f"{model._meta.verbose_name} {row.pk} cannot be opened")
                        continue
                    if resealed != token:
                        rows.filter(pk=row.pk).update(**{column: resealed})
                        rotated += 1
            if not batch:
                break
            last = batch[-1].pk
        self.stdout.write(
            f"{model._meta.verbose_name_plural}: {rotated} sealed anew, {lost} not to be opened"
        )
        return lost
