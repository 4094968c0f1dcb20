"""What the command lines for published data sets share."""
