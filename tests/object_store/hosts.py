"""Machines made of namespaces: `unshare --user --map-root-user --net --mount python hosts.py BASE`.

The first has an S3 server and a Dask scheduler; two workers and a client are machines of their own, each with its own
network stack and with an empty disk of its own at BASE. They share nothing but the wire (and the installed packages).
One worker is killed when a few segments are there. Prints as JSON what the client found.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
ADDRESS = "10.77.0.1"
S3, SCHEDULER = f"http://{ADDRESS}:5000", f"tcp://{ADDRESS}:8786"
BUCKET = "s3://shared"
KILLED_AFTER = 3  # segments
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wise",
    "owls",
    "watch",
    "from",
    "an",
    "old",
    "oak",
]
TRAIN = ["--set=dim=8", "--set=heads=2", "--set=feedforward=16", "--epochs=1", "--pretrain-epochs=1", "--seeds=1"]
ENVIRONMENT = {
    "AWS_ENDPOINT_URL": S3,
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "OMP_NUM_THREADS": "1",
}


def write_table(folder: Path) -> Path:
    """800 texts of thirty words or so, no two the same, with a label."""
    lines = ["id,text,label"]
    for row in range(800):
        text = " ".join(WORDS[(row * 7 + at * (row % 5 + 1)) % len(WORDS)] for at in range(24 + row % 9))
        lines.append(f"{row},{text} {row},{'ab'[row % 2]}")
    path = folder / "texts.csv"
    path.write_text("\n".join(lines))
    return path


def extract(table: Path, features: object, *how: str) -> Any:
    """`pgm extract` of the table."""
    columns = ["--text-column=text", "--label-column=label", "--id-column=id", "--encoders=tiny"]
    return pgm("extract", str(table), *columns, "--features", str(features), "--json", *how)


def ablate(features: object, runs: object, *how: str) -> Any:
    """Runs, as `pgm ablate` trains them."""
    words = ["--method=concat", "--vary", "lr=0.01", "--format=json", *TRAIN]
    return pgm("ablate", *words, "--features", str(features), "--runs", str(runs), *how)


def pgm(*words: str) -> Any:
    """The JSON of a command, which runs in this process."""
    from pgm.cli import app
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, words)
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def client(base: Path) -> None:
    """On a machine of its own: extract, train with runs on this disk, and with runs in the bucket."""
    runs = base / "runs"
    extracted = extract(write_table(base), f"{BUCKET}/features", "--scheduler", SCHEDULER)
    ablate(f"{BUCKET}/features", runs, "--scheduler", SCHEDULER)
    ablate(f"{BUCKET}/features", f"{BUCKET}/runs", "--scheduler", SCHEDULER, "--seed", "1")
    here = {path.parent.name: sorted(p.name for p in path.parent.iterdir()) for path in runs.glob("*/result.json")}
    there = pgm("runs", "ls", "--runs", f"{BUCKET}/runs", "--json")
    info = pgm("cache", "info", "--features", f"{BUCKET}/features", "--json")
    log = pgm("cache", "log", "texts", "--features", f"{BUCKET}/features", "--json")
    found = {
        "content": info[0]["content"],
        "segments": info[0]["segments"],
        "versions": [row["version"] for row in log],
        "failed": extracted["modalities"]["text"]["failed"],
        "here": here,
        "there": [run["state"] for run in there],
    }
    print(json.dumps(found))


def network(machines: range) -> None:
    """A switch with this machine on it, and so many others."""
    commands = [
        "mount -t tmpfs tmpfs /run",
        "mkdir /run/netns",
        "ip link set lo up",
        "ip link add br0 type bridge",
        f"ip addr add {ADDRESS}/24 dev br0",
        "ip link set br0 up",
    ]
    for n in machines:
        commands += [
            f"ip netns add m{n}",
            f"ip link add v{n} type veth peer name e0 netns m{n}",
            f"ip link set v{n} master br0 up",
            f"ip netns exec m{n} ip addr add 10.77.0.{n}/24 dev e0",
            f"ip netns exec m{n} ip link set e0 up",
            f"ip netns exec m{n} ip link set lo up",
        ]
    for command in commands:
        subprocess.run(command.split(), check=True)


def on_machine(n: int, base: Path, *command: object, **options: Any) -> subprocess.Popen[str]:
    """Start a command on a machine: its network, and an empty disk at `base`."""
    script = f'mount -t tmpfs tmpfs "{base}" && cd "{base}" && mkdir home && HOME="{base}/home" exec "$@"'
    words = ["ip", "netns", "exec", f"m{n}", "sh", "-c", script, "sh", *map(str, command)]
    return subprocess.Popen(words, text=True, env={**os.environ, **ENVIRONMENT}, **options)


def wait_for(url: str) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            assert time.monotonic() < until, f"{url} does not answer"
            time.sleep(0.1)


def main(base: Path) -> int:
    os.environ.update(ENVIRONMENT)
    from pgm.cache import storage_at

    network(range(2, 5))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = f"from moto.server import main; main(['-H', '{ADDRESS}', '-p', '5000'])"
    started = [
        subprocess.Popen([sys.executable, "-c", server], **quiet),
        subprocess.Popen([BIN / "dask", "scheduler", "--host", ADDRESS, "--port", "8786", "--no-dashboard"], **quiet),
    ]
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", base / "dask"]
    workers = [on_machine(n, base, BIN / "dask", "worker", SCHEDULER, *options, **quiet) for n in (2, 3)]
    try:
        wait_for(S3)
        urllib.request.urlopen(urllib.request.Request(f"{S3}/shared", method="PUT")).close()
        asks = on_machine(4, base, sys.executable, __file__, "client", base, stdout=subprocess.PIPE)
        features = storage_at(f"{BUCKET}/features")
        killed = False
        while asks.poll() is None and not killed:
            there = [e.key for e in features.entries() if "/segments/" in e.key and e.key.endswith(".zarr/zarr.json")]
            if len(there) >= KILLED_AFTER:
                workers[0].send_signal(signal.SIGKILL)
                killed = True
            time.sleep(0.02)
        output, _ = asks.communicate()
        if asks.returncode:
            return 1
        print(json.dumps({**json.loads(output), "killed": killed, "segments_then": len(there)}))
    finally:
        for process in (*workers, *started):
            process.kill()
            process.wait()
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(Path(sys.argv[2]))
    else:
        sys.exit(main(Path(sys.argv[1])))
