"""A site of many runs: static files (`build`), or the same pages served on this machine while runs go on (`server`)."""
