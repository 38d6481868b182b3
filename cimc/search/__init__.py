"""A search for a better placement: local changes, proposed by a model of traffic, accepted by the timing engine."""
