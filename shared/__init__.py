"""Every line of Python that the bundles run. Folders are the pipeline; see README.md, "Architecture"."""

__version__ = "0.1.0"


def require_version(version: str) -> None:
    """Check that this is the `shared` that a bundle was made for; every configuration runs it first.

    Two downloaded bundles in one process share whichever `shared` was imported first.

    Args:
        version: wanted, as in the bundle's ``metadata.json``.

    Raises:
        RuntimeError: if another version is loaded.
    """
    if version != __version__:
        raise RuntimeError(
            f"this bundle needs shared {version}, but {__version__} is loaded from {__path__[0]}: run bundles of different "
            "versions in processes of their own"
        )
