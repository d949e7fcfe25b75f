"""Stages without the wait for imports: one process imports the libraries, and each stage is a fork of it.

Importing torch, transformers and datasets takes longer than many stages need for a small model, and a run has dozens of
stages. The first stage starts a server, which imports the libraries and then waits. Each stage hands over its
arguments, environment and standard streams, and exits as its fork does. None of our own code is imported before the
fork, so an edit takes effect at once. The server exits after `IDLE` seconds without work.

Imports only the standard library; run as a script, it is the server. It needs Linux; elsewhere, and with
HEADTOHEAD_WARM=0 in the environment, every stage imports for itself.
"""

import gc
import hashlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

LIBRARIES = ("torch", "transformers.models.gpt2.modeling_gpt2", "transformers.trainer", "transformers.models.auto",
             "datasets", "pandas", "matplotlib.figure")
SWITCH, OFF, FORK = "HEADTOHEAD_WARM", "0", "fork"
IDLE = 30.0  # seconds
PATIENCE = 300.0  # seconds that the imports may take
PER_STAGE = ("DVC_", "PWD", "OLDPWD", "SHLVL", "_")  # variables that no library reads when it is imported
NAMESPACES = ("mnt", "user", "pid", "cgroup")
LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
NUMBER = struct.Struct("i")


def hand_over(here: tuple[str, ...] = ()) -> None:
    """Let a fork of the server run this stage and exit as it does; return if the stage has to run here.

    Args:
        here: modules that import nothing heavy, and so run here.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) in (OFF, FORK):
        return
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    if module not in here and (server := _connect(_address())) is not None:
        _exit_as(_follow(server, module))


def is_fork() -> bool:
    """Whether this process is a fork of the server, which has imported the libraries and run nothing yet."""
    return os.environ.get(SWITCH) == FORK


def _address() -> str:
    """The server's name, which differs with everything that a fork inherits or that libraries read on import."""
    environment = sorted(item for item in os.environ.items() if not item[0].startswith(PER_STAGE))
    os.umask(umask := os.umask(0))
    identity = (os.getuid(), sys.executable, environment, os.stat(sysconfig.get_path("purelib")).st_mtime_ns, umask,
                sorted(os.sched_getaffinity(0)), [resource.getrlimit(limit) for limit in LIMITS],
                [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES])
    return f"headtohead-{hashlib.sha256(repr(identity).encode()).hexdigest()}"


def _connect(address: str) -> socket.socket | None:
    """A connection to the server, which is started if there is none; None if it cannot import the libraries."""
    started: subprocess.Popen[bytes] | None = None
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        server = socket.socket(socket.AF_UNIX)
        with suppress(ConnectionRefusedError):
            server.connect(f"\0{address}")
            return server if _is_ours(server) else None
        server.close()
        if started is None:
            null = subprocess.DEVNULL
            started = subprocess.Popen([sys.executable, "-P", __file__, address], stdin=null, stdout=null, stderr=null,
                                       start_new_session=True)
        elif started.poll():
            return None
        time.sleep(0.02)
    return None


def _is_ours(other: socket.socket) -> bool:
    """Whether a process of the same user is at the other end: others can guess an abstract socket's name."""
    _, user, _ = struct.unpack("3i", other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(user == os.getuid())


def _follow(server: socket.socket, module: str) -> int:
    """Request this stage, pass interruptions on to it, and wait for its exit status, as from `os.waitpid`."""
    request = {"module": module, "argv": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}
    socket.send_fds(server, [b"\n"], [0, 1, 2])
    server.sendall(json.dumps(request).encode() + b"\n")
    stage: int | None = None
    while True:
        try:
            if not (answer := server.recv(NUMBER.size)):
                return signal.SIGKILL  # the server was killed
            if stage is not None:
                return int(NUMBER.unpack(answer)[0])
            stage = NUMBER.unpack(answer)[0]
        except KeyboardInterrupt:
            if stage is not None:
                os.kill(stage, signal.SIGINT)


def _exit_as(status: int) -> NoReturn:
    if os.WIFSIGNALED(status):
        with suppress(OSError):  # no one can handle SIGKILL
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _serve(address: str) -> dict[str, Any] | None:
    """Import the libraries, then fork for each stage. Returns the request in the fork, and None in the server."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(f"\0{address}")
    except OSError:  # two stages started one
        return None
    for library in LIBRARIES:
        import_module(library)
    gc.freeze()  # a collection in a fork would copy what they share
    listener.listen()
    keepers: dict[int, int] = {}
    while ready := _ready([listener, *keepers], None if keepers else IDLE):
        for keeper in keepers.keys() & set(ready):
            os.waitpid(keepers.pop(keeper), 0)
            os.close(keeper)
        if listener in ready:
            client, _ = listener.accept()
            if not (process := os.fork()):
                listener.close()
                return _supervise(client)
            keepers[os.pidfd_open(process)] = process
            client.close()
    return None


def _supervise(client: socket.socket) -> dict[str, Any]:
    """Fork the stage, and send its client the exit status. Returns only in the fork. A stage ends with its client."""
    if not _is_ours(client):
        os._exit(0)
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    request: dict[str, Any] = json.loads(client.makefile().readline())
    if not (stage := os.fork()):
        client.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return request
    for stream in streams:
        os.close(stream)
    client.sendall(NUMBER.pack(stage))
    ended = os.pidfd_open(stage)
    if ended not in _ready([ended, client]):  # the client was killed
        os.kill(stage, signal.SIGKILL)
    _, status = os.waitpid(stage, 0)
    with suppress(BrokenPipeError):
        client.sendall(NUMBER.pack(status))
    os._exit(0)


def _ready(files: list[Any], seconds: float | None = None) -> list[Any]:
    """Those that can be read from, as soon as one can; none if none can in that time."""
    return select.select(files, [], [], seconds)[0]


def _become(request: dict[str, Any]) -> None:
    """Run the stage in this process as Python itself would have."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"], **{SWITCH: FORK})
    sys.stdout = os.fdopen(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False)
    sys.path.insert(0, request["folder"])
    sys.argv = request["argv"]  # begins with "-m", as it does while Python imports the package
    sys.orig_argv = [sys.executable, "-m", request["module"], *sys.argv[1:]]
    if (found := find_spec(request["module"])) and found.origin:
        sys.argv[0] = found.origin
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__" and (asked := _serve(sys.argv[1])):
    _become(asked)
