"""A stand-in for the W&B service on 127.0.0.1: what `wandb sweep`, `wandb agent` and a run that is online ask for.

It hands trials to agents by heartbeat, keeps what the runs send, hands a pre-empted run out again before the next
trial, stops the runs it is told to stop, and sends the agents home when nothing is left to do. Queries are answered by
the name of their operation, whatever fields they ask for.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY, PROJECT = "tester", "trials"
FAILED, FINISHED, PREEMPTED, RUNNING = "failed", "finished", "preempted", "running"


@dataclasses.dataclass
class Run:
    """What the service knows of a run.

    Attributes:
        args: What the sweep gave it.
        config: What it said that it ran with.
        rows: Its history.
        summary: Its summary.
        state: As on W&B: pending, running, finished, failed, preempted.
        exit_codes: One for each time that it ended.
        starts: How often a process began it.
        stopped: Whether the service has asked for its end.
    """

    name: str
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    state: str = "pending"
    exit_codes: list[int] = dataclasses.field(default_factory=list)
    starts: int = 0
    stopped: bool = False
    preempting: bool = False

    def receive(self, stream: dict[str, Any]) -> None:
        """Take a part of the file stream."""
        for name, part in stream.get("files", {}).items():
            lines = [json.loads(line) for line in part["content"]] if name.endswith(("history.jsonl", "y.json")) else []
            if name == "wandb-history.jsonl":
                self.rows[part["offset"] : part["offset"] + len(lines)] = lines
            elif name == "wandb-summary.json":
                self.summary = lines[-1]
        self.preempting |= bool(stream.get("preempting"))
        if stream.get("complete"):
            self.exit_codes.append(stream["exitcode"])
            self.state = FINISHED if not stream["exitcode"] else PREEMPTED if self.preempting else FAILED

    def start(self) -> None:
        """A process begins it."""
        self.starts += 1
        self.state, self.preempting = RUNNING, False

    def bucket(self) -> dict[str, Any]:
        """Itself, as queries see it."""
        config = json.dumps({key: {"value": value} for key, value in self.config.items()})
        tail = json.dumps([json.dumps(self.rows[-1])] if self.rows else [])
        return {
            "id": f"id-{self.name}",
            "name": self.name,
            "displayName": self.name,
            "state": self.state,
            "stopped": self.stopped,
            "shouldStop": self.stopped,
            "config": config,
            "wandbConfig": json.dumps({"t": 1}),
            "summaryMetrics": json.dumps(self.summary),
            "historyLineCount": len(self.rows),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": tail,
            "eventsTail": "[]",
            "sweepName": "s1",
            "tags": [],
            "project": {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}},
        }


class WandbServer:
    """The service, from its making to `close`.

    Args:
        picks: What its search comes up with: the values of each trial, by its name; None: the grid of the parameters.

    Attributes:
        url: Where it listens.
        runs: All runs, in the order in which they were handed out or came up.
        sweep: The sweep's YAML as it arrived, or None.
        stop_after: Number of validations after which the run of this name is told to stop.
        bundles: Run and type of each artifact that was logged; its files are said to be there already.
        operations: How often each operation was asked for.
        unknown: Requests that there was no answer for.
    """

    def __init__(self, picks: dict[str, dict[str, Any]] | None = None) -> None:
        self.picks = picks
        self.runs: dict[str, Run] = {}
        self.sweep: str | None = None
        self.stop_after: dict[str, int] = {}
        self.bundles: list[tuple[str, str]] = []
        self.operations: collections.Counter[str] = collections.Counter()
        self.unknown: list[str] = []
        self._news = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._http.shutdown()
        self._http.server_close()

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """The answer to a request, as JSON can hold it; None where there is nothing to say."""
        with self._news:
            self._news.notify_all()
            if path == "/graphql":
                asked = json.loads(body)
                operation = re.match(r"\s*(?:query|mutation)\s+(\w+)", asked["query"])[1]
                return {"data": self._query(operation, asked["query"], asked.get("variables") or {})}
            if path.endswith("/file_stream"):
                run = self.run(path.split("/")[-2])
                run.receive(json.loads(body))
                return {"stopped": True} if run.stopped else {}
            if not path.startswith(("/upload/", "/sdk/otel/")):
                self.unknown.append(f"{method} {path}")
            return None

    def wait_for(self, happened: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: If it isn't after so many seconds.
        """
        with self._news:
            if not self._news.wait_for(happened, seconds):
                raise TimeoutError(f"not after {seconds} s; unanswered: {self.unknown}; runs: {self.runs}")

    def run(self, name: str) -> Run:
        """The run of a name; a new one for a new name."""
        return self.runs.setdefault(name, Run(name))

    # -- the operations, each by its name

    def _query(self, operation: str, query: str, variables: dict[str, Any]) -> Any:
        self.operations[operation] += 1
        answer = getattr(self, f"_{operation}", None)
        if answer is None:
            self.unknown.append(f"{operation}: {query} {variables}")
            return {}
        return answer(variables)

    def _Viewer(self, variables: dict[str, Any]) -> Any:
        return {"viewer": {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    def _ServerFeaturesQuery(self, variables: dict[str, Any]) -> Any:
        return {}

    _OrganizationCoreWeaveOrganizationID = _ServerFeaturesQuery

    def _UpsertSweep(self, variables: dict[str, Any]) -> Any:
        self.sweep = variables["config"]
        parameters = yaml.safe_load(self.sweep)["parameters"]
        choices = [given.get("values", [given.get("value")]) for given in parameters.values()]
        grid = (dict(zip(parameters, values, strict=True)) for values in itertools.product(*choices))
        for name, values in (self.picks or {f"trial{i}": values for i, values in enumerate(grid)}).items():
            self.run(name).args = values
        project = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}
        return {"upsertSweep": {"sweep": {"name": "s1", "project": project}, "configValidationWarnings": []}}

    def _SweepWithRuns(self, variables: dict[str, Any]) -> Any:
        runs = [{"node": run.bucket()} for run in self.runs.values()]
        return {"project": {"sweep": {"id": "s", "name": "s1", "config": self.sweep, "runs": {"edges": runs}}}}

    def _CreateAgent(self, variables: dict[str, Any]) -> Any:
        return {"createAgent": {"agent": {"id": "a"}}}

    def _Heartbeat(self, variables: dict[str, Any]) -> Any:
        commands = json.dumps(self._commands(json.loads(variables["runState"])))
        return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": commands}}

    def _commands(self, running: dict[str, bool]) -> list[dict[str, Any]]:
        for name in running:
            run = self.runs[name]
            validations = sum("train_seconds" in row for row in run.rows)
            if name in self.stop_after and validations >= self.stop_after[name]:
                run.stopped = True
                return [{"type": "stop", "run_id": name}]
        if running:
            return []
        for state in (PREEMPTED, "pending"):
            for run in self.runs.values():
                if run.state == state:
                    run.state = RUNNING
                    args = {key: {"value": value} for key, value in run.args.items()}
                    kind = "run" if state == "pending" else "resume"
                    return [{"type": kind, "run_id": run.name, "program": "", "args": args}]
        return [{"type": "exit"}]

    def _RunResumeStatus(self, variables: dict[str, Any]) -> Any:
        run = self.run(variables["name"])  # each start of a process asks once
        known = run.bucket() if run.starts else None
        run.start()
        return {"model": {"id": "p", "name": PROJECT, "bucket": known}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> Any:
        run = self.run(variables["name"])
        if variables.get("config"):
            sent = json.loads(variables["config"])
            run.config |= {key: entry["value"] for key, entry in sent.items() if key != "_wandb"}
        if variables.get("summaryMetrics"):
            run.summary = json.loads(variables["summaryMetrics"])
        return {"upsertBucket": {"bucket": run.bucket(), "inserted": run.starts == 1}}

    def _ArtifactType(self, variables: dict[str, Any]) -> Any:
        return {"project": None}

    def _CreateArtifact(self, variables: dict[str, Any]) -> Any:
        asked = variables["input"]
        self.bundles.append((asked["runName"], asked["artifactTypeName"]))
        there = {"id": "b", "versionIndex": 0}
        artifact = {"id": "b", "state": "COMMITTED", "artifactSequence": {"id": "c", "latestArtifact": there}}
        return {"createArtifact": {"artifact": artifact}}

    def _CreateRunFiles(self, variables: dict[str, Any]) -> Any:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                answer, status = json.dumps(server.answer(self.command, self.path, body)).encode(), 200
            except Exception as error:
                server.unknown.append(f"{self.path}: {error!r} {body[:500]!r}")
                answer, status = b"{}", 400  # W&B tries again after 500
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_PUT = do_GET = do_POST

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
