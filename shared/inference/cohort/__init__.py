"""Many slides into one output folder, on one machine or many."""
