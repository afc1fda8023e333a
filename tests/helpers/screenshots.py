"""Pictures of the report, the dashboard and the terminal, to be looked at; made by hand:

    python tests/helpers/screenshots.py runs/sweep.db tinystories /tmp/pictures

needs a Chromium. Writes PNGs and the printed report as PDF, and names what a console complained of.
"""

import io
import sys
from pathlib import Path
from threading import Thread

import optuna
from browsers import complaints_of, open_browser, wait_for_figures
from optuna.storages import RDBStorage
from playwright.sync_api import Browser
from rich.console import Console

from gpt.events import Evaluation
from sweep.analysis.results import arm_of, best_by_arm, evaluations_table
from sweep.callbacks.live import LiveProgress
from sweep.dashboard.arm_views import view_id
from sweep.dashboard.server import make_server
from sweep.report.report import write_report
from sweep.report.status_table import status
from sweep.storage.rdb import load_study, open_storage
from sweep.tuner.callback import Counts, Evaluated, Notice, TrialStarted

WIDTHS = {"desktop": 1200, "phone": 390}
PAGES = {"study": "", "analytics": "/analytics", "trials": "/trials?numbers=0", "note": "/note"}
COMPARED = [1, 2]  # arms of the study, by their places in its file


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
    with make_server(open_storage(storage), port=0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        page = browser.new_page(viewport={"width": 1400, "height": 2600})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        for name, place in PAGES.items():
            address = f"http://127.0.0.1:{server.server_port}/dashboard/studies/{number}{place}"
            page.goto(address)
            page.wait_for_timeout(4000)  # it asks for data after it is loaded
            page.screenshot(path=out / f"dashboard-{name}.png")
        ids = ",".join(str(view_id(number, place)) for place in COMPARED)
        page.goto(f"http://127.0.0.1:{server.server_port}/dashboard/compare-studies?ids={ids}")
        page.wait_for_timeout(4000)
        page.screenshot(path=out / "dashboard-compare.png")
        page.close()
        server.shutdown()
        thread.join()
    return faults


def picture_terminal(browser: Browser, storage: str, study: str, out: Path) -> None:
    """What `status` shows, and `run` while it trains, in a terminal of 120 columns."""
    opened = open_storage(storage)
    stored = load_study(opened, study)
    shown = {"status": status(stored, 120), "run": [live(opened, stored).draw()]}
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
