"""A small Hub: the endpoints that pushing and pulling a dataset repository use, by the Hub's own client, over HTTP.

Repositories are Git-like only in this: a commit names its parent, and is refused when that is not the latest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

TOKEN = "hf_test"
LARGE = 1000  # bytes: beyond it a file goes to the large-file store


@dataclass
class Hub:
    """commits: of each repository, the files of each commit. large: digest -> bytes. asked: what was requested."""

    commits: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    racing: bool = False  # another commit comes in just before the next one


def sha(repository: str, number: int) -> str:
    return hashlib.sha1(f"{repository} {number}".encode()).hexdigest()


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """The Hub's answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            content = self.body()
            path = self.path.split("?")[0]
            hub.asked.append((self.command, path))
            for method, pattern, respond in ROUTES:
                if method == self.command and (found := re.fullmatch(pattern, path)):
                    return respond(self, content, *found.groups())
            self.send(404, {"error": f"no {self.command} {path}"})

        def body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST = do_PUT = do_HEAD = answer

        def send(self, status: int, value: Any, **headers: str) -> None:
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            for name, header in headers.items():
                self.send_header(name.replace("_", "-"), header)
            self.end_headers()
            self.wfile.write(body)

        def may_write(self) -> bool:
            if self.headers.get("authorization") == f"Bearer {TOKEN}":
                return True
            self.send(401, {"error": "Invalid credentials in Authorization header"})
            return False

        def create(self, content: bytes) -> None:
            asked = json.loads(content)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if self.may_write():
                hub.commits.setdefault(name, [{}])
                self.send(200, {"url": f"http://{self.headers['host']}/datasets/{name}", "name": name})

        def info(self, _: bytes, name: str) -> None:
            if name not in hub.commits:
                self.send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
                return
            self.send(200, {"id": name, "sha": sha(name, len(hub.commits[name])), "siblings": []})

        def tree(self, _: bytes, name: str) -> None:
            files = hub.commits[name][-1]
            entries = [{"type": "file", "path": p, "size": len(b), "oid": "0" * 40} for p, b in files.items()]
            self.send(200, entries)

        def validate(self, content: bytes) -> None:
            assert "pretty_name" in json.loads(content)["content"]
            self.send(200, {"errors": [], "warnings": []})

        def preupload(self, content: bytes, _: str) -> None:
            files = []
            for file in json.loads(content)["files"]:
                large = file["size"] > LARGE and not file["path"].endswith((".md", ".json"))
                mode = "lfs" if large else "regular"
                files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None})
            if self.may_write():
                self.send(200, {"files": files})

        def batch(self, content: bytes, _: str) -> None:
            host = f"http://{self.headers['host']}"
            objects = [
                {
                    **one,
                    **(
                        {} if one["oid"] in hub.large else {"actions": {"upload": {"href": f"{host}/lfs/{one['oid']}"}}}
                    ),
                }
                for one in json.loads(content)["objects"]
            ]
            self.send(200, {"transfer": "basic", "objects": objects})

        def upload(self, content: bytes, digest: str) -> None:
            assert hashlib.sha256(content).hexdigest() == digest
            hub.large[digest] = content
            self.send(200, {})

        def commit(self, content: bytes, name: str) -> None:
            if not self.may_write():
                return
            if hub.racing:
                hub.commits[name].append(dict(hub.commits[name][-1]))
                hub.racing = False
            lines = [json.loads(line) for line in content.splitlines()]
            files = dict(hub.commits[name][-1])
            for line in lines:
                value = line["value"]
                if line["key"] == "header" and value.get("parentCommit") != sha(name, len(hub.commits[name])):
                    return self.send(412, {"error": "A commit has happened since. Please refresh and try again."})
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
            hub.commits[name].append(files)
            oid = sha(name, len(hub.commits[name]))
            self.send(
                200, {"commitUrl": f"http://{self.headers['host']}/datasets/{name}/commit/{oid}", "commitOid": oid}
            )

        def resolve(self, _: bytes, name: str, path: str) -> None:
            self.send(200, hub.commits[name][-1][path])

        def log_message(self, *_: object) -> None:
            return

    name = "([^/]+/[^/]+)"
    ROUTES = (
        ("POST", "/api/repos/create", Handler.create),
        ("POST", "/api/validate-yaml", Handler.validate),
        ("GET", f"/api/datasets/{name}", Handler.info),
        ("GET", f"/api/datasets/{name}/tree/[^/]+/?", Handler.tree),
        ("POST", f"/api/datasets/{name}/preupload/main", Handler.preupload),
        ("POST", f"/datasets/{name}.git/info/lfs/objects/batch", Handler.batch),
        ("PUT", "/lfs/([0-9a-f]+)", Handler.upload),
        ("POST", f"/api/datasets/{name}/commit/main", Handler.commit),
        ("GET", f"/datasets/{name}/resolve/[^/]+/(.+)", Handler.resolve),
    )
    return Handler
