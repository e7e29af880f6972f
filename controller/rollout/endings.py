"""How a rollout ends, or turns back: each is one decision, whole or not at all (R-13).

Called by the machine alone. The words name the strategy, the outcome and the numbers (R-16).
"""

from controller.model import (
    Decision,
    Deployment,
    DeploymentChange,
    Lifecycle,
    Outcome,
    Revision,
    Rollout,
    SubStep,
)

FORWARD = "deploying"
BACK = "rolling_back"


def repair(deployment: Deployment) -> Decision:
    """Bring a deployment back that is DEPLOYING without anything to deploy (R-13)."""
    lifecycle = Lifecycle.PENDING if deployment.current is None else Lifecycle.READY
    return Decision(
        deployment=deployment,
        change=DeploymentChange(
            category=FORWARD,
            message=f"was deploying without a revision to deploy; back to {lifecycle}",
            error_code="NOTHING_TO_DEPLOY",
            lifecycle=lifecycle,
        ),
    )


def promote(deployment: Deployment, rollout: Rollout, *, why: str) -> Decision:
    """End a rollout that did what it was for: its revision becomes the current one."""
    return Decision(
        deployment=deployment,
        change=DeploymentChange(
            category=FORWARD,
            message=f"{rollout.policy.strategy} update promoted: {why}",
            lifecycle=Lifecycle.READY,
            end_rollout=Outcome.PROMOTED,
        ),
    )


def turn_back(deployment: Deployment, rollout: Rollout, outcome: Outcome, *, why: str) -> Decision:
    """Give up going forward: back to the current revision, or away where there is none (R-39)."""
    current = deployment.current
    if current is None:
        return destroy(deployment, rollout, outcome, why=why)
    did = "given up" if outcome is Outcome.ROLLED_BACK else outcome
    return Decision(
        deployment=deployment,
        change=DeploymentChange(
            category=FORWARD,
            message=f"{rollout.policy.strategy} update {did}: {why}; rolling back to "
            f"revision {current.number}",
            error_code=outcome.name,
            lifecycle=Lifecycle.DEPLOYING,
            sub_step=SubStep.ROLLING_BACK,
        ),
    )


def destroy(deployment: Deployment, rollout: Rollout, outcome: Outcome, *, why: str) -> Decision:
    """End a rollout that has nothing to go back to (R-39): then none rolled it back."""
    outcome = Outcome.FAILED if outcome is Outcome.ROLLED_BACK else outcome
    return Decision(
        deployment=deployment,
        change=DeploymentChange(
            category=BACK,
            message=f"{rollout.policy.strategy} update {outcome}: {why}; no revision ever "
            "served, so there is none to go back to: destroying",
            error_code=outcome.name,
            lifecycle=Lifecycle.DESTROYING,
            end_rollout=outcome,
        ),
    )


def gone_back(
    deployment: Deployment, rollout: Rollout, outcome: Outcome, *, given_up: Revision, why: str
) -> Decision:
    """End a rollback: the current revision serves alone, as far as it can."""
    return Decision(
        deployment=deployment,
        change=DeploymentChange(
            category=BACK,
            message=f"{rollout.policy.strategy} update {outcome}, revision {given_up.number} "
            f"given up: {why}",
            error_code=outcome.name,
            lifecycle=Lifecycle.READY,
            end_rollout=outcome,
        ),
    )
