"""The original study's table again: learning rate, dropout and depth of both losses.

    python -m tests.benchmarks.poster STORIES FOLDER

runs poster.toml in FOLDER, judges its best, and writes poster.json and studies/original.md: every
trial, the answer, and a story of each loss. Rerun to resume. The picture there is drawn by
picture.py with --study poster.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from sweep.analysis import results
from tests.benchmarks import measuring
from tests.benchmarks.small_to_big import squen

STUDY = Path(__file__).with_suffix(".toml")
NAME = "poster"
TRIALS = 24
PAGE = Path(__file__).parents[2] / "studies" / "original.md"
SEARCHED = ["learning_rate", "dropout", "n_layer"]
WORDS = """\
# The original study's table, again

`{command}`
asks, with [{study}](../tests/benchmarks/{study}): {question}

{answer}

![Learning curves of both losses, and the ratio of perplexities](../.github/assets/original.png)

Every setting ran with each loss: validation perplexity after {tokens:,} tokens, {width} wide,
{heads} heads, {vocabulary:,} tokens in the vocabulary.

{table}

## A story of each, by the best trial

{stories}

## What the original's 3.8 and 5.2 are

| | |
|---|---|
{card}

This table is no repetition of the original's figures: model, vocabulary, text and budget are
others. On a GPU the study [original](original.toml) comes nearer:
`squen-sweep run --study original --trials 40`.
"""


def table(trials: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each setting, a column for each loss; the first loss's best first."""
    arms = list(trials["arm"].unique())
    wide = trials.pivot_table("perplexity", SEARCHED, "arm", dropna=False)[arms].dropna(how="all")
    return wide.sort_values(arms[0]).reset_index()


def markdown(rows: pd.DataFrame) -> str:
    """Write a table in Markdown; a trial that ended without a figure has none."""
    shown = (
        rows.astype({"n_layer": int}).map(lambda value: f"{value:.4g}").replace("nan", "diverged")
    )
    lines = [list(shown.columns), ["---:"] * len(shown.columns), *shown.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(stories: str, folder: Path) -> None:
    """Run the study and its verdict, and write the page."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ("--study", str(STUDY), "--trials", str(TRIALS), "--data", stories, "--quiet")
    squen(folder, "run", *words)
    record: dict[str, Any] = json.loads(squen(folder, "verdict", "--study", NAME, "--json"))
    reader = results.open(folder / "runs" / "sweep.db", NAME)
    rows = table(reader.trials)
    told = {}
    for arm in reader.arms:
        number = results.best_trial(reader.study, arm).number
        run_dir = str(folder / "runs" / NAME / str(number))
        told[arm] = squen(folder, "sample", run_dir, "--max-new-tokens", "120").strip()
    measuring.write(
        NAME,
        {
            "trials": rows.to_dict("records"),
            "answer": record["answer"],
            "confirmed": record["confirmed"],
            "comparisons": record["comparisons"],
            "stories": told,
        },
        "STORIES FOLDER",
    )
    train, data = reader.spec["train"], reader.spec["data"]
    card = reader.spec["background"]["The original study"]
    page = WORDS.format(
        command="python -m tests.benchmarks.poster STORIES FOLDER",
        study=STUDY.name,
        question=reader.spec["question"],
        answer="\n\n".join(record["headline"]),
        tokens=train["max_steps"] * train["batch_size"] * train["block_size"],
        width=train["n_embd"],
        heads=train["n_head"],
        vocabulary=data["bpe_vocab_size"],
        table=markdown(rows),
        stories="\n\n".join(
            f"**{arm}**\n\n> {story.replace(chr(10), chr(10) + '> ')}"
            for arm, story in told.items()
        ),
        card="\n".join(f"| {name} | {text} |" for name, text in card.items()),
    )
    PAGE.write_text(page)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
