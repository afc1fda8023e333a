"""Files of trials that Optuna Dashboard shows: the curve as CSV and picture, samples as JSONL.

Optuna keeps which artifacts a trial has in its database, and the files in a folder beside it.
"""

import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import optuna
import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.storages import RDBStorage

from gpt.events import read_events

FOLDER = "artifacts"
ATTRIBUTE = "artifacts:"  # how Optuna's keys of artifacts begin
COLUMNS = ("step", "tokens", "train_loss", "perplexity", "learning_rate", "grad_norm")
WIDTH, HEIGHT, MARGIN = 480, 260, 48  # pixels of the picture


def artifact_store(storage: RDBStorage) -> FileSystemArtifactStore:
    """The folder `artifacts` beside a SQLite file; under runs/ for another database."""
    url = sa.make_url(str(storage.url))
    beside = url.database if url.drivername.startswith("sqlite") and url.database else "runs/x"
    return FileSystemArtifactStore(str(Path(beside).parent / FOLDER))


def attach(
    storage: RDBStorage,
    trial: optuna.Trial,
    run_dir: Path,
    prompts: Sequence[str],
    texts: Sequence[str],
) -> None:
    """Add the files of a trial that has ended but was not told yet: later Optuna takes none.

    A trial that has artifacts already, from a driver that died before it could tell, keeps them.
    """
    known = storage.get_trial_system_attrs(trial._trial_id)
    if any(key.startswith(ATTRIBUTE) for key in known):
        return
    events = [event for event in read_events(run_dir)[0] if event["event"] == "evaluation"]
    points = list({event["step"]: event for event in reversed(events)}.values())[::-1]
    store = artifact_store(storage)
    Path(store._base_path).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for path in _write_files(Path(folder), points, prompts, texts):
            upload_artifact(
                artifact_store=store, file_path=str(path), study_or_trial=trial, storage=storage
            )


def _write_files(
    folder: Path, points: list[dict[str, float]], prompts: Sequence[str], texts: Sequence[str]
) -> list[Path]:
    paths = []
    if points:
        paths += [folder / "curve.csv", folder / "curve.svg"]
        with paths[0].open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(points)
        curve = [(point["tokens"], point["perplexity"]) for point in points]
        paths[1].write_text(curve_svg(curve), encoding="utf-8")
    if texts:
        samples = zip(prompts, texts, strict=True)
        lines = [json.dumps({"prompt": prompt, "text": text}) for prompt, text in samples]
        paths.append(folder / "samples.jsonl")
        paths[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def curve_svg(points: Sequence[tuple[float, float]]) -> str:
    """A small picture of perplexity over tokens: no browser is needed to make it.

    Args:
        points: At least one (tokens, perplexity).
    """
    last = max(tokens for tokens, _ in points) or 1
    low, high = min(value for _, value in points), max(value for _, value in points)
    across, down = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    places = [
        (MARGIN + across * tokens / last, MARGIN + down * (high - value) / ((high - low) or 1))
        for tokens, value in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    text = 'font-family="sans-serif" font-size="12" fill="#555"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}"><rect width="100%" height="100%" fill="#fff"/>'
        f'<polyline points="{line}" fill="none" stroke="#0072B2" stroke-width="2"/>'
        f'<text x="4" y="{MARGIN + 4}" {text}>{high:,.4g}</text>'
        f'<text x="4" y="{HEIGHT - MARGIN + 4}" {text}>{low:,.4g}</text>'
        f'<text x="{MARGIN}" y="20" {text}>validation perplexity over training tokens</text>'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 16}" text-anchor="end" {text}>{last:,.0f}</text>'
        "</svg>\n"
    )
