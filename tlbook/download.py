"""Downloads that either arrive whole or change nothing.

A file cut short, an error page instead of a file or a wrong hash is refused before it can
take the place of anything, so that what lies in the cache can be trusted.
"""

import threading
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

from tlbook.files import whole_file
from tlbook.runtime import cache_dir

_HTML = (b"<!doctype html", b"<html")


class FetchError(RuntimeError):
    """A download failed or was refused; nothing was written."""


def fetch(
    url: str,
    *,
    sha256: str | None = None,
    folder: str | Path | None = None,
    filename: str | None = None,
    timeout: float = 5,
) -> Path:
    """Return the path of a downloaded file, downloading it if it is not there.

    A file that is there with another hash is replaced, though only by one with the right hash.

    Args:
        url: where the file is, http or https.
        sha256: its SHA-256, or the first eight or more digits of it; None trusts the server.
        folder: where to put it; None means `tlbook.runtime.cache_dir()`.
        filename: its name there; None takes the last part of the URL.
        timeout: seconds within which the server must answer, and then never pause for longer.

    Raises:
        FetchError: if there is no connection, or if what arrives is cut short, is an HTML page,
            or has the wrong hash. Nothing is written then.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> _ = Path(folder, "notes.txt").write_text("already here")
        >>> fetch("https://example.org/notes.txt", folder=folder).read_text()
        'already here'
    """
    path = Path(folder or cache_dir()) / (filename or PurePosixPath(urlsplit(url).path).name)
    if path.is_file() and hash_matches(path, sha256):
        return path
    _replace(path, url, sha256, timeout)
    return path


def hash_matches(path: Path, sha256: str | None) -> bool:
    """Return whether a file's SHA-256 begins with the digits given; None matches every file.

    Example:
        >>> hash_matches(Path("any file"), None)
        True
    """
    return sha256 is None or pooch.file_hash(str(path)).startswith(sha256.lower())


def _replace(path: Path, url: str, sha256: str | None, timeout: float) -> None:
    with whole_file(path) as part:
        try:
            _download(url, part, timeout)
            if not hash_matches(part, sha256):
                raise OSError("the file has the wrong hash")
        except OSError as error:
            expected = sha256 or "not given"
            found = pooch.file_hash(str(part)) if part.is_file() else "no file"
            raise FetchError(
                f"{url} was not downloaded: {error}. SHA-256 expected {expected}, found {found}. "
                f"Or download it in a browser and put it at {path}"
            ) from error


def _download(url: str, part: Path, timeout: float) -> None:
    """Write what the URL gives to a file.

    Raises:
        OSError: with one phrase on what went wrong.
    """
    with _open(url, timeout) as response, part.open("wb") as file:
        total = int(response.headers.get("Content-Length", 0)) or None
        bar = tqdm(total=total, unit="B", unit_scale=True, desc=Path(url).name, disable=None)
        try:
            for chunk in response.iter_content(2**16):
                file.write(chunk)
                bar.update(len(chunk))
        except requests.RequestException as error:
            raise OSError(
                f"it was cut short after {file.tell()} of {total or '?'} bytes"
            ) from error
        finally:
            bar.close()
    with part.open("rb") as file:
        if file.read(512).lstrip().lower().startswith(_HTML):
            raise OSError("the server sent an HTML page instead of the file")


def _open(url: str, timeout: float) -> requests.Response:
    """Start a request whose whole beginning, the look-up of the name included, is limited."""
    answer: Future[requests.Response] = Future()

    def ask() -> None:
        try:
            answer.set_result(requests.get(url, stream=True, timeout=timeout))
        except Exception as error:
            answer.set_exception(error)

    # The look-up of a name knows no timeout of its own, and on a network that swallows
    # everything it lasts longer than anybody waits; a daemon thread can be left behind.
    threading.Thread(target=ask, daemon=True).start()
    host = urlsplit(url).netloc
    try:
        response = answer.result(timeout=0.9 * timeout)
        response.raise_for_status()
        return response
    except (TimeoutError, requests.Timeout) as error:
        raise OSError(f"{host} did not answer within {timeout:g} s") from error
    except requests.ConnectionError as error:
        raise OSError(f"there is no connection to {host}") from error
