"""One small reader for each library that opens slides."""
