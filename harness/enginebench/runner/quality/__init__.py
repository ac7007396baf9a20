"""What a `quality` of a scenario measures on a running engine: perplexity, predictions, continuations, tasks. Judges nothing."""
