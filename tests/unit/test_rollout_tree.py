"""What `rollout watch` draws, as text: each strategy in its states, without colours."""

# ruff: noqa: E501 - the text stands here as it is printed

from collections.abc import Callable
from dataclasses import replace
from inspect import cleandoc
from io import StringIO

import pytest
from rich.console import Console

from controller.cli.rollout_tree import tree
from controller.cli.watch import line
from controller.db.events import deployment_state
from controller.model import Outcome, Policy, SubStep, WeightStep
from controller.rollout import machine
from controller.rollout.outlook import nobody
from controller.rollout.progress import Decided, Progress, in_flight, newest
from tests.fakes.nouns import NEW, NOW_MS, OLD, a_rollout
from tests.fakes.rollouts import ask_promotion, go_on, greens, until
from tests.fakes.small_world import SmallWorld

ROLLING = Policy(surge=1, unavailable=0, rollout_timeout_s=600)
BLUE_GREEN = Policy(strategy="blue-green", promote_delay_s=30, rollout_timeout_s=600)
BY_HAND = Policy(strategy="blue-green", auto_promote=False, rollout_timeout_s=600)
CANARY = Policy(
    strategy="canary",
    rollout_timeout_s=600,
    steps=(WeightStep(weight_percent=10, pause_s=60), WeightStep(weight_percent=50, pause_s=60)),
)
DECIDED = (
    Decided(
        at_ms=NOW_MS + 5_000,
        rule="replace",
        category="deploying",
        state="deploying/provisioning",
        result="success",
        attempts=1,
        message="creates 1, drains 0; 0 of 3 replicas of revision 2 ready, 0 starting",
    ),
    Decided(
        at_ms=NOW_MS + 20_000,
        rule="wait",
        category="deploying",
        state="deploying/progressing",
        result="waiting",
        attempts=3,
        message="waiting: 1 of 3 replicas of revision 2 ready, 1 starting; 2 of others left, 2 of them ready",
    ),
    Decided(
        at_ms=NOW_MS + 25_000,
        rule="",
        category="pause",
        state="deploying/progressing",
        result="success",
        attempts=1,
        message="ada paused it: \x1b[2Jlunch",
    ),
)


def seen(world: SmallWorld, decisions: tuple[Decided, ...] = ()) -> Progress:
    """Look at a world as the API does."""
    cycle = machine.look(
        world.deployment,
        world.live,
        world.now_ms,
        failed=world.failed,
        fresh=nobody(),
        held=world.held,
    )
    assert cycle is not None
    return in_flight(cycle, state=deployment_state(world.deployment), decisions=decisions)


def begun(policy: Policy, cycles: int = 0) -> SmallWorld:
    world = SmallWorld(3, policy)
    go_on(world, cycles)
    return world


def after(policy: Policy, rule: str) -> SmallWorld:
    world = begun(policy)
    until(world, rule)
    return world


def paused() -> Progress:
    """Five minutes ago, after 15 s."""
    world = begun(ROLLING, 3)
    rollout = world.deployment.rollout
    assert rollout is not None
    stopped = replace(rollout, paused_at_ms=world.now_ms)
    world.deployment = replace(world.deployment, rollout=stopped)
    world.now_ms += 300_000
    return seen(world, DECIDED)


def held() -> Progress:
    world = begun(ROLLING, 5)
    world.held = True
    return seen(world)


def going_back() -> Progress:
    world = after(CANARY, "shift")
    for green in greens(world):
        world.fail(green)
    world.deployment = replace(world.deployment, sub_step=SubStep.ROLLING_BACK)
    return seen(world)


def promoted() -> Progress:
    """With the old ones kept to switch back to."""
    policy = Policy(strategy="blue-green", scale_down_delay_s=600)
    world = after(policy, "promote")
    rollout = a_rollout(
        policy,
        outcome=Outcome.PROMOTED,
        ended_at_ms=world.now_ms,
        message="blue-green update promoted",
    )
    return newest(
        world.deployment,
        rollout,
        world.live,
        now_ms=world.now_ms,
        numbers={OLD.id: 1, NEW.id: 2},
        state=deployment_state(world.deployment),
    )


def forced() -> Progress:
    world = after(BY_HAND, "await_promotion")
    ask_promotion(world)
    return seen(world)


