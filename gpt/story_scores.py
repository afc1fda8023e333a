"""What a finished run leaves of its last evaluation: story by story, and by confidence.

    RUN_DIR/stories.json       {"tokens": [...], "bytes": [...], "nats": [...], ...}, an entry each
    RUN_DIR/calibration.json   [{"count": ..., "confidence": ..., "accuracy": ...}, ...]

Sums over the same stories pair two runs, which resolves far smaller differences than two means do.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from gpt.calibration import reliability
from gpt.data import ValidationSet
from gpt.disk import write_text
from gpt.evaluate import Scores

STORIES = "stories.json"
CALIBRATION = "calibration.json"


def write_story_scores(run_dir: Path, scores: Scores, data: ValidationSet) -> None:
    """Write both files, whole or not at all.

    Per story, in the order of the text: targets (end-of-text included), UTF-8 bytes, summed nats
    under softmax and under the loss's own link, and how many targets were the most likely token.
    """
    sums = {
        "tokens": torch.ones_like(scores.nats),
        "nats": scores.nats,
        "link_nats": scores.link_nats,
        "correct": scores.correct,
    }
    stories = {name: scores.by_story(values).tolist() for name, values in sums.items()}
    stories["bytes"] = data.story_bytes.tolist()
    bins = [asdict(b) for b in reliability(scores.confidence, scores.correct)]
    for name, content in ((STORIES, stories), (CALIBRATION, bins)):
        write_text(run_dir / name, json.dumps(content))
