"""A client of the API: lines of JSON over a socket."""
import contextlib
import json
import socket
import struct

# Nothing here depends on a time being short: this is only when a test gives up.
PATIENCE = 90


class Client:
    """ADDRESS is a path, or (host, port)."""

    def __init__(self, address):
        if isinstance(address, tuple):
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        else:
            family, address = socket.AF_UNIX, str(address)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self.buffer = b""
        self.events = []  # those that came before an answer
        self.socket.connect(address)

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        """The next line, None when the daemon has hung up."""
        while b"\n" not in self.buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                assert not self.buffer, self.buffer
                return None
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def answer(self):
        """The next line that is no event; those are kept."""
        while (line := self.line()) is not None and "event" in line:
            self.events.append(line)
        return line

    def request(self, action, **members):
        self.send(json.dumps({"action": action, **members}).encode() + b"\n")
        return self.answer()

    def event(self, name=None):
        """The next event, of that name."""
        while True:
            line = self.events.pop(0) if self.events else self.line()
            assert line is not None, "hung up on"
            if "event" in line and name in (None, line["event"]):
                return line

    def has_ended(self):
        """Reads what is left; whether the daemon hangs up."""
        with contextlib.suppress(ConnectionResetError):
            while self.socket.recv(1 << 16):
                pass
        return True

    def reset(self):
        """Goes without a word."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        self.socket.close()
