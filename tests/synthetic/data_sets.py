"""What the tests of generated data sets look at."""

import csv
import hashlib


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
