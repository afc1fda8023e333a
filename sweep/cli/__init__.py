"""The command line: reads options, calls the module that does the work, shows the outcome.

Add a command by adding one function with @app.command to a file of sweep/cli. torch, pandas,
plotly and Optuna are imported inside commands, so that --help takes a fifth of a second.
"""

import gc
import shlex
import sys
from itertools import pairwise
from typing import Any, NoReturn

import typer

from gpt.errors import SquenSweepError, StorageError
from sweep.cli import dashboard, doctor, export, report, run, status, train, verdict
from sweep.cli.options import DEFAULT_STORAGE

OBJECTS = 50_000  # made until garbage is collected; by Python's 700, imports take a sixth longer
USAGE_ERROR: Any = typer.BadParameter.__base__  # typer exports only this subclass of it

app = typer.Typer(
    name="squen-sweep",
    help="Hyperparameter sweeps for GPT pre-training that answer which loss is better, fairly.",
    epilog="Start with: squen-sweep run --study tinystories --trials 40\n\n"
    "Exit codes: 0 done, 1 training failed, 2 usage, 65 damaged data, 74 disk, 75 try again later, "
    "129 / 130 / 143 stopped by a signal (resumable).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (run, status, verdict, report, dashboard, export, train, doctor):
    app.add_typer(command.app)


def main() -> None:
    """Run the command line; what the user can mend is one line on stderr and its exit code."""
    gc.set_threshold(OBJECTS)
    try:
        sys.exit(app(standalone_mode=False))
    except SquenSweepError as error:
        _refuse(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except USAGE_ERROR as error:
        if len(sys.argv) == 1:  # no command: the error is the help
            error.show()
            sys.exit(2)
        _refuse(f"{error.format_message().rstrip('.')}; see {shlex.join(_command())} --help.")
    except Exception as error:
        if (explanation := _of_storage(error) or _of_a_file(error)) is None:
            raise
        _refuse(str(explanation), explanation.exit_code)
    finally:
        if "sweep.storage.rdb" in sys.modules:
            from sweep.storage.rdb import close_all

            close_all()
        gc.freeze()  # Python's end would look for garbage among a million objects, for 0.5 s


def _refuse(message: str, code: int = 2) -> NoReturn:
    line = "\\n".join(message.splitlines())  # a path may hold line breaks
    print(f"error: {line}", file=sys.stderr)
    sys.exit(code)


def _of_storage(error: Exception) -> SquenSweepError | None:
    """What to say of a database that failed in the middle of a command; None of a bug."""
    if "sqlalchemy" not in sys.modules:
        return None
    from sweep.storage.rdb import sqlite_path, storage_url
    from sweep.storage.sqlite import explained

    given = next((b for a, b in pairwise(sys.argv) if a == "--storage"), DEFAULT_STORAGE)
    return explained(error, given, sqlite_path(storage_url(given)))


def _of_a_file(error: Exception) -> SquenSweepError | None:
    """What to say of a file that cannot be used, such as a name that is too long; None of a bug."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    return StorageError(f"{error.filename} must be usable, but: {error.strerror}.")


def _command() -> list[str]:
    """What was called, without its options."""
    names = typer.main.get_group(app).commands
    return ["squen-sweep", *(word for word in sys.argv[1:2] if word in names)]


if __name__ == "__main__":
    main()
