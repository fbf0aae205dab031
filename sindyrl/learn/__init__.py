"""Learning controllers inside identified models."""
