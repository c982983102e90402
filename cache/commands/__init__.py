"""`pgm cache ls | info | head | stats | log | verify | rm | gc | compact | export | split | push |
pull`.

Every command takes `--features` (a folder or URL), a dataset's name or one store's place, and `--json`. Nothing heavy
is imported before a command runs.
"""

import typer

from .keep import compact_command, export, gc, rm
from .show import head, info, log, ls, stats
from .split import EXAMPLE as SPLIT_EXAMPLE
from .split import split_command
from .transfer import PULL_EXAMPLE, pull
from .transfer import PUSH_EXAMPLE as PUSH_EXAMPLE
from .transfer import make_push_command as make_push_command
from .verify import verify_command

cache_app = typer.Typer(no_args_is_help=True, help="Look at, check, remove and export the features in the cache.")
cache_app.command("split", epilog=SPLIT_EXAMPLE)(split_command)
cache_app.command("ls", epilog="Example: pgm cache ls --features features")(ls)
cache_app.command("info", epilog="Example: pgm cache info food101")(info)
cache_app.command("head", epilog="Example: pgm cache head food101 -n 3")(head)
cache_app.command("stats", epilog="Example: pgm cache stats food101 --json")(stats)
cache_app.command("log", epilog="Example: pgm cache log food101")(log)
cache_app.command("verify", epilog="Example: pgm cache verify food101")(verify_command)
cache_app.command("rm", epilog="Example: pgm cache rm features/food101/text--t5-base--3f9c2a1b")(rm)
cache_app.command("gc", epilog="Example: pgm cache gc food101 --keep 2 --yes")(gc)
cache_app.command("compact", epilog="Example: pgm cache compact food101")(compact_command)
cache_app.command("export", epilog="Example: pgm cache export food101 --as safetensors --to /tmp/food101")(export)
cache_app.command("pull", epilog=PULL_EXAMPLE)(pull)
