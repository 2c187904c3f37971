"""Hostile clients: whatever a thousand of them do, another one's requests are answered and the memory is bounded."""
import contextlib
import json
import os
import random
import resource
import socket
import threading
import time

import pytest

import client as api
import crosvm
import peer
import vhotplug

MIB = 1 << 20
GIB = 1 << 30
# The clients of root, or of who runs the daemon, are at most 1,024.
THOUSAND = 1000


@pytest.fixture(autouse=True)
def many_files():
    """Each client is an open file of this process too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    if hard < 4096:
        pytest.skip(f"no more than {hard} files may be open here")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def allowance(program):
    """How much the daemon may grow under attack. A sanitizer keeps what was freed for a while."""
    return (600 if b"__asan_init" in program.read_bytes() else 48) * MIB


def memory_peak(daemon):
    """The most memory that the daemon ever had."""
    with open(f"/proc/{daemon.process.pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def working(client):
    return client.request("usb_list")["result"] == "ok"


def fill(one, line):
    """Sends requests until no more go, and reads nothing."""
    one.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
        for _ in range(10000):
            one.socket.sendall(line * 100)
    one.socket.settimeout(vhotplug.PATIENCE)


def send_without_newline(address, total):
    """Sends that many bytes in as few lines as the daemon bears. Returns how often it was hung up on."""
    sent, hung_up, chunk = 0, 0, b"x" * MIB
    while sent < total:
        with contextlib.closing(api.Client(address)) as one:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while sent < total:
                    sent += one.socket.send(chunk)
            hung_up += 1
    return hung_up


class Background:
    """Runs something until it is told to stop; what fails in it fails the test."""

    def __init__(self, function, *arguments):
        self.result, self.error, self.function, self.arguments = None, None, function, arguments
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            self.result = self.function(*self.arguments)
        except BaseException as error:
            self.error = error

    def is_alive(self):
        return self.thread.is_alive()

    def wait(self):
        self.thread.join(10 * vhotplug.PATIENCE)
        assert not self.thread.is_alive()
        if self.error:
            raise self.error
        return self.result


# ---- one at a time

@pytest.mark.parametrize("line", [b"", b"nonsense", b"[]", b"null", b"3", b'"usb_list"', b"{", b'{"action"}', b"\0", b"\xff\xfe",
                                  b'{"action": "usb_list"} x', b'{"action": "usb_list"}{"action": "usb_list"}',
                                  b'{"action": "\xff"}', b'{"action": 3}', b"[" * 60000, b'{"a":' * 10000, b"1" * 65000,
                                  b"{}", b'{"action": null}', b'{"action": "no such thing"}',
                                  b'{"action": "\\u0000"}', b"\x1b[31m", b"\r"],
                         ids=lambda line: repr(line[:30]))
def test_f46_every_line_gets_one_answer(daemon, connect, line):
    client = connect()
    client.send(line + b"\n")
    answer = client.line()
    assert answer["result"] == "failed" and answer["error"]
    assert "\x1b" not in answer["error"] and "\0" not in answer["error"]
    assert working(client)


@pytest.mark.parametrize("length", [65537, 65536 + 16384, 3 * MIB])
def test_f46_too_long_a_line_is_answered_and_ends_the_connection(daemon, connect, length):
    client, other = connect(), connect()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.send(b"x" * length + b"\n")
    answer = client.line()
    assert answer["result"] == "failed" and "65536" in answer["error"]
    assert client.has_ended()
    assert working(other)


def test_the_longest_line_is_a_line_like_others(daemon, connect):
    client = connect()
    request = b'{"action": "usb_list"' + b" " * 65536
    client.send(request[:65535] + b"}\n")
    assert client.line()["result"] == "ok"


def test_requests_may_come_in_pieces_and_in_heaps(daemon, connect):
    client = connect()
    for byte in b'{"action": "usb_list"}\n':
        client.send(bytes([byte]))
    assert client.line()["result"] == "ok"
    client.send(b'{"action": "usb_list"}\n{"action": "x"}\n' * 500)
    assert [client.line()["result"] for _ in range(1000)] == ["ok", "failed"] * 500


def test_a_client_that_has_said_all_is_answered(daemon, connect):
    client = connect()
    client.send(b'{"action": "usb_list"}\n{"action": "usb_list"}')
    client.socket.shutdown(socket.SHUT_WR)
    assert client.line()["result"] == client.line()["result"] == "ok"
    assert client.line() is None


def test_f46_clients_that_go_at_any_moment_harm_nobody(daemon, connect, address):
    client = connect()
    for turn in range(300):
        one = api.Client(address)
        with contextlib.suppress(BrokenPipeError):
            one.send((b'{"action": "enable_notifications"}\n{"action": "usb_list"}\n' * 4)[:turn])
        if turn % 3 == 0:
            one.socket.shutdown(socket.SHUT_RD)
        one.close()
    assert working(client)
    assert daemon.stop() == 0


def test_f46_random_bytes_harm_nobody(daemon, connect):
    """Each line is answered; none of them is a request."""
    dice = random.Random(46)
    client, other = connect(), connect()
    for _ in range(300):
        line = bytes(dice.choice(b'{}[]":,\\ \t0e-.ax\x00\xff\x7f\x80') for _ in range(dice.randrange(60)))
        client.send(line + b"\n")
        assert client.line()["result"] == "failed", line
    assert working(other)


# ---- many

def test_f46_a_thousand_clients_of_whom_some_are_hostile(daemon, connect, address, place, allowance):
    """The acceptance of the API: they are many, a hundred never read, one sends 1 GB without newline, one speaks
    binary; events flow, and a client among them is served as ever."""
    before = memory_peak(daemon)
    good, listener = connect(), connect()
    assert working(good)
    assert listener.request("enable_notifications")["result"] == "ok"
    herd = [connect() for _ in range(THOUSAND)]
    for one in herd:
        one.send(b'{"action": "enable_notifications"}\n')
    for one in herd[:100]:
        fill(one, b'{"action": "vm_list"}\n{"action": "usb_list"}\n')

    stop = threading.Event()

    def speak_binary():
        """Each newline among the bytes ends a line, which has one answer."""
        dice, answers = random.Random(47), 0
        with contextlib.closing(api.Client(address)) as one:
            while not stop.is_set():
                data = dice.randbytes(10000)
                one.send(data)
                for _ in range(data.count(b"\n")):
                    assert one.line()["result"] == "failed"
                    answers += 1
        return answers

    flood, binary = Background(send_without_newline, address, GIB), Background(speak_binary)
    turns = 0
    while turns < 20 or flood.is_alive():
        with contextlib.closing(peer.Peer(place / "vm1.qmp", peer.good)) if turns < 20 else contextlib.nullcontext():
            if turns < 20:
                assert listener.event("vm_up")["vm"] == "vm1"
            assert working(good)
        if turns < 20:
            assert listener.event("vm_down")["vm"] == "vm1"
        turns += 1
    stop.set()
    assert flood.wait() > 1000  # a line of 64 KiB is all that one gets to say
    assert binary.wait() > 1000
    assert memory_peak(daemon) - before < allowance
    for one in herd[900:]:
        assert one.line()["result"] == "ok" and one.event("vm_up")
    assert working(good)
    assert len(daemon.log()) < 200
    for one in herd:
        one.close()
    files = len(vhotplug.open_files(daemon.process))
    deadline = time.monotonic() + vhotplug.PATIENCE
    while files > 100 and time.monotonic() < deadline:
        assert working(good)
        files = len(vhotplug.open_files(daemon.process))
    assert files <= 100
    assert daemon.stop() == 0


def plug_times(devices, vm, daemon, count):
    """Plugs a device into the host that many times. The seconds of each until its VM has it, the shortest first."""
    times = []
    for _ in range(count):
        begin = time.monotonic()
        devices.plug(usb_1_1="mouse")
        crosvm.until(vm.nodes, daemon, "the VM with the device")
        times.append(time.monotonic() - begin)
        devices.pull("usb_1_1")
        crosvm.until(lambda: not vm.nodes(), daemon, "the VM without the device")
    return sorted(times)


def test_f46_devices_are_plugged_while_a_thousand_clients_are_hostile(build, start, connect, address, place, config):
    devices, vm = crosvm.Devices(place), crosvm.Crosvm(place / "vm1.sock")
    try:
        path = config(vms=[{"name": "vm1", "type": "crosvm", "socket": str(vm.path)}],
                      usbPassthrough=[{"targetVm": "vm1", "allow": [{"portPath": "1-*"}]}])
        daemon = start("-a", "-c", path, program=build / "tests" / "cli" / "vhotplug-stub", environment=devices.environment(place))
        daemon.wait_ready()
        quiet = plug_times(devices, vm, daemon, 10)
        herd = [connect() for _ in range(THOUSAND)]
        for one in herd:
            one.send(b'{"action": "enable_notifications"}\n')
        for one in herd[:100]:
            fill(one, b'{"action": "device_list"}\n{"action": "usb_list"}\n')
        flood = Background(send_without_newline, address, GIB)
        attacked = plug_times(devices, vm, daemon, 10)
        while flood.is_alive():
            attacked = sorted(attacked + plug_times(devices, vm, daemon, 1))
        assert flood.wait() > 1000
        for one in herd[900:]:
            assert one.event("usb_attached")["vm"] == "vm1"
        print(f"plug to attached, median: {quiet[5]:.3f} s alone, {attacked[len(attacked) // 2]:.3f} s of {len(attacked)} "
              "under attack")
        assert daemon.stop() == 0
        vm.stop()
    finally:
        vm.process.kill()
        vm.process.wait()


def test_f47_too_many_clients_are_told_so(daemon, connect):
    """Of one user, 1,024 are served; the others learn why not, and are not in the way."""
    herd = [connect() for _ in range(1024)]
    assert working(herd[0]) and working(herd[-1])
    for _ in range(3):
        refused = connect()
        assert refused.line() == {"result": "failed", "error": "too many clients are connected"}
        assert refused.has_ended()
    daemon.wait_line("^warning API: .*/api.sock: a client is refused: this user has too many clients")
    herd.pop(0).close()
    deadline = time.monotonic() + vhotplug.PATIENCE
    while (answer := connect().request("usb_list")) is None or answer["result"] != "ok":
        assert time.monotonic() < deadline, "no room again"
    assert working(herd[-1])
    assert len(daemon.matching("is refused")) == 1


def processor_time(daemon):
    with open(f"/proc/{daemon.process.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_without_descriptors_clients_are_sent_away(daemon, connect):
    client = connect()
    assert working(client)
    pid = daemon.process.pid
    old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(vhotplug.open_files(daemon.process))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, old[1]))
    many = [connect() for _ in range(100)]
    for one in many:
        one.socket.shutdown(socket.SHUT_WR)
        assert one.has_ended()
    assert working(client)
    started, processor = time.monotonic(), processor_time(daemon)
    time.sleep(2)
    assert processor_time(daemon) - processor < 0.5 * (time.monotonic() - started), "it spins"
    daemon.wait_line("^warning API: .*: a client is refused: too many files are open")
    assert len(daemon.matching("is refused")) == 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
    assert working(connect())


def test_who_floods_is_one_among_others(daemon, connect, address):
    """It sends requests as fast as it can and reads the answers, on several connections."""
    stop = threading.Event()

    def flood():
        one = api.Client(address)
        answers = 0
        while not stop.is_set():
            one.send(b'{"action": "usb_list"}\n' * 1000)
            for _ in range(1000):
                answers += one.line()["result"] == "ok"
        one.close()
        return answers

    floods = [Background(flood) for _ in range(3)]
    client = connect()
    for _ in range(200):
        assert working(client)
    stop.set()
    assert all(one.wait() > 0 for one in floods)


def test_json_of_the_deepest_allowed_kind(daemon, connect):
    client = connect()
    assert client.request("usb_list", x=[[[1]]])["result"] == "ok"
    assert client.request("usb_list", x=json.loads("[" * 50 + "]" * 50))["result"] == "failed"
    assert working(client)
