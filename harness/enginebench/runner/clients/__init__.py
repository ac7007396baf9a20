"""Load from several hosts: the clients that a run is given, what each says of itself, and `bench client`, which runs on each."""
