"""The live tree of `rollout watch`: one rollout, drawn once.

Imported by `controller.cli.watch` when there is a terminal to draw on; knows nothing of where a
progress comes from.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from controller.rollout.progress import READY, Clock, Deadline, Limits, Progress, Share
from controller.wording import one_line, span

BAR_WIDTH: Final = 30
_COLOURS: Final = {
    READY: "green",
    "kept": "blue",
    "unhealthy": "red",
    "degraded": "yellow",
    "not_checked": "yellow",
    "draining": "magenta",
    "cooling_down": "magenta",
}
_ON_THE_WAY: Final = "cyan"
_CLOCKS: Final = {
    Clock.RUNS: "",
    Clock.HELD: ", stands still: HOLD",
    Clock.PAUSED: ", stands still: paused",
}


def tree(progress: Progress, *, away: str = "") -> RenderableType:
    """Draw a rollout; `away` says why there is nothing newer."""
    drawn = Tree(_title(progress), guide_style="dim")
    for side, shares in groupby(progress.shares, key=lambda share: share.side):
        number = progress.to_number if side == "new" else progress.from_number
        revision = "" if number is None else f"  revision {number}"
        branch = drawn.add(Text.assemble((side, "bold"), revision))
        branch.add(_shares(list(shares)))
    drawn.add(_bars(progress))
    for line in _facts(progress):
        drawn.add(line)
    if progress.decisions:
        drawn.add(Text("decided", style="bold")).add(_decisions(progress))
    if away:
        return Group(drawn, Text(f"waiting: {one_line(away)}", style="yellow"))
    return drawn


def _title(progress: Progress) -> Text:
    numbers = [str(n) for n in (progress.from_number, progress.to_number) if n is not None]
    arrow = " \N{RIGHTWARDS ARROW} ".join(numbers)
    state = progress.state.rpartition("/")[2] if progress.outcome is None else progress.outcome
    return Text.assemble(
        (progress.deployment, "bold"),
        f"  revision {arrow}, {progress.strategy}, ",
        (state.replace("_", " "), "bold"),
        (f"  by {one_line(progress.actor)}", "dim"),
    )


def _shares(shares: list[Share]) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(justify="right")
    for share in shares:
        state = Text(share.state.replace("_", " "), _COLOURS.get(share.state, _ON_THE_WAY))
        rows.add_row(str(share.count), state, f"{share.traffic_percent} % of the traffic")
    return rows


def _bars(progress: Progress) -> Table:
    back = progress.state.endswith("rolling_back")
    side = "old" if back else "new"
    rows = Table.grid(padding=(0, 2))
    ready, target = progress.ready_of(side), progress.target
    bar = ProgressBar(total=max(1, target), completed=min(ready, target), width=BAR_WIDTH)
    rows.add_row(Text(f"{side}, ready", style="bold"), bar, f"{ready} of {target}")
    return rows


def _facts(progress: Progress) -> Iterator[Text]:
    if progress.limits is not None:
        yield _floor(progress.limits)
    if progress.deadline is not None:
        yield _clock(progress.deadline)
    if progress.outlook is not None:
        yield _fact("next", one_line(progress.outlook.sentence))
    if progress.outcome is not None and progress.message:
        yield _fact("ended", one_line(progress.message))


def _floor(limits: Limits) -> Text:
    below = limits.ready < limits.floor
    return _fact(
        "limits",
        Text.assemble(
            (f"{limits.ready} ready, floor {limits.floor}", "bold red" if below else ""),
            f"; {limits.active} active, ceiling {limits.ceiling}",
            f"; {limits.lost} of {limits.lost_max} lost",
        ),
    )


def _clock(deadline: Deadline) -> Text:
    text = f"{span(deadline.left_s)} of {span(deadline.timeout_s)} left{_CLOCKS[deadline.clock]}"
    return _fact("deadline", Text(text, "" if deadline.clock is Clock.RUNS else "yellow"))


def _fact(name: str, text: str | Text) -> Text:
    return Text.assemble((f"{name:<8}", "bold"), "  ", text)


def _decisions(progress: Progress) -> Table:
    rows = Table.grid(padding=(0, 2))
    for _ in range(3):
        rows.add_column(no_wrap=True)
    rows.add_column()
    for one in progress.decisions:
        at = datetime.fromtimestamp(one.at_ms / 1000, tz=UTC)
        times = f"{one.attempts}x" if one.attempts > 1 else ""
        name = Text(one.rule or one.category, style="cyan" if one.rule else "")
        rows.add_row(f"{at:%H:%M:%S}", name, times, one_line(one.message))
    return rows
