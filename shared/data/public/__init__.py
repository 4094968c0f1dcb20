"""Published data sets as manifest records: one module for each, and what they share."""
