"""A scripted QMP peer: a thread that serves a socket, badly or well, as the test tells it."""
import json
import os
import socket
import threading
import time

from vhotplug import PATIENCE

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}, "capabilities": ["oob"]}}
# What the peer's VM holds: no host device, and one USB controller.
OBJECTS = [{"name": "type", "type": "string"}, {"name": "xhci", "type": "child<qemu-xhci>"}]


def encoded(message):
    return json.dumps(message).encode() + b"\r\n"


class Connection:
    """One client, as a behaviour sees it."""

    def __init__(self, client):
        self.client, self.buffer = client, b""
        self.nodes = []  # numbers of the devices whose descriptors came, in order

    def send(self, data):
        self.client.sendall(data if isinstance(data, bytes) else encoded(data))

    def command(self):
        """The next command, or None at the end."""
        while True:
            command, self.buffer = self._first()
            if command is not None:
                return command
            data, descriptors, _, _ = socket.recv_fds(self.client, 65536, 8)
            for descriptor in descriptors:
                self.nodes.append(os.fstat(descriptor).st_rdev)
                os.close(descriptor)
            if not data:
                return None
            self.buffer += data

    def _first(self):
        text = self.buffer.decode("utf-8", "replace").lstrip()
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return None, self.buffer
        return value, text[end:].encode()

    def drain(self):
        """Reads and forgets until the client hangs up."""
        while self.client.recv(65536):
            pass


def answer(command):
    """What a QEMU with nothing in it says."""
    name, arguments = command.get("execute") or command.get("exec-oob"), command.get("arguments", {})
    reply = {"return": {}}
    if name == "qom-list":
        reply = {"return": OBJECTS if arguments.get("path") == "/machine/peripheral" else []}
    elif name == "query-fdsets":
        reply = {"return": []}
    elif name == "query-status":
        reply = {"return": {"status": "running", "singlestep": False, "running": True}}
    elif name not in ("qmp_capabilities", "device_add", "device_del", "add-fd", "remove-fd"):
        reply = {"error": {"class": "CommandNotFound", "desc": f"The command {name} has not been found"}}
    if "id" in command:
        reply["id"] = command["id"]
    return reply


def good(connection):
    connection.send(GREETING)
    while (command := connection.command()) is not None:
        connection.send(answer(command))


class Peer:
    """Serves one client at a time with the behaviour of the moment."""

    def __init__(self, path, behaviour):
        self.behaviour, self.served, self.current = behaviour, 0, None
        self.condition = threading.Condition()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen(8)
        self.path, self.closing = str(path), False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while not self.closing:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with self.condition:
                self.current = client
                behaviour = self.behaviour
                self.served += 1
                self.condition.notify_all()
            try:
                behaviour(Connection(client))
            except OSError:
                pass  # the daemon hung up first
            finally:
                client.close()

    def wait_served(self, count, daemon, patience=PATIENCE):
        """Waits for that many clients, as long as the daemon lives."""
        end = time.monotonic() + patience
        with self.condition:
            while self.served < count:
                assert daemon.process.poll() is None, "the daemon ended"
                assert time.monotonic() < end, f"{self.served} clients instead of {count}: the daemon does not try again"
                self.condition.wait(1)

    def behave(self, behaviour=good):
        """From the next client on; the present one is cut off."""
        with self.condition:
            self.behaviour, client = behaviour, self.current
        if client:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # gone already

    def close(self):
        self.closing = True
        self.behave()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.thread.join(30)
