"""What is trained, the trivial baselines included, what it cost, and which call made it."""
