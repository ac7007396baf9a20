"""Which engines there are and how they get here: adapters, their environments, their container images."""
