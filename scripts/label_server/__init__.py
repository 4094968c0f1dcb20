"""A MONAI Label server for the bundles: it sends tumour maps to viewers and receives weak labels. `scripts/serve.py` starts it.

`app`, `server`, `endpoints`, `tasks` and `studies.datastore` import MONAI Label, which few users need
(`requirements-monailabel.txt`); nothing else here does.
"""
