import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils import timezone

from accounts.services import create_first_owner


class Command(BaseCommand):
    help = (
        "Create the first team and its owner if there is no user yet, and print one line of JSON: "
        '{"email", "password", "created"}. The password is null unless it was made up just now.'
    )

    def handle(self, *args: Any, **options: Any) -> None:
        first = create_first_owner(
            settings.HEALTHMON_ADMIN_EMAIL, settings.HEALTHMON_ADMIN_PASSWORD, now=timezone.now()
        )
        answer = {"email": first.email, "password": first.password, "created": first.created}
        self.stdout.write(json.dumps(answer))
