"""The commands `init` and `check`: a study file to start from, and its plan before it runs."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from gpt.errors import InputError
from gpt.system.files import atomic_write_text
from sweep.cli.options import as_path, as_source, check_output, workers_of

TEMPLATES = Path(__file__).parent / "templates"

app = typer.Typer()


@app.command(epilog="Example: squen-sweep init mine, then squen-sweep check mine.toml")
def init(
    *,
    name: Annotated[str, typer.Argument(help="Name of the study; its file is NAME.toml.")] = "mine",
    data: Annotated[
        str | None,
        typer.Option(help="Your text: a path, or hub:NAME; else TinyStories.", callback=as_source),
    ] = None,
    program: Annotated[
        bool,
        typer.Option("--program", help="For a training program of your own; writes a stand-in."),
    ] = False,
) -> None:
    """Write a study file with comments, to start from. It runs as it is, on a CPU or a GPU."""
    if program and data is not None:
        raise InputError("--data is text for the built-in GPT: leave out --data or --program.")
    path = Path(name if name.endswith(".toml") else f"{name}.toml")
    files = _program_files(path) if program else {path: _study_file(path, data)}
    for file in files:
        check_output(file)
        if file.exists():
            raise InputError(f"{file} must be a new file, but there is one; pass another name.")
    for file, text in files.items():
        atomic_write_text(file, text)
        typer.echo(f"written: {file}")
    given = shlex.quote(str(path))
    typer.echo(f"next:\n  squen-sweep check {given}\n  squen-sweep run --study {given}")


def _study_file(path: Path, source: str | None) -> str:
    """Return the text of a study file, named as its study."""
    text = _template("study.toml", path)
    if source is None:
        return text
    return text.replace('source = "auto"', f"source = {json.dumps(source, ensure_ascii=False)}")


def _program_files(path: Path) -> dict[Path, str]:
    """Return the texts of a study file and of the program that it runs."""
    program = path.with_suffix(".py")
    python = "python" if shutil.which("python") else "python3"
    text = _template("program.toml", path, PYTHON=python, PROGRAM=program.name)
    return {path: text, program: (TEMPLATES / "program.py.in").read_text(encoding="utf-8")}


def _template(file: str, path: Path, **words: str) -> str:
    """Return a template with its words in capitals replaced, all at once: a name may hold one."""
    from sweep.study.spec import word
    from sweep.study.validation import check_study_name

    try:
        check_study_name(word(path.stem))
    except ValueError as error:
        raise InputError(f"the name of a study {error}.") from None
    text = (TEMPLATES / file).read_text(encoding="utf-8")
    words |= {'"NAME"': json.dumps(path.stem), "FILE": path.name}
    return re.sub("|".join(words), lambda found: words[found[0]], text)


@app.command(epilog="Example: squen-sweep check mine.toml")
def check(
    *,
    file: Annotated[
        Path,
        typer.Argument(
            help="A study file, the name of a shipped one, or a plugin's .py.", callback=as_path
        ),
    ],
    trials: Annotated[int, typer.Option(help="Total number of trials.")] = 40,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    workers: Annotated[str, typer.Option(help="Number of trials at a time, or auto.")] = "auto",
) -> None:
    """Check a study file and print its plan, or test the losses of a plugin. Trains nothing."""
    if file.suffix == ".py":
        _check_plugin(file)
        return
    from rich.table import Table
    from rich.text import Text

    from sweep.cli import console
    from sweep.study.toml_file import read_resources, read_study_file
    from sweep.tuner.options import RunOptions
    from sweep.tuner.plan import plan_of

    if trials < 1:
        raise InputError(f"--trials must be at least 1, but got {trials}.")
    options = RunOptions(device=device, workers=workers_of(workers))
    backend = options.make_backend(read_resources(str(file)))
    spec = read_study_file(str(file), backend.kind())
    table = Table.grid(padding=(0, 2))
    with console.working("measuring") as show:
        for name, words in plan_of(spec, options, trials):
            table.add_row(Text(name, "bold"), Text(words))
            show(name)
    console.show(table)
    typer.echo(f"nothing is wrong; run it: squen-sweep run --study {shlex.quote(str(file))}")


def _check_plugin(file: Path) -> None:
    """Run the tests of losses on those of a plugin."""
    from sweep.study.external.plugins import check_plugin

    if failed := check_plugin(file, typer.echo):
        typer.echo(f"{failed} {'test' if failed == 1 else 'tests'} failed")
        raise typer.Exit(1)
    typer.echo(f'nothing is wrong; name it in a study: plugins = ["{file}"]')
