"""What maps score against the truth, with intervals, and what labels painted over whole images would."""
