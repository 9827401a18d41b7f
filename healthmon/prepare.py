"""Bring the database up to date and make the first team: what has to happen before the processes start.

One process for both, because importing Django twice is a second of waiting. Prints bootstrap's line of JSON.
"""

import os
import sys

import django
from django.core.management import CommandError, call_command
from django.db import Error

from healthmon.lib import audit


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "healthmon.settings")
    django.setup()
    try:
        with audit.acting(lambda: audit.system("bootstrap")):
            call_command("migrate", interactive=False, verbosity=0)
            call_command("createcachetable", verbosity=0)
            call_command("bootstrap")
    except (Error, CommandError) as error:
        sys.exit(f"healthmon: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
