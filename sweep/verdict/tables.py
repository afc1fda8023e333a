"""The audit of the pruner as a terminal shows it."""

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from rich.table import Table


def what_if_view(table: pd.DataFrame, top: int) -> "Table":
    """pruner_audit.what_if_table, one row per pruner and arm."""
    from rich.table import Table

    view = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    view.add_column("pruner", no_wrap=True)
    view.add_column("arm", no_wrap=True)
    for column in ("stopped", "steps saved", f"lost of best {top}", "best lost", "beyond record"):
        view.add_column(column, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        view.add_row(
            row["pruner"],
            row["arm"],
            f"{row['stopped']} of {row['trials']}",
            f"{row['steps_saved']:.0%}",
            str(row["winners_lost"]),
            "yes" if row["best_lost"] else "no",
            str(row["beyond_record"]),
        )
    return view


def shadow_lines(table: pd.DataFrame) -> list[str]:
    """pruner_audit.shadow_table in words, one line per arm."""
    return [
        f"{row['arm']}: {row['among_best']} of {row['shadows']} shadow trials ended among the best "
        f"(95% interval of the share: {row['low']:.0%} to {row['high']:.0%})"
        if row["shadows"]
        else f"{row['arm']}: no trial that would have been stopped ran on"
        for row in table.to_dict("records")
    ]
