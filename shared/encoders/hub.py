"""Weights from Hugging Face and from releases: downloaded once, with one clear error where they cannot be had."""

from __future__ import annotations

import http.client
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import torch
from tqdm import tqdm

__all__ = ["downloaded", "explained_hub_errors", "from_hub"]

PAGE = "https://huggingface.co/"
# Of a server that says nothing any more.
TIMEOUT_S = 60.0


@contextmanager
def explained_hub_errors(source: str, repository: str | None = None) -> Iterator[None]:
    """Turn errors of a download from Hugging Face into a RuntimeError that says what to do.

    Args:
        source: of the encoder, as its user named it.
        repository: on Hugging Face; None reads it from `source`.
    """
    try:
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the encoder {source} needs huggingface_hub, which is not installed: pip install -r requirements-encoders.txt"
        ) from error
    page = PAGE + (repository or source.removeprefix("hf-hub:").removeprefix("hf_hub:"))
    if repository is None and source.startswith(("hf-hub:", "hf_hub:")):
        # Its configuration is there too, and is needed even with weights of one's own.
        needed, given = "its config.json and weights", "the folder that holds both as local-dir:FOLDER"
    else:
        needed, given = "them", "the file as checkpoint_path"
    try:
        yield
    except errors.GatedRepoError as error:
        raise RuntimeError(
            f"the weights of {source} are only available to people who have been granted access. Request it at {page}, log in "
            f"with `hf auth login` (or set HF_TOKEN) and start again; or, if you have {needed}, give {given}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RuntimeError(
            f"there is no {page}, or it is private: check the name {source}, or log in with `hf auth login`"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RuntimeError(
            f"cannot get the weights of {source}: {first}. Download {needed} from {page} on a machine with network access and "
            f"give {given}"
        ) from error


def from_hub(source: str, repository: str, files: Sequence[str]) -> Path:
    """The first of `files` that a repository on Hugging Face has, in the cache of huggingface_hub.

    Raises:
        RuntimeError: if it cannot be had.
    """
    with explained_hub_errors(source, repository):
        from huggingface_hub import errors, hf_hub_download

        for name in files[:-1]:
            try:
                return Path(hf_hub_download(repository, name))
            except errors.LocalEntryNotFoundError:
                raise
            except errors.EntryNotFoundError:
                continue
        return Path(hf_hub_download(repository, files[-1]))


def downloaded(source: str, url: str) -> Path:
    """The file at `url`, in ``<torch.hub.get_dir()>/checkpoints``.

    Raises:
        RuntimeError: if it cannot be had; it names the file and where to put it.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{source}-{Path(url).name}"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _download(url, path)
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeError(
            f"cannot get the weights of {source}: {error}. Download {url} on a machine with network access, put it at {path} "
            "and start again, or give it as checkpoint_path"
        ) from error
    return path


def _download(url: str, path: Path) -> None:
    """Download to a name unique to this process, and rename the file when it is complete.

    Raises:
        OSError: if the server cannot be reached, or fewer bytes come than it announced, which `urllib` passes over in silence.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer, part.open("wb") as file:
            announced = answer.headers.get("Content-Length")
            total = None if announced is None else int(announced)
            with tqdm.wrapattr(file, "write", total=total, desc=path.name, leave=False, disable=None) as written:
                shutil.copyfileobj(answer, written)
            size = file.tell()
        if total is not None and size != total:
            raise OSError(f"the download was cut short: expected {total} bytes, found {size}")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
