"""A scripted daemon that speaks the wire of the API, and runs of the program against it."""
import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import termios
import threading
import time

# Nothing here depends on a time being short: this is only when a test gives up.
PATIENCE = 90

RECEIVER = {
    "device_node": "/dev/bus/usb/001/004", "vid": "046d", "pid": "c52b", "vendor_name": "Logitech, Inc.",
    "product_name": "Unifying Receiver", "interfaces": ":030101:030102:", "device_class": 0, "device_subclass": 0,
    "device_protocol": 0, "busnum": 1, "devnum": 4, "portnum": 2, "serial": None, "sys_name": "1-2",
    "allowed_vms": ["vm1", "vm2"], "vm": "vm1"}
CAMERA = {
    "device_node": "/dev/bus/usb/001/005", "vid": "04f2", "pid": "b6d9", "vendor_name": "Chicony Electronics Co., Ltd",
    "product_name": "Integrated Camera", "interfaces": ":0e0100:0e0200:", "device_class": 239, "device_subclass": 2,
    "device_protocol": 1, "busnum": 1, "devnum": 5, "portnum": 8, "serial": "0001", "sys_name": "1-8",
    "allowed_vms": ["vm2"], "vm": None}


def listed(device, **members):
    """A device as device_list has it."""
    return {**device, "kind": "usb", "port_path": device["sys_name"], "target": None, "selected": None, "state": "host",
            "reason": "no rule allows it", "since": "2026-11-22T12:03:04Z", "tag": None, "detached": False,
            "selecting": False, "skip_on_suspend": False, **members}


def hub(path, bus=1, **members):
    return listed({**RECEIVER, "sys_name": path, "busnum": bus, "vid": "05e3", "pid": "0610", "device_class": 9,
                   "vendor_name": "Genesys Logic, Inc.", "product_name": "Hub", "vm": None, "allowed_vms": []},
                  reason="a hub", **members)


class Peer:
    """Answers each request by its action: an object is sent as a line, bytes as they are, None hangs up, and a
    list is one of these after the other, for one request each; its last stays. A function of the request gives
    one of these. Unknown actions fail as the daemon says it. A deaf one hangs up after AT_ONCE."""

    def __init__(self, path, replies, family=socket.AF_UNIX, at_once=b"", deaf=False):
        self.replies, self.at_once, self.deaf = dict(replies), at_once, deaf
        self.requests, self.answered, self.clients, self.threads = [], [], [], []
        self.condition = threading.Condition()
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind(str(path) if family == socket.AF_UNIX else path)
        self.listener.listen(16)
        self.address = self.listener.getsockname()
        self.closing = False
        self._spawn(self._accept)

    def _spawn(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while not self.closing:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with self.condition:
                self.clients.append(client)
                self.condition.notify_all()
            self._spawn(self._serve, client)

    def _serve(self, client):
        try:
            client.sendall(self.at_once)
            if self.deaf:
                return
            with client.makefile("rb") as lines:
                for line in lines:
                    request = json.loads(line)
                    self.requests.append(request)
                    if not self._answer(client, request):
                        break
                    with self.condition:
                        self.answered.append(request)
                        self.condition.notify_all()
        except OSError:
            pass
        finally:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _answer(self, client, request):
        failed = {"result": "failed", "error": f"Unknown message: {request.get('action')}"}
        reply = self.replies.get(request.get("action"), failed)
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if callable(reply):
            reply = reply(request)
        if reply is None:
            return False
        client.sendall(reply if isinstance(reply, bytes) else json.dumps(reply).encode() + b"\n")
        return True

    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        with self.condition:
            while not condition():
                assert time.monotonic() < end, self.requests
                self.condition.wait(1)

    def wait_answered(self, action, count=1):
        self.wait(lambda: sum(request.get("action") == action for request in self.answered) >= count)

    def send(self, *messages):
        """Sends messages to the client that connected last."""
        for message in messages:
            self.clients[-1].sendall(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    def hang_up(self):
        self.clients[-1].shutdown(socket.SHUT_RDWR)

    def close(self):
        self.closing = True
        for one in [self.listener, *self.clients]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        for thread in self.threads:
            thread.join(PATIENCE)


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name in ("ASAN_OPTIONS", "UBSAN_OPTIONS")}
    return {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": "/usr/bin:/bin", **kept, **more}


def run(program, *arguments, **more):
    """One run that ends by itself, with its output as text."""
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, timeout=PATIENCE, cwd="/",
                          stdin=subprocess.DEVNULL, text=True, errors="surrogateescape", check=False,
                          env=environment(**more))


def run_on_terminal(program, *arguments, columns=80, **more):
    """The same on a terminal; returns what the terminal got, with its escape sequences."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([str(program), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=slave,
                               stderr=slave, cwd="/", env=environment(TERM="xterm", **more))
    os.close(slave)
    output = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError: # the other side is closed
            break
        if not chunk:
            break
        output += chunk
    os.close(master)
    assert process.wait(PATIENCE) == 0, output
    return output.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


class Running:
    """A run that goes on. Lines of both outputs are read as they come."""

    def __init__(self, program, *arguments, **more):
        self.lines, self.errors, self.condition = [], [], threading.Condition()
        self.process = subprocess.Popen([str(program), *map(str, arguments)], stdin=subprocess.DEVNULL, cwd="/",
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**more))
        self.threads = [threading.Thread(target=self._read, args=pair, daemon=True)
                        for pair in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        for thread in self.threads:
            thread.start()

    def _read(self, file, lines):
        for raw in file:
            with self.condition:
                lines.append(raw.rstrip(b"\n").decode("utf-8", "surrogateescape"))
                self.condition.notify_all()

    def wait_line(self, lines, count):
        """Waits for that many lines; returns the last."""
        end = time.monotonic() + PATIENCE
        with self.condition:
            while len(lines) < count:
                assert time.monotonic() < end and self.process.poll() is None, (self.lines, self.errors)
                self.condition.wait(1)
            return lines[count - 1]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self.threads:
            thread.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()
