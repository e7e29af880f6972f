"""The simulated inference fleet: thousands of real HTTP servers on loopback, in one process.

`python -m controller.provision.fleet --socket PATH` runs it; `process.running_fleet` starts it
as a child that dies with its parent; `client.FleetClient` speaks to it. A revision tells its
replicas how to behave through `SIM_…` variables in its environment: see `replica.Behaviour`.
"""
