"""Does any loss beat cross-entropy? Successive halving over losses, then a verdict of the best.

    python tests/benchmarks/tournament.py OUT.json [--data DATA] [--storage DB] [--runs FOLDER]

In each round every member that is left has equally many trials, of a search of its own luck; the
better half goes on, and the reference always does. The last round's best three are judged against
the reference with seeds added until each answer is settled. Rerun to resume; what is complete is
not repeated. Members, budgets and margin are in tournament.toml and below, and were written before
any result; a round that began is not continued with other ones.

Source:
    Jamieson, Talwalkar (2016), "Non-stochastic Best Arm Identification and Hyperparameter
    Optimization", arXiv:1502.07943: successive halving.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.analysis import results
from sweep.backends import make_backend
from sweep.callbacks.live import make_display
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.study.search_space import Parameter
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from sweep.tuner.options import RunOptions
from sweep.tuner.run import run
from sweep.verdict.budget import ledger_table

FILE = Path(__file__).with_suffix(".toml")
TRIALS = (6, 12, 24)  # of each member by round; all rounds cost about as much
FINALISTS = 3  # that the last round sends to the verdict
MAX_SEEDS = 40


@dataclass(frozen=True)
class Ranked:
    """A member after a round."""

    member: str
    perplexity: float | None  # of its best trial; None without a complete one


def round_spec(spec: StudySpec, number: int, members: Sequence[str]) -> StudySpec:
    """Return the study of a round, from 1 on: the members that are left, and other luck."""
    assert spec.compare is not None
    search = {
        name: left
        for name, parameter in spec.search.items()
        if (left := _left(name, parameter, spec.compare, members)) is not None
    }
    sampler = spec.sampler.model_copy(update={"seed": spec.sampler.seed + number - 1})
    train = spec.train | {"seed": spec.seed + 100_000 * (number - 1)}  # beyond those of verdicts
    name = f"{spec.name}.round-{number}"
    changes = {"name": name, "search": search, "sampler": sampler, "train": train}
    return spec.model_copy(update=changes)


def _left(
    name: str, parameter: Parameter, compare: str, members: Sequence[str]
) -> Parameter | None:
    """Return a parameter as the members that are left have it; None if it is none of theirs."""
    if name == compare:
        return parameter.model_copy(update={"choices": list(members)})
    if compare not in parameter.when:
        return parameter
    having = [one for one in members if one in parameter.allowed(compare)]
    when = {**parameter.when, compare: having}
    return parameter.model_copy(update={"when": when}) if having else None


def going_on(ranked: Sequence[Ranked], reference: str, count: int) -> list[str]:
    """Return the members of the next round: the reference, and the best others of that many."""
    others = [one for one in ranked if one.member != reference and one.perplexity is not None]
    best = sorted(others, key=lambda one: one.perplexity or 0.0)
    return [reference, *(one.member for one in best[:count])]


def counts(members: int, rounds: int, finalists: int) -> list[int]:
    """Return how many members besides the reference leave each round: half, at last the finalists.

    Args:
        members: Of the first round, with the reference.
        rounds: How many there are.
        finalists: How many leave the last.
    """
    left = [max(finalists, -(-(members - 1) // 2 ** (nth + 1))) for nth in range(rounds)]
    return [*left[:-1], finalists]


def play(
    spec: StudySpec, options: RunOptions, data: str | None, by_round: Sequence[int], quiet: bool
) -> dict[str, Any]:
    """Run all rounds; exits with 75 if one is interrupted."""
    members, reference = spec.arms, spec.arms[0]
    text = spec.data if data is None else spec.data.with_source(data)
    rounds = []
    for number, (trials, leaving) in enumerate(
        zip(by_round, counts(len(members), len(by_round), FINALISTS), strict=True), start=1
    ):
        of_round = round_spec(spec, number, members)
        total = trials * len(members)
        if run(of_round, text, options, make_display(quiet), trials=total).interrupted:
            print("interrupted; run the same command again to continue", file=sys.stderr)
            raise SystemExit(75)
        storage = open_storage(options.storage, create=False)
        study = load_study(storage, of_round.name)
        best = {arm: value for arm, (_, value) in results.best_by_arm(study).items()}
        ranked = [Ranked(member, best.get(member)) for member in members]
        budget = ledger_table(study, of_round, storage)
        members = going_on(ranked, reference, leaving)
        rounds.append(
            {
                "study": study.study_name,
                "trials of each": trials,
                "best perplexities": {one.member: one.perplexity for one in ranked},
                "budget": json.loads(budget.to_json(orient="records")),
                "go on": members,
            }
        )
    return {"rounds": rounds, "finalists": members}


def verdict(study: str, finalists: Sequence[str], options: RunOptions) -> Mapping[str, Any]:
    """Judge the finalists against the first, by the command that a user has."""
    command = [sys.executable, "-m", "sweep", "verdict", "--study", study]
    command += ["--arms", ",".join(finalists), "--until", "settled", "--max-seeds", str(MAX_SEEDS)]
    command += ["--storage", options.storage, "--runs", str(options.runs), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Play the tournament and write every figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--study", default=str(FILE), help="by default tournament.toml")
    parser.add_argument("--data", help="text, as of `squen-sweep run`")
    parser.add_argument("--storage", default="runs/sweep.db")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--trials", type=_numbers, default=TRIALS, help="by round; by default 6,12,24"
    )
    parser.add_argument("--quiet", action="store_true")
    asked = parser.parse_args()
    options = RunOptions(storage=asked.storage, runs=asked.runs, device=asked.device)
    spec = read_study_file(asked.study, make_backend("local", asked.device, None).kind())
    found = play(spec, options, asked.data, asked.trials, asked.quiet)
    last = found["rounds"][-1]["study"]
    record = verdict(last, found["finalists"], options)
    command = "python tests/benchmarks/tournament.py tests/benchmarks/tournament.json --data DATA"
    written = {"command": command, "study": spec.meaning, **found, "verdict": record}
    asked.out.write_text(json.dumps(written, indent=1) + "\n")
    print("\n".join(record["headline"]))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    main()
