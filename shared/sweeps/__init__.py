"""One configuration trained with several values of some of its keys."""
