"""Runs the real daemon for a test: its log line by line, its readiness, its end."""
import contextlib
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import threading
import time

# Nothing here depends on a time being short: this is only when a test gives up.
PATIENCE = 90

USAGE = ("usage: vhotplug [-h] -c CONFIG [-a | --attach-connected | --no-attach-connected] "
         "[-d | --debug | --no-debug] [--version]")


class Daemon:
    """One run of the program. Its log is what it writes to standard error."""

    def __init__(self, program, directory, *arguments, environment=None):
        self.lines, self.condition = [], threading.Condition()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(directory / "notify")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)
        self.notify.bind(address)
        if environment is None:
            runtime = directory / "run"
            runtime.mkdir(exist_ok=True)
            environment = {"RUNTIME_DIRECTORY": str(runtime), "NOTIFY_SOCKET": address, **sanitizers()}
        self.process = subprocess.Popen([str(program), *map(str, arguments)], env=environment, cwd="/",
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for raw in self.process.stderr:
            with self.condition:
                self.lines.append(raw.rstrip(b"\n").decode("utf-8", "surrogateescape"))
                self.condition.notify_all()

    def log(self):
        with self.condition:
            return list(self.lines)

    def matching(self, pattern):
        return [line for line in self.log() if re.search(pattern, line)]

    def wait_line(self, pattern, count=1):
        """Waits until that many lines of the log match; returns the last of them."""
        end = time.monotonic() + PATIENCE
        with self.condition:
            while True:
                found = [line for line in self.lines if re.search(pattern, line)]
                if len(found) >= count:
                    return found[count - 1]
                left = end - time.monotonic()
                ended = self.process.poll() is not None and not self.reader.is_alive()
                assert left > 0 and not ended, f"no {count}. line {pattern!r} in:\n" + "\n".join(self.lines)
                self.condition.wait(min(left, 1))

    def wait_notice(self, wanted):
        """Waits for a notice to the service manager that has this assignment; returns it as a dictionary."""
        end = time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.notify], [], [], min(left, 1))[0]:
                assert self.process.poll() is None, "the daemon ended:\n" + "\n".join(self.log())
                continue
            notice = dict(line.split("=", 1) for line in self.notify.recv(65536).decode().splitlines())
            if wanted in (f"{key}={value}" for key, value in notice.items()):
                return notice
        raise AssertionError(f"no notice {wanted} in time; log:\n" + "\n".join(self.log()))

    def wait_ready(self):
        return self.wait_notice("READY=1")

    def wait_end(self):
        status = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        return status

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait_end()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(PATIENCE)
        self.process.stderr.close()
        self.notify.close()


def starter(program, place):
    """What a fixture yields: begin(*arguments) starts a daemon, which is ended after the test."""
    daemons = []

    def begin(*arguments, program=program, **options):
        daemon = Daemon(program, place, *arguments, **options)
        daemons.append(daemon)
        return daemon
    begin.daemons = daemons
    yield begin
    for daemon in daemons:
        daemon.close()


def sanitizers():
    """What a sanitizer build needs to know; nothing else of the caller's environment goes in."""
    return {name: value for name, value in os.environ.items() if name in ("ASAN_OPTIONS", "UBSAN_OPTIONS")}


def run(program, *arguments, environment=None):
    """One run that ends by itself."""
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, timeout=PATIENCE, cwd="/",
                          stdin=subprocess.DEVNULL, text=True, errors="surrogateescape", check=False,
                          env=sanitizers() if environment is None else environment)


def open_files(process):
    """What each descriptor of a process is."""
    found = {}
    for entry in pathlib.Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[int(entry.name)] = os.readlink(entry)
    return found
