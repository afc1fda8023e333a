"""The command line: read options, call the module that does the work, print the outcome.

Add a command by adding a file with one @app.command function. torch, pandas, plotly and Optuna are
imported inside commands, so that --help takes a fifth of a second.
"""

import errno
import gc
import os
import re
import shlex
import signal
import sys
from contextlib import suppress
from itertools import zip_longest
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from gpt.errors import SquenSweepError, StorageError
from sweep.cli import check, dashboard, doctor, report, run, status, train, verdict
from sweep.cli.export import export, pack, transfer
from sweep.study.paths import DEFAULT_STORAGE

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_SPACE = "there must be space for what is written, but: {}; make some."
OBJECTS = 50_000  # allocated until garbage is collected; with 700, imports take a sixth longer
USAGE_ERROR: Any = typer.BadParameter.__base__  # typer exports only this subclass of it


class _Group(TyperGroup):
    """Commands whose help is shown as it is written.

    Brackets are no markup, a paragraph's line breaks are those of the terminal, and flags have no
    type beside them, since they take no value.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.help = _as_written(command.help)
            for param in _without_types(command.get_params(ctx)):
                param.help = _as_written(getattr(param, "help", None))
        return command


def _as_written(text: str | None) -> str | None:
    if text is None:
        return None
    paragraphs = (" ".join(lines.split()) for lines in text.split("\n\n"))
    return re.sub(r"(?<!\\)\[", r"\\[", "\n\n".join(paragraphs))


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


app = typer.Typer(
    name="squen-sweep",
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hyperparameter sweeps for GPT pre-training that answer which loss is better, fairly.",
    epilog="Start with: squen-sweep run --study tinystories --trials 40\n\n"
    "Exit codes: 0 done, 1 training failed, 2 usage, 65 damaged data, 74 disk, 75 try again later, "
    "129 / 130 / 143 stopped by a signal (rerun to resume).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS = (run, check, status, verdict, report, dashboard, export, pack, transfer, train, doctor)
for command in COMMANDS:
    app.add_typer(command.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"squen-sweep {version('squen-sweep')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Read the options that stand before a command."""


def main() -> None:
    """Run the command line; an error that the user can fix is one line on stderr and a code."""
    gc.set_threshold(OBJECTS)
    ending = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL  # under nohup, SIGHUP stays ignored
    ]
    for number in ending:
        signal.signal(number, _end)
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
        for number in ending:
            signal.signal(number, signal.SIG_DFL)
        gc.freeze()  # at exit, Python would search a million objects for garbage, for 0.5 s
        _flush(sys.exc_info()[1])


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does: what is open is closed, so that the database is one complete file."""
    sys.exit(128 + number)


def _refuse(message: str, code: int = 2) -> NoReturn:
    line = "\\n".join(message.splitlines())  # a path may hold line breaks
    with suppress(OSError):  # a log on a full disk
        print(f"error: {line}", file=sys.stderr)
    sys.exit(code)


def _flush(ending: BaseException | None) -> None:
    """Write what was printed. On a full disk that is an error; the code of another one stays."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # else Python tries again when it ends, and makes it 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if isinstance(ending, SystemExit) and not ending.code and error.errno in FULL:
                _refuse(NO_SPACE.format(error.strerror), StorageError.exit_code)


def _of_storage(error: Exception) -> SquenSweepError | None:
    """Explain a database that failed in the middle of a command; None for a bug."""
    if "sqlite3" not in sys.modules:
        return None
    from sweep.storage.errors import explained
    from sweep.storage.location import storage_path

    given = _option("--storage") or DEFAULT_STORAGE
    return explained(error, given, storage_path(given))


def _option(name: str) -> str | None:
    """Return the value of an option as it was typed: --name VALUE or --name=VALUE."""
    for word, following in zip_longest(sys.argv, sys.argv[1:]):
        option, equals, value = word.partition("=")
        if option == name:
            return value if equals else following
    return None


def _of_a_file(error: Exception) -> SquenSweepError | None:
    """Explain a file that cannot be used, such as a name that is too long; None for a bug."""
    if not isinstance(error, OSError):
        return None
    if error.filename is None:  # a write
        return StorageError(NO_SPACE.format(error.strerror)) if error.errno in FULL else None
    return StorageError(f"{error.filename} must be usable, but: {error.strerror}.")


def _command() -> list[str]:
    """Return the command that was called, without its options."""
    names = typer.main.get_group(app).commands
    return ["squen-sweep", *(word for word in sys.argv[1:2] if word in names)]


if __name__ == "__main__":
    main()
