"""Every strategy there is. A new one is a file beside this, and a line here.

The names are what a policy may say, what metrics are labelled with, and what the docs draw.
"""

from typing import Final

from controller.errors import InvalidInput
from controller.model import Deployment, Policy
from controller.rollout.bluegreen import BLUE_GREEN
from controller.rollout.canary import CANARY
from controller.rollout.counting import Bounds
from controller.rollout.rolling import ROLLING
from controller.rollout.table import Strategy

STRATEGIES: Final = {
    strategy.name: strategy
    for strategy in (
        ROLLING,
        BLUE_GREEN,
        CANARY,
    )
}


def strategy_of(policy: Policy) -> Strategy:
    """Return the strategy that a policy names.

    Raises:
        InvalidInput: if it names none (R-26).
    """
    strategy = STRATEGIES.get(policy.strategy)
    if strategy is None:
        raise InvalidInput(
            f"policy.strategy: there is no {policy.strategy!r}; implemented: "
            f"{', '.join(STRATEGIES)}"
        )
    return strategy


def check(policy: Policy) -> None:
    """Refuse a policy that names no strategy, or says what its strategy has no use for (R-26).

    Raises:
        InvalidInput: with what to write instead.
    """
    complaint = strategy_of(policy).complaint(policy)
    if complaint:
        raise InvalidInput(complaint)


def bounds_of(policy: Policy, target: int) -> Bounds:
    """Return how far a deployment may stray from `target` replicas under a policy."""
    return strategy_of(policy).bounds(policy, target)


def limits(deployment: Deployment) -> Bounds:
    """Return the bounds that hold for a deployment now: the rollout's own, where there is one."""
    policy = deployment.rollout.policy if deployment.rollout else deployment.policy
    return bounds_of(policy, deployment.target_count)
