"""The bundles behind a MONAI Label server: tumour maps in the viewer, weak labels back. `scripts/serve.py` starts it.

Only `app`, `datastore`, `server`, `tasks` and, through `app`, `inference_api` import MONAI Label, which few users need
(`requirements-monailabel.txt`).
"""
