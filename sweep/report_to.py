"""Report a figure to the sweep that runs this program; nothing happens elsewhere.

It needs nothing else of this package and may be copied into a program: import it from there then.
"""

import json
import os
import time
from pathlib import Path

_started = time.monotonic()


def report(step: int, value: float, **more: float) -> None:
    """Append an evaluation to $SQUEN_RUN_DIR/events.jsonl.

    Args:
        step: Of the program's own count, greater than in the last call.
        value: The figure that the study file names in [trainer.metric].
        more: tokens (trained on so far), train_loss, learning_rate, or seconds so far.
    """
    if folder := os.environ.get("SQUEN_RUN_DIR"):
        seconds = time.monotonic() - _started
        figures = {"value": value, "seconds": seconds, **more}
        line = {"event": "evaluation", "step": int(step)}
        line |= {name: float(figure) for name, figure in figures.items()}  # of tensors, too
        with Path(folder, "events.jsonl").open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")
