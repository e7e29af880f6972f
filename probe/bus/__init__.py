"""The way to the bus: links, batches, and the prober's side of the contract on it."""
