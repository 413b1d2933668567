# SPDX-License-Identifier: Apache-2.0
"""A tap written by hand, that does what its config says: a list of steps, each with one key."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--config")
parser.add_argument("--catalog")
parser.add_argument("--state")
parser.add_argument("--discover", action="store_true")
arguments = parser.parse_args()

with open(arguments.config) as file:
    config = json.load(file)
state = catalog = None
if arguments.state:
    with open(arguments.state) as file:
        state = json.load(file)
if arguments.catalog:
    with open(arguments.catalog) as file:
        catalog = json.load(file)
if arguments.discover:
    json.dump(config.get("discovers", {"streams": []}), sys.stdout)
    sys.exit()


def say(**message):
    print(json.dumps(message), flush=True)


for step in config["steps"]:
    ((kind, value),) = step.items()
    if kind == "record":
        say(type="RECORD", stream="answers", record=value, time_extracted="2026-07-01T00:00:00Z")
    elif kind == "line":
        print(value, flush=True)
    elif kind == "state":
        say(type="STATE", value=value)
    elif kind == "count":  # goes on where the state says, which is after as many as the state's number
        first = (state or {}).get("after", 0)
        for number in range(first, value):
            say(type="RECORD", stream="answers", record={"id": number})
        say(type="STATE", value={"after": value})
    elif kind == "file":  # its lines, from where the state says
        with open(value, "rb") as file:
            file.seek((state or {}).get("after", 0))
            for line in file:
                out = b'{"type": "RECORD", "stream": "records", "record": ' + line.rstrip(b"\n") + b"}\n"
                sys.stdout.buffer.write(out)
            sys.stdout.buffer.flush()
            say(type="STATE", value={"after": file.tell()})
    elif kind == "stderr":
        print(value, file=sys.stderr, flush=True)
    elif kind == "exit":
        sys.exit(value)
    elif kind == "kill":
        os.kill(os.getpid(), value)
    elif kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif kind == "child":  # holds our stdout open, as a forgotten worker would
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(value, "w") as file:
            print(child.pid, file=file)
    elif kind == "tell":  # what it was started with
        facts = {
            "config": config,
            "state": state,
            "catalog": catalog,
            "environment": dict(os.environ),
            "modes": [oct(os.stat(path).st_mode & 0o777) for path in (arguments.config,)],
            "folder": os.path.dirname(arguments.config),
            "pid": os.getpid(),
        }
        with open(value, "w") as file:
            json.dump(facts, file)
    elif kind == "sleep":
        time.sleep(value)
    elif kind == "huge":
        say(type="RECORD", stream="answers", record={"id": 1, "text": "x" * value})
    else:
        raise AssertionError(kind)
