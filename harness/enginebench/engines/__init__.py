"""Which engines exist and how they are installed: adapters, their environments, their container images."""
