"""The data step of the Multi30k example: English and German captions as plain files, checked against known SHA-256.

Takes ``multi30k/*.gz`` from the folder that NMT_ASYNC_DATA names, else downloads the files of task 1 (raw text) from
their public repository, https://github.com/multi30k/dataset. The hashes are those of the text, not of the gzip
files, whose bytes depend on who compressed them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
import zlib
from contextlib import closing
from pathlib import Path
from typing import IO

from nmt_async.errors import UserError

REPOSITORY = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
PUBLIC_NAMES = {"train": "train", "valid": "val", "test2016": "test_2016_flickr"}
SHA256 = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "valid.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "valid.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "test2016.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test2016.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
}
TIMEOUT_SECONDS = 30
BLOCK_BYTES = 1 << 16


def opened(name: str, local: Path | None, repository: str) -> tuple[IO[bytes], str]:
    """The compressed file ``name`` ("train.en"), and where it came from, for messages.

    Raises:
        UserError: it is not in the folder ``local``, or the download could not begin.
    """
    if local is not None:
        path = local / f"{name}.gz"
        try:
            return path.open("rb"), str(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): put Multi30k there, or unset NMT_ASYNC_DATA to download it."
            ) from None
    part, language = name.split(".")
    url = f"{repository}/{PUBLIC_NAMES[part]}.{language}.gz"
    try:
        return urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS), url
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise _failed_download(url, error) from None


def _failed_download(url: str, error: Exception) -> UserError:
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return UserError(f"{url} could not be downloaded ({reason}): try again, or name a folder with NMT_ASYNC_DATA.")


def fetch(name: str, folder: Path, local: Path | None, repository: str = REPOSITORY) -> None:
    """Writes the text of ``name`` into ``folder``, where it appears only once it is whole and its hash is right.

    Raises:
        UserError: the file is absent, damaged, not the text it should be, or its download failed.
    """
    compressed, origin = opened(name, local, repository)
    beside = folder / f".{name}.{os.getpid()}"
    sha256 = hashlib.sha256()
    try:
        with closing(compressed), gzip.open(compressed) as text, beside.open("wb") as written:
            while block := _read(text, origin, local):
                sha256.update(block)
                written.write(block)
        if sha256.hexdigest() != SHA256[name]:
            raise UserError(
                f"{origin} is not the text this example was measured on (SHA-256 {sha256.hexdigest()} instead of "
                f"{SHA256[name]}): get it again from https://github.com/multi30k/dataset."
            )
        beside.replace(folder / name)
    finally:
        beside.unlink(missing_ok=True)


def _read(text: gzip.GzipFile, origin: str, local: Path | None) -> bytes:
    try:
        return text.read(BLOCK_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{origin} is damaged (not whole gzip): get it again.") from None
    except (OSError, http.client.HTTPException) as error:
        if local is None:
            raise _failed_download(origin, error) from None
        raise UserError(f"{origin} cannot be read ({error}).") from None


def is_there(path: Path) -> bool:
    """Whether an earlier run already wrote ``path``, with the right text."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[path.name]
    except OSError:
        return False


def main() -> int:
    """Exit code 0, or 2 where a file is missing, wrong or cannot be downloaded."""
    parser = argparse.ArgumentParser(description="Puts Multi30k English-German into a folder as plain text.")
    parser.add_argument("--out", type=Path, required=True, help="the folder; gets train.en, train.de, valid.en, ...")
    folder: Path = parser.parse_args().out
    data = os.environ.get("NMT_ASYNC_DATA")
    local = Path(data) / "multi30k" if data else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in SHA256:
            if not is_there(folder / name):
                fetch(name, folder, local)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or folder}: {error.strerror}; name a folder that can be written.", file=sys.stderr)
        return 2
    print(f"Multi30k English-German is in {folder}: train, valid and test2016.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
