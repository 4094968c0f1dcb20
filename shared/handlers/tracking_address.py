"""Where MLflow's databases and artefacts of a folder are, and how a database learns that its folder has moved."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import uuid
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from .runs.outage import impatient, is_outage

logger = logging.getLogger(__name__)

DATABASE, ARTIFACTS = "mlruns.db", "mlruns"
# Tables of MLflow and their columns with addresses of artefacts.
_ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"))


def database_uri(folder: str | Path) -> str:
    """The address of the database in a folder; what has a meaning in addresses, such as ``%`` and ``?``, is quoted.

    >>> database_uri("/runs/a"), database_uri("/runs/50 %?")
    ('sqlite:////runs/a/mlruns.db', 'sqlite+pysqlite:////runs/50 %25%3F/mlruns.db')
    """
    path = str(Path(folder).absolute() / DATABASE)
    plain = URL.create("sqlite", database=path).render_as_string(hide_password=False)
    if plain == f"sqlite:///{path}":
        return plain
    # The same with the name of the driver: of an address without, MLflow makes the quoted path's folder.
    return URL.create("sqlite+pysqlite", database=path).render_as_string(hide_password=False)


def database_file(uri: str) -> Path | None:
    """The file of a SQLite database's address; None for other addresses."""
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        return None
    return Path(url.database).absolute() if url.get_backend_name() == "sqlite" and url.database else None


def database_of_note(uri: str) -> Path | None:
    """The file that a run folder's note names; earlier versions wrote its path as it is."""
    plain = uri.removeprefix("sqlite:///")
    return database_file(uri) if plain == uri else Path(plain)


def artifact_uri(database: Path) -> str:
    """Where the artefacts of a SQLite database are kept: in the folder ``mlruns`` next to it."""
    return (database.parent / ARTIFACTS).as_uri()


def make_database(database: Path) -> None:
    """Make MLflow's tables in a new SQLite file, which gets its name once they are complete.

    MLflow itself makes them in place, in dozens of steps: a process that is killed in between leaves a database that no later
    start can use. Where the file exists, or another process makes it first, nothing is done.
    """
    if database.exists():
        return
    # Here, for only new databases need what it loads.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
        made = Path(folder) / DATABASE
        SqlAlchemyStore(database_uri(folder), artifact_uri(database)).engine.dispose()
        own = database.with_name(f"{database.name}.{uuid.uuid4().hex[:12]}")
        try:
            shutil.copyfile(made, own)
            _name_if_free(own, database)
        except OSError as error:
            # A full or read-only disk: whoever opens the database finds the same, and says what it means.
            logger.debug(f"{database} was not made: {error}")
        finally:
            own.unlink(missing_ok=True)


def _name_if_free(own: Path, database: Path) -> None:
    """Unlike a rename it leaves another process's database in its place."""
    try:
        os.link(own, database)
    except FileExistsError:
        return
    except OSError:
        # Not every file system has hard links.
        if not database.exists():
            own.replace(database)


def follow_move(database: Path, before: Path) -> None:
    """Tell a database, which lay at `before`, that its artefacts have moved with it, if they have.

    Addresses of other places stay as they are.
    """
    if (before.parent / ARTIFACTS).is_dir() and not (database.parent / ARTIFACTS).is_dir():
        return
    old, new = artifact_uri(before), artifact_uri(database)
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, column in _ADDRESSES:
            changed = connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            ).rowcount
            if changed:
                logger.info(
                    f"{database}: {changed} addresses in {table} were updated, because the folder was moved from {before.parent}"
                )
    # Within a process MLflow remembers where it has put a run's files.
    getattr(utils, "_artifact_repos_cache", {}).clear()


def experiment_id(uri: str, name: str) -> str | None:
    """Id of an experiment; None where there is none or MLflow cannot be reached."""
    try:
        with impatient():
            found = MlflowClient(uri).get_experiment_by_name(name)
    except Exception as error:
        if not is_outage(error):
            raise
        return None
    return None if found is None else str(found.experiment_id)