CASES: dict[str, Callable[[], Progress]] = {
    "rolling, before its first cycle": lambda: seen(begun(ROLLING)),
    "rolling, half way": lambda: seen(begun(ROLLING, 9), DECIDED[:2]),
    "rolling, paused": paused,
    "rolling, held": held,
    "blue-green, waits for its delay": lambda: seen(after(BLUE_GREEN, "promote_delay")),
    "blue-green, awaits its promotion": lambda: seen(after(BY_HAND, "await_promotion")),
    "blue-green, was promoted by hand": forced,
    "blue-green, has ended": promoted,
    "canary, at its first share": lambda: seen(after(CANARY, "shift")),
    "canary, going back": going_back,
}
GOLDEN: dict[str, str] = {
    "rolling, before its first cycle": """
        demo  revision 1 → 2, rolling, provisioning  by ada
        ├── old  revision 1
        │   └── 3  ready  100 % of the traffic
        ├── new, ready                                  0 of 3
        ├── limits    3 ready, floor 3; 3 active, ceiling 4; 0 of 3 lost
        ├── deadline  10 min of 10 min left
        └── next      replace: starts 1 of revision 2 at its next run
        """,
    "rolling, half way": """
        demo  revision 1 → 2, rolling, progressing  by ada
        ├── new  revision 2
        │   └── 1  starting  0 % of the traffic
        │       2  ready     67 % of the traffic
        ├── old  revision 1
        │   └── 1  ready  33 % of the traffic
        ├── new, ready  ━━━━━━━━━━━━━━━━━━━━            2 of 3
        ├── limits    3 ready, floor 3; 4 active, ceiling 4; 0 of 3 lost
        ├── deadline  9 min 15 s of 10 min left
        ├── next      wait: waits for 1 replica of revision 2 to become ready
        └── decided
            └── 13:46:45  replace      creates 1, drains 0; 0 of 3 replicas of revision 2 ready, 0 starting
                13:47:00  wait     3x  waiting: 1 of 3 replicas of revision 2 ready, 1 starting; 2 of others
                                       left, 2 of them ready
        """,
    "rolling, paused": """
        demo  revision 1 → 2, rolling, provisioning  by ada
        ├── new  revision 2
        │   └── 1  ready  25 % of the traffic
        ├── old  revision 1
        │   └── 3  ready  75 % of the traffic
        ├── new, ready  ━━━━━━━━━━                      1 of 3
        ├── limits    4 ready, floor 3; 4 active, ceiling 4; 0 of 3 lost
        ├── deadline  9 min 45 s of 10 min left, stands still: paused
        ├── next      paused: an operator stopped it: nothing moves and no clock runs; to go on: fleetpulse
        │   rollout resume demo
        └── decided
            └── 13:46:45  replace      creates 1, drains 0; 0 of 3 replicas of revision 2 ready, 0 starting
                13:47:00  wait     3x  waiting: 1 of 3 replicas of revision 2 ready, 1 starting; 2 of others
                                       left, 2 of them ready
                13:47:05  pause        ada paused it:  [2Jlunch
        """,
    "rolling, held": """
        demo  revision 1 → 2, rolling, progressing  by ada
        ├── new  revision 2
        │   └── 1  starting  0 % of the traffic
        │       1  ready     33 % of the traffic
        ├── old  revision 1
        │   └── 2  ready  67 % of the traffic
        ├── new, ready  ━━━━━━━━━━                      1 of 3
        ├── limits    3 ready, floor 3; 4 active, ceiling 4; 0 of 3 lost
        ├── deadline  9 min 35 s of 10 min left, stands still: HOLD
        └── next      wait: waits for 1 replica of revision 2 to become ready
        """,
    "blue-green, waits for its delay": """
        demo  revision 1 → 2, blue-green, progressing  by ada
        ├── new  revision 2
        │   └── 3  ready  0 % of the traffic
        ├── old  revision 1
        │   └── 3  ready  100 % of the traffic
        ├── new, ready  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  3 of 3
        ├── limits    6 ready, floor 3; 6 active, ceiling 6; 0 of 3 lost
        ├── deadline  9 min 40 s of 10 min left
        └── next      promote_delay: all greens are ready, but not for long enough, for another 25 s
        """,
    "blue-green, awaits its promotion": """
        demo  revision 1 → 2, blue-green, awaiting promotion  by ada
        ├── new  revision 2
        │   └── 3  ready  0 % of the traffic
        ├── old  revision 1
        │   └── 3  ready  100 % of the traffic
        ├── new, ready  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  3 of 3
        ├── limits    6 ready, floor 3; 6 active, ceiling 6; 0 of 3 lost
        ├── deadline  9 min 40 s of 10 min left
        └── next      awaiting_promotion: still waits for an operator; to go on: fleetpulse rollout promote
            demo
        """,
    "blue-green, was promoted by hand": """
        demo  revision 1 → 2, blue-green, awaiting promotion  by ada
        ├── new  revision 2
        │   └── 3  ready  0 % of the traffic
        ├── old  revision 1
        │   └── 3  ready  100 % of the traffic
        ├── new, ready  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  3 of 3
        ├── limits    6 ready, floor 3; 6 active, ceiling 6; 0 of 3 lost
        ├── deadline  9 min 40 s of 10 min left
        └── next      promote: all greens are ready: they get all traffic, the blues none, in one
            transaction, at its next run
        """,
    "blue-green, has ended": """
        demo  revision 1 → 2, blue-green, promoted  by ada
        ├── new  revision 2
        │   └── 3  ready  100 % of the traffic
        ├── old  revision 1
        │   └── 3  kept  0 % of the traffic
        ├── new, ready  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  3 of 3
        └── ended     blue-green update promoted
        """,
    "canary, at its first share": """
        demo  revision 1 → 2, canary, progressing  by ada
        ├── new  revision 2
        │   └── 3  ready  10 % of the traffic
        ├── old  revision 1
        │   └── 3  ready  90 % of the traffic
        ├── new, ready  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  3 of 3
        ├── limits    6 ready, floor 3; 6 active, ceiling 6; 0 of 3 lost
        ├── deadline  9 min 40 s of 10 min left
        └── next      pause_step: the share stays as it is until its pause is over, for another 1 min
        """,
    "canary, going back": """
        demo  revision 1 → 2, canary, rolling back  by ada
        ├── old  revision 1
        │   └── 3  ready  100 % of the traffic
        ├── old, ready  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  3 of 3
        ├── limits    3 ready, floor 3; 3 active, ceiling 6; 3 of 3 lost
        ├── deadline  10 min of 10 min left
        └── next      restored: the current revision serves alone again, at its next run
        """,
}


