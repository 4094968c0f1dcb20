"""What bundles say about themselves, read for the programs that know none of them by name."""
