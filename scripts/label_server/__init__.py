"""A MONAI Label server for the bundles: it sends tumour maps to viewers and receives weak labels. `scripts/serve.py` starts it.

Only `app`, `datastore`, `server`, `tasks` and, through `app`, `inference_api` import MONAI Label, which few users need
(`requirements-monailabel.txt`).
"""
