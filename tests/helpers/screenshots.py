"""Pictures of the report, the dashboard and the terminal, made by hand:

    python tests/helpers/screenshots.py runs/sweep.db tinystories /tmp/pictures

needs a Chromium. Writes PNGs and the printed report as PDF, and prints complaints of the console.
"""

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from contextlib import suppress
from pathlib import Path

import optuna
from browsers import complaints_of, open_browser, wait_for_figures
from optuna.storages import RDBStorage
from playwright.sync_api import Browser, Page
from rich.console import Console, RenderableType
from rich.text import Text
from serving import serving

from gpt.events import Evaluation
from sweep.analysis.results import arm_of, best_by_arm, evaluations_table
from sweep.callbacks.live import LiveProgress
from sweep.report.report import write_report
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.tuner.callback import Counts, Evaluated, Notice, TrialStarted

WIDTHS = {"wide": 1400, "phone": 390}
TERMINALS = ((80, 24), (180, 50))  # columns and lines
PAGES = {"study": "", "analytics": "/analytics", "trials": "/trials?numbers=0", "note": "/note"}


def picture_report(browser: Browser, report: Path, out: Path) -> list[str]:
    """The top, each section, the whole page on a phone, in the dark, and on paper."""
    complaints = []
    for device, width in WIDTHS.items():
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            heard = complaints_of(page)
            page.goto(report.as_uri())
            wait_for_figures(page)
            painted = page.evaluate("performance.getEntriesByName('first-paint')[0].startTime")
            print(f"{device}, {scheme}: first paint after {painted:.0f} ms")
            page.screenshot(path=out / f"report-{device}-{scheme}-top.png")
            page.screenshot(path=out / f"report-{device}-{scheme}.png", full_page=True)
            for section in page.locator("section").all():
                name = section.get_attribute("id")
                section.screenshot(path=out / f"report-{device}-{scheme}-{name}.png")
            if (device, scheme) == ("wide", "light"):
                page.pdf(path=out / "report-printed.pdf", format="A4", prefer_css_page_size=True)
            picture_choice(page, out / f"report-{device}-{scheme}-chosen.png")
            complaints += heard
            page.close()
    return complaints


def picture_choice(page: Page, path: Path) -> None:
    """The trials after some are filtered away and two are chosen, in the last half of training."""
    page.locator("#filter").fill("complete")
    for box in page.locator("#all-trials tr:not([hidden]) input").all()[-2:]:
        box.check()
    if page.locator("#curve-switches").count():
        page.locator("[name=half]").check()
    page.wait_for_timeout(1000)  # curves follow a moment later
    page.locator("#explore").screenshot(path=path)


def picture_dashboard(browser: Browser, storage: str, number: int, out: Path) -> list[str]:
    """The pages of a study, as Optuna Dashboard shows them."""
    with serving(Path(storage)) as port:
        page = browser.new_page(viewport={"width": 1400, "height": 2600})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        for name, path in PAGES.items():
            page.goto(f"http://127.0.0.1:{port}/dashboard/studies/{number}{path}")
            page.wait_for_timeout(4000)  # it asks for data after it is loaded
            page.screenshot(path=out / f"dashboard-{name}.png")
        page.close()
    return faults


def picture_terminal(browser: Browser, storage: str, study: str, out: Path) -> None:
    """What commands print, and what `run` redraws, in a low terminal and in a large one."""
    stored = ["--storage", storage]
    commands = {
        "help": ["--help"],
        "verdict-help": ["verdict", "--help"],
        "plot-help": ["plot", "--help"],
        "studies": ["studies", *stored],
        "status": ["status", "--study", study, *stored],
        "plan": ["check", study],
    }
    opened = open_storage(storage)
    for width, height in TERMINALS:
        for name, words in commands.items():
            shown = Text.from_ansi(printed(words, width, height))
            picture(browser, name, shown, width, out / f"terminal-{name}-{width}x{height}.png")
        drawn = live(opened, load_study(opened, study), width, height).draw()
        picture(browser, "run", drawn, width, out / f"terminal-run-{width}x{height}.png")


def printed(words: list[str], width: int, height: int) -> str:
    """What a command prints in a terminal of that size, with its colours."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", "sweep", *words])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    parts = []
    with suppress(OSError):  # Linux' end of a terminal
        while part := os.read(terminal, 65536):
            parts.append(part)
    os.waitpid(process, 0)
    os.close(terminal)
    return b"".join(parts).decode().replace("\r\n", "\n")


def picture(browser: Browser, title: str, shown: RenderableType, width: int, path: Path) -> None:
    """Write what a terminal shows as PNG."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(shown)
    drawn = path.with_suffix(".svg")
    drawn.write_text(console.export_svg(title=f"squen-sweep {title}"))
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.goto(drawn.resolve().as_uri())
    page.locator("svg").screenshot(path=path)
    page.close()
    drawn.unlink()


def live(storage: RDBStorage, study: optuna.Study, width: int, height: int) -> LiveProgress:
    """The display of a sweep whose last two trials are half way."""
    now = [0.0]
    console = Console(width=width, height=height, file=io.StringIO())
    listener = LiveProgress(console, clock=lambda: now[0])
    listener.on(Notice(study.user_attrs["data"]["notice"] or "an example"))
    trials = study.get_trials(deepcopy=False)
    rows = evaluations_table(storage, study.study_name)
    for trial in trials[-2:]:
        found = rows[rows["trial_number"] == trial.number].drop(columns="trial_number")
        listener.on(
            TrialStarted(trial.number, arm_of(trial), trial.params, int(found["step"].max()), {})
        )
        for row in found.head(len(found) // 2 + 1).to_dict("records"):
            now[0] += 2.0
            listener.on(Evaluated(trial.number, Evaluation(**row)))
    listener.on(Counts(len(trials) - 2, len(trials), best_by_arm(study)))
    return listener


def main() -> None:
    """Make all pictures."""
    storage, study, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    opened = open_storage(storage)
    stored = load_study(opened, study)
    report = write_report(opened, stored, out.resolve() / "report.html")
    print(f"report: {report.stat().st_size / 1e6:.2f} MB")
    with open_browser() as browser:
        complaints = picture_report(browser, report, out)
        complaints += picture_dashboard(browser, storage, stored._study_id, out)
        picture_terminal(browser, storage, study, out)
    print("\n".join(complaints) or "no complaint")


if __name__ == "__main__":
    main()
