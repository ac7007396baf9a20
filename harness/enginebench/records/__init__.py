"""What a run stores: the run folder, cell and launch records, samples, engine counters and telemetry series."""
