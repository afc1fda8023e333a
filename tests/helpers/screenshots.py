"""Pictures of the report, the dashboard and the terminal, made by hand:

    python tests/helpers/screenshots.py runs/sweep.db tinystories /tmp/pictures

needs a Chromium. Writes PNGs and the printed report as PDF, and prints complaints of the console.
"""

import io
import sys
from pathlib import Path

import optuna
from browsers import complaints_of, open_browser, wait_for_figures
from optuna.storages import RDBStorage
from playwright.sync_api import Browser
from rich.console import Console
from serving import serving

from gpt.events import Evaluation
from sweep.analysis.results import arm_of, best_by_arm, evaluations_table
from sweep.callbacks.live import LiveProgress
from sweep.report.report import write_report
from sweep.report.status_table import study_status
from sweep.storage.rdb import load_study, open_storage
from sweep.tuner.callback import Counts, Evaluated, Notice, TrialStarted

WIDTHS = {"desktop": 1200, "phone": 390}
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
            page.screenshot(path=out / f"report-{device}-{scheme}-top.png")
            page.screenshot(path=out / f"report-{device}-{scheme}.png", full_page=True)
            for section in page.locator("section").all():
                name = section.get_attribute("id")
                section.screenshot(path=out / f"report-{device}-{scheme}-{name}.png")
            if (device, scheme) == ("desktop", "light"):
                page.pdf(path=out / "report-printed.pdf", format="A4", prefer_css_page_size=True)
            complaints += heard
            page.close()
    return complaints


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
    """What `status` shows, and `run` while it trains, in a terminal of 120 columns."""
    opened = open_storage(storage)
    stored = load_study(opened, study)
    shown = {"status": study_status(stored, 120), "run": [live(opened, stored).draw()]}
    for name, parts in shown.items():
        console = Console(record=True, width=120, file=io.StringIO(), force_terminal=True)
        console.print(*parts, sep="\n")
        picture = out / f"terminal-{name}.svg"
        picture.write_text(console.export_svg(title=f"squen-sweep {name}"))
        page = browser.new_page(viewport={"width": 1500, "height": 1200})
        page.goto(picture.resolve().as_uri())
        page.screenshot(path=out / f"terminal-{name}.png")
        page.close()


def live(storage: RDBStorage, study: optuna.Study) -> LiveProgress:
    """The display of a sweep whose last two trials are half way."""
    now = [0.0]
    listener = LiveProgress(Console(width=120, file=io.StringIO()), clock=lambda: now[0])
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
    with open_browser() as browser:
        complaints = picture_report(browser, report, out)
        complaints += picture_dashboard(browser, storage, stored._study_id, out)
        picture_terminal(browser, storage, study, out)
    print("\n".join(complaints) or "no complaint")


if __name__ == "__main__":
    main()
