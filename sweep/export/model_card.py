"""The model card of an exported run: README.md with the front matter of the Hugging Face hub."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gpt.config import DataConfig
from gpt.data.corpus import BUILT_IN_NAME
from gpt.data.tokenizer import END_OF_TEXT
from sweep.export.trained_run import TrainedRun
from sweep.storage.schema import study_attrs
from sweep.study.format import number, perplexity

if TYPE_CHECKING:
    import optuna

    from sweep.export.trial import Origin

MADE_BY = "squen-sweep export --format huggingface"
TINYSTORIES_LICENCE = "CDLA-Sharing-1.0"


@dataclass(frozen=True)
class StudyAnswer:
    """Words of a study on the model that it found."""

    name: str
    question: str | None
    origin: str  # of the exported trial: Origin.line()
    verdict: str | None  # None: there is none yet


def study_answer(study: "optuna.Study", origin: "Origin") -> StudyAnswer:
    """Return a stored study's words on a trial of its own."""
    attrs = study_attrs(study)
    return StudyAnswer(
        name=study.study_name,
        question=(attrs.spec or {}).get("question"),
        origin=origin.line(),
        verdict=(attrs.verdict or {}).get("answer"),
    )


def model_card(run: TrainedRun, answer: StudyAnswer | None) -> str:
    """Return the README.md of a run's folder: use, data, training, study, verdict, licence."""
    sections = [
        _front_matter(run.config.data),
        f"# {answer.name if answer else run.folder.resolve().name}\n\n{_summary(run)}",
        f"## Use\n\n{_use(run)}",
        f"## Data\n\n{_data(run.config.data)}",
        f"## Training\n\n{_training(run)}",
        f"## Study and verdict\n\n{_study(answer)}",
        f"## Licence\n\n{_licence(run.config.data)}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(data: DataConfig) -> str:
    lines = [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "license: unknown # of these weights: whoever publishes them chooses it",
        "tags:\n- gpt2\n- squen-sweep",
    ]
    if data.source == "hub":
        lines.append(f"datasets:\n- {data.hub_name}")
    return "\n".join(["---", *lines, "---"])


def _summary(run: TrainedRun) -> str:
    config = run.config
    weights = sum(value.numel() for value in run.weights.values())
    biases = (
        ""
        if config.bias
        else " It was trained without biases: those in the file are zero, which "
        "changes no output; a program that trains it further would train them too."
    )
    return (
        f"A GPT-2 of {weights:,} parameters ({config.n_layer} layers, {config.n_head} heads, "
        f"{config.n_embd} columns, contexts of {config.block_size} tokens, tokenizer "
        f"{run.encoding.name}).{biases} Made by `{MADE_BY}` {version('squen-sweep')}."
    )


def _use(run: TrainedRun) -> str:
    return (
        "```python\n"
        "from transformers import pipeline\n\n"
        'generator = pipeline("text-generation", model="PATH")\n'
        'print(generator("Once upon a time")[0]["generated_text"])\n'
        "```\n\n"
        f"The tokenizer puts `{END_OF_TEXT}` before a text, as every story had it in training, and "
        f"a text ends after {run.config.block_size} tokens at most: beyond, the model has no "
        f"positions (`max_length` counts the prompt too)."
    )


def _data(data: DataConfig) -> str:
    split = f", split {data.split}" if data.source == "hub" else ""
    limit = f", the first {data.max_stories:,} stories" if data.max_stories else ""
    print_of = f"; fingerprint {data.fingerprint}" if data.fingerprint else ""
    return f"{_name(data)}{split}{limit}{print_of}."


def _name(data: DataConfig) -> str:
    """Return the name of a text, without the folders that a machine keeps it in."""
    match data.source:
        case "hub":
            return "/".join(filter(None, (data.hub_name, data.hub_config)))
        case "built-in":
            return f"The {BUILT_IN_NAME} of squen-sweep, which is not TinyStories"
        case "auto":
            return f"{data.hub_name}, or the {BUILT_IN_NAME} where that could not be reached"
    return f"The files {Path(data.source).name}"


def _training(run: TrainedRun) -> str:
    config, last = run.config, run.evaluation
    options = ", ".join(
        f"{name} {number(value)}"
        for name, value in {**config.loss_options, **config.optimizer_options}.items()
    )
    text = (
        f"{run.step:,} of {config.max_steps:,} steps of {config.tokens_per_step:,} tokens; loss "
        f"{config.loss}, optimizer {config.optimizer}{f' ({options})' if options else ''}, "
        f"learning rate {number(config.learning_rate)} ({config.schedule}), seed {config.seed}."
    )
    if last is None:
        return text
    return (
        f"{text} On the validation text, after {last.step:,} steps: perplexity "
        f"{perplexity(last.perplexity)} under softmax, {last.bits_per_byte:.3f} bits per byte."
    )


def _study(answer: StudyAnswer | None) -> str:
    if answer is None:
        return "None was named when this was written (`--study`)."
    question = f"Its question: {answer.question}\n\n" if answer.question else ""
    verdict = answer.verdict or (
        "There is no verdict yet: the best of a search with one seed was lucky, too."
    )
    return f"{answer.origin}\n\n{question}Verdict: {verdict}"


def _licence(data: DataConfig) -> str:
    text = "The text has its own."
    if data.source == "hub" and data.hub_name == DataConfig().hub_name:
        text = f"The text, {data.hub_name}, is published under {TINYSTORIES_LICENCE}."
    return (
        f"{text} The program that trained the model has the MIT licence, which says nothing of "
        f"these weights: set `license` at the top of this file before you publish them."
    )
