"""How others learn where to send traffic: keys and events on the bus, and documents to fetch."""
