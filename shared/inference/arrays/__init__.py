"""Images that a program holds in memory, mapped as files are."""
