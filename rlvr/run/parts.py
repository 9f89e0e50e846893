"""Resumable sampling without a run: each batch is a closed file in the folder `OUT.partial` before the next begins.

The same request, made again after a kill, reads the files that are there, samples the rest, and puts all together as
OUT.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlvr.errors import RequestError
from rlvr.files import ending, from_json, replacing, to_json


class Parts:
    """The files of one request."""

    def __init__(self, out: Path) -> None:
        """Raise RequestError unless `out` is a record file's name."""
        ending(out)
        self.out = out
        self.folder = out.with_name(f"{out.name}.partial")

    def begin(self, request: Mapping[str, Any], force: bool) -> str:
        """Return the run id of the records: a new one, or that of the attempt that is continued.

        Raises RequestError if `out` exists or the beginning of another request is there, unless `force` discards them.
        """
        manifest = self.folder / "request.json"
        if manifest.is_file() and not force:
            begun = from_json(manifest.read_text(encoding="utf-8"), str(manifest))
            asked = json.loads(to_json(request))
            if begun["request"] != asked:
                changed = [key for key, value in asked.items() if begun["request"].get(key) != value]
                raise RequestError(
                    f"{self.folder} holds the beginning of another request (other {', '.join(changed)}): continue "
                    "that one, or discard it with --force"
                )
            return str(begun["run_id"])
        if self.out.exists() and not force:
            raise RequestError(f"{self.out} exists: name another file, or replace it with --force")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        run_id = uuid.uuid4().hex[:12]
        with replacing(manifest) as temporary:
            temporary.write_text(to_json({"run_id": run_id, "request": request}), encoding="utf-8")
        return run_id

    def file(self, number: int) -> Path:
        """Return the path of a batch's file."""
        return self.folder / f"{number:06d}.parquet"

    def discard(self) -> None:
        """Remove the folder, once OUT is complete."""
        shutil.rmtree(self.folder)
