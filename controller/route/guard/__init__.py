"""The safety rules: what may be believed, and when nothing irreversible may happen.

Everything can look bad at once for reasons that are not the fleet's: the bus flushed, the probers
gone, a network cut. A controller that believes it then evicts the fleet. This room tells evidence
from ignorance; classification, warm-up and eviction ask it first, and change nothing for the worse
while a cause to hold is given.
"""

from controller.route.guard.breakers import (
    deployment_breaker,
    fleet_breaker,
    held_deployments,
    recent,
    settled,
    too_fast,
)
from controller.route.guard.budget import Budget, Gate
from controller.route.guard.causes import HoldCause, hold
from controller.route.guard.evidence import (
    SETTLE_MIN_S,
    BusView,
    Case,
    StatusEvidence,
    blind_to,
    confirmed,
    coverage_percent,
    evidence_of,
    generation_of,
)

__all__ = [
    "SETTLE_MIN_S",
    "Budget",
    "BusView",
    "Case",
    "Gate",
    "HoldCause",
    "StatusEvidence",
    "blind_to",
    "confirmed",
    "coverage_percent",
    "deployment_breaker",
    "evidence_of",
    "fleet_breaker",
    "generation_of",
    "held_deployments",
    "hold",
    "recent",
    "settled",
    "too_fast",
]
