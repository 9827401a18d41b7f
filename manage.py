#!/usr/bin/env python
"""Django's command line."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "healthmon.settings")
    from django.core.management import execute_from_command_line

    import healthmon.celery  # noqa: F401 - services publish through the default app
    from healthmon.lib import audit

    command = f"manage.py {sys.argv[1]}" if len(sys.argv) > 1 else "manage.py"
    with audit.acting(lambda: audit.system(command)):
        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
