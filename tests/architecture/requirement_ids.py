"""What went wrong in systems of this kind, as what ours does instead: one line each, numbered.

A test that holds one of them names its id in a docstring; the list of those without one is empty.
"""

from typing import Final, NamedTuple


class Requirement(NamedTuple):
    """One of them."""

    id: str
    says: str


REQUIREMENTS: Final = (
    # Health and targets
    Requirement("R-01", "replicas are probed while they warm up and while they run"),
    Requirement("R-02", "within the retry budget a verdict stays; a failure never improves one"),
    Requirement("R-03", "a route without a health check is unmanaged, and ready when it runs"),
    Requirement("R-04", "nothing to do is no I/O; `now` is read after the evidence"),
    Requirement("R-05", "never probed, expired, unreadable and unobserved are four things"),
    Requirement("R-10", "target sync says what was written, skipped with why, and failed"),
    Requirement("R-40", "a backfill is tested on rows shaped like real ones"),
    Requirement("R-41", "history has every change of health, from and to, and only changes"),
    Requirement("R-42", "a stage does not outlive its status"),
    Requirement("R-43", "an unknown version on the bus is ignored and counted"),
    Requirement("R-44", "the bus forgets a route that ended; its address may serve another"),
    Requirement("R-51", "no start-up and no flushed bus loses a target"),
    Requirement("R-52", "one probe of a target at a time; a skipped start is counted"),
    Requirement("R-53", "what the prober lacks is never charged to a replica"),
    Requirement("R-54", "no replica delays the probe of another"),
    Requirement("R-55", "every failure has a coded reason, on the bus and in the metrics"),
    # Rollouts
    Requirement("R-06", "history is built after the decision: late notes are not lost"),
    Requirement("R-08", "an error names the attribute as it is called"),
    Requirement("R-09", "a public field keeps its meaning or goes"),
    Requirement("R-11", "progress is not failure: long rollouts complete"),
    Requirement("R-12", "failures are charged to their own deployment, never to a batch"),
    Requirement("R-13", "pointers, lifecycle, routes and history move in one transaction"),
    Requirement("R-14", "a promotion is guarded by the rollout it belongs to, and done once"),
    Requirement("R-15", "an exception fails its own entities, and the tick goes on"),
    Requirement("R-16", "messages name strategy and outcome; too late is called expired"),
    Requirement("R-17", "a write needs the state it was decided on; a lost one has no history"),
    Requirement("R-18", "clocks and attempts belong to one deployment, rollout and phase"),
    Requirement("R-19", "waiting is recorded, and ends by a deadline like everything else"),
    Requirement("R-21", "what follows a commit is given what was really committed"),
    Requirement("R-22", "shared types carry no strategy's name"),
    Requirement("R-23", "every handler has a test of its own"),
    Requirement("R-26", "a strategy nobody implemented is refused when it is written"),
    Requirement("R-27", "the coordinator knows no strategy and no state by name"),
    Requirement("R-28", "what moves a rollout is not called scaling, nor the reverse"),
    Requirement("R-29", "activation: flow, current already, override, unknown revision"),
    Requirement("R-30", "while deploying, the replica count is the rollout's affair alone"),
    Requirement("R-31", "no percentage leaves a rollout without room to move"),
    Requirement("R-32", "only the ready count as available; the last ready one stays"),
    Requirement("R-33", "warming up gives traffic only where the strategy wants it"),
    Requirement("R-34", "a terminal route stays terminal"),
    Requirement("R-35", "greens are refilled, counted again, and none forgotten"),
    Requirement("R-36", "delays and deadlines run on the database's clock"),
    Requirement("R-37", "a registration that fails is a failure with history"),
    Requirement("R-38", "what is being destroyed is touched by nothing else"),
    Requirement("R-39", "a rollback to nothing destroys"),
    Requirement("R-56", "each layer of a test has its own value; every list is asserted"),
    # Eviction and publishing
    Requirement("R-07", "proxy sync filters by status and traffic, not health"),
    Requirement("R-20", "health evicts only what runs; orphans go while they start, too"),
    Requirement("R-20c", "history has the real state a route had"),
    Requirement("R-20d", "an orphan goes whatever its health; without a revision nobody is one"),
    Requirement("R-20e", "evictions have a budget; an outage of ours evicts nothing"),
    Requirement("R-45", "times to live are named, and expiry resets no intent"),
    Requirement("R-46", "connection info: one serializer, one atomic write"),
    Requirement("R-47", "the last route's leaving publishes an empty table"),
    Requirement("R-48", "unregister, grace, then stop"),
    Requirement("R-49", "every mark has a consumer and a producer"),
    Requirement("R-50", "a late full table resurrects nobody"),
    Requirement("R-57", "what others see of a change is told after its commit"),
    # Definitions
    Requirement("R-24", "an unknown runtime variant names the known ones"),
    Requirement("R-25", "a malformed file is refused with place, value and remedy"),
    Requirement("R-58", "a revision is what it was when it was made, whatever changes later"),
    Requirement("R-59", "a definition is typed in every layer"),
    Requirement("R-60", "a breaking change is switched on, and said to be one"),
    # Bus and process
    Requirement("R-61", "probe starts are spread, also right after a restart"),
    Requirement("R-62", "a restart or a hand-over keeps streaks"),
    Requirement("R-63", "a client notices that its primary was demoted"),
    Requirement("R-64", "no key of ours without a time to live, after any crash"),
    Requirement("R-65", "a target nobody visits is seen in a metric"),
    Requirement("R-66", "our own network's absence is not theirs"),
    Requirement("R-67", "a metric series ends with its object"),
)
