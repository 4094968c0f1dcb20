"""What `scripts/doctor.py` looks at. Nothing here needs an installed package: what is missing is what it reports."""