def drawn(progress: Progress, *, away: str = "") -> str:
    console = Console(file=StringIO(), width=100, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(tree(progress, away=away))
    return "\n".join(row.rstrip() for row in captured.get().splitlines())


@pytest.mark.parametrize("case", CASES)
def test_a_rollout_is_drawn_as_this(case: str) -> None:
    assert drawn(CASES[case]()) == cleandoc(GOLDEN[case])


def test_who_is_away_is_said_below_what_was_seen_last() -> None:
    shown = drawn(seen(begun(ROLLING)), away="database is away\x1b[2J")
    assert shown.splitlines()[-1] == "waiting: database is away [2J"


def test_a_terminal_gets_no_codes_of_others() -> None:
    assert "\x1b" not in drawn(paused())


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (
            "rolling, half way",
            "demo: progressing, new 2/3 ready, 1 old active, 3 ready (floor 3), 67 % of the traffic to new, next wait",
        ),
        (
            "blue-green, waits for its delay",
            "demo: progressing, new 3/3 ready, 3 old active, 6 ready (floor 3), next promote_delay",
        ),
        ("blue-green, has ended", "demo: ready, new 3/3 ready, 3 old active"),
    ],
)
def test_off_a_terminal_it_is_one_line(case: str, says: str) -> None:
    assert line(CASES[case]()) == says


def test_time_alone_is_no_change() -> None:
    world = after(BLUE_GREEN, "promote_delay")
    before = seen(world, DECIDED)
    world.now_ms += 1_000
    repeated = tuple(replace(one, attempts=9, at_ms=world.now_ms) for one in DECIDED)
    now = seen(world, repeated)
    assert now != before
    assert now.essence == before.essence
    world.relapse(greens(world)[0])
    assert seen(world, repeated).essence != before.essence
