"""A VM that talks nonsense, or nothing: the daemon lives, says so once, and goes on when the VM makes sense."""
import json
import shutil
import socket
import subprocess
import time
from datetime import datetime, timezone

import pytest

import peer
from peer import GREETING, Peer, answer, encoded, good
from vhotplug import PATIENCE, Daemon, open_files

MEGABYTE = 1024 * 1024


def garbage(connection):
    connection.send(b"\x1b[31mnot\x00 json \xff\xfe at all\r\n" * 20)
    connection.drain()


def wrong_greeting(connection):
    connection.send({"hello": "world"})
    connection.drain()


def greeting_of_wrong_types(connection):
    connection.send({"QMP": [1, 2, {"version": None}]})
    connection.drain()


def half_a_line(connection):
    connection.send(encoded(GREETING)[:30])
    connection.drain()


def half_a_line_and_end(connection):
    connection.send(encoded(GREETING)[:30])


def half_a_reply_and_end(connection):
    connection.send(GREETING)
    if (command := connection.command()) is not None:  # else it was only looked whether somebody is there
        connection.send(encoded(answer(command))[:7])


def ten_megabytes(connection):
    connection.send(b'{"QMP": "' + b"x" * (10 * MEGABYTE) + b'"}\r\n')
    connection.drain()


def ten_megabytes_without_an_end(connection):
    connection.send(GREETING)
    connection.send(b"x" * (10 * MEGABYTE))
    connection.drain()


def ten_megabytes_of_a_list(connection):
    connection.send(GREETING)
    while (command := connection.command()) is not None:
        reply = answer(command)
        if command["execute"] == "qom-list":
            reply["return"] = [{"name": f"device{i:0100}", "type": "child<usb-host>"} for i in range(70000)]
        connection.send(reply)


def deep_nesting(connection):
    connection.send(GREETING)
    connection.command()
    connection.send(b'{"return": ' + b"[" * 100000 + b"]" * 100000 + b"}\r\n")
    connection.drain()


def immediate_end(connection):
    pass


def end_after_the_greeting(connection):
    connection.send(GREETING)


def error_for_everything(connection):
    connection.send(GREETING)
    while (command := connection.command()) is not None:
        reply = {"error": {"class": "GenericError", "desc": "no\x1b[31m\nway"}}
        connection.send(reply | ({"id": command["id"]} if "id" in command else {}))


def error_of_wrong_types(connection):
    connection.send(GREETING)
    while (command := connection.command()) is not None:
        connection.send({"error": 7} | ({"id": command["id"]} if "id" in command else {}))


def reply_of_wrong_types(connection):
    connection.send(GREETING)
    while (command := connection.command()) is not None:
        reply = answer(command)
        if command["execute"] == "qom-list":
            reply["return"] = {"name": 1}
        connection.send(reply)


def reply_to_nobody(connection):
    connection.send(GREETING)
    while connection.command() is not None:
        connection.send({"return": {}, "id": "nobody asked this"})


def silence(connection):
    connection.drain()


def silence_after_the_greeting(connection):
    connection.send(GREETING)
    connection.drain()


def silence_in_the_middle(connection):
    connection.send(GREETING)
    if (command := connection.command()) is not None:
        connection.send(answer(command))
    connection.drain()


BEHAVIOURS = [garbage, wrong_greeting, greeting_of_wrong_types, half_a_line, half_a_line_and_end,
              half_a_reply_and_end, ten_megabytes, ten_megabytes_without_an_end, ten_megabytes_of_a_list,
              deep_nesting, immediate_end, end_after_the_greeting, error_for_everything, error_of_wrong_types,
              reply_of_wrong_types, reply_to_nobody, silence, silence_after_the_greeting, silence_in_the_middle]

WITHOUT_GREETING = [half_a_line, silence]


@pytest.fixture
def serve(place):
    """Makes the peer of a VM."""
    peers = []

    def begin(behaviour, name="vm1"):
        peers.append(Peer(place / f"{name}.qmp", behaviour))
        return peers[-1]
    yield begin
    for each in peers:
        each.close()


def test_a_good_peer_answers(start, serve, config):
    vm = serve(good)
    daemon = start("-c", config())
    daemon.wait_line("^info vm1 answers$")
    assert daemon.stop() == 0
    assert vm.served >= 1
    assert not daemon.matching("does not answer")


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
def test_nonsense_is_said_once_and_healed(start, serve, config, behaviour):
    vm = serve(behaviour)
    daemon = start("-c", config())
    line = daemon.wait_line("^warning vm1 does not answer: ")
    assert line.isprintable() and len(line) < 600
    if behaviour in WITHOUT_GREETING:
        assert vm.served == 1, "it may greet at any time, so the one connection is kept"
    else:
        vm.wait_served(2, daemon)
    assert not daemon.matching("vm1 answers")
    vm.behave()
    daemon.wait_line("^info vm1 answers$")
    assert daemon.stop() == 0
    assert daemon.matching("^(warning|error) ") == [line], "one clear line, and no other"
    assert line.count("vm1") == 1


def test_f24_a_silent_vm_does_not_delay_another(start, serve, config, place):
    silent = serve(silence, "vm1")
    serve(good, "vm2")
    vms = [{"name": name, "type": "qemu", "socket": str(place / f"{name}.qmp")} for name in ("vm1", "vm2")]
    daemon = start("-c", config(vms=vms))
    daemon.wait_line("^info vm2 answers$")
    daemon.wait_line("^warning vm1 does not answer: ")
    log = daemon.log()
    first = {name: next(i for i, line in enumerate(log) if f"{name} {verb}" in line)
             for name, verb in (("vm2", "answers"), ("vm1", "does not answer"))}
    assert first["vm2"] < first["vm1"]
    assert silent.served >= 1
    assert daemon.stop() == 0


def test_f25_silence_at_the_greeting_names_the_likely_reason(start, serve, config):
    serve(silence)
    daemon = start("-c", config())
    assert "client" in daemon.wait_line("^warning vm1 does not answer: ")
    assert daemon.stop() == 0


def test_f25_the_socket_is_left_free(start, serve, config):
    """After its answer the daemon hangs up: the peer, which serves one client at a time, gets to the next."""
    vm = serve(good)
    daemon = start("-c", config())
    daemon.wait_line("^info vm1 answers$")
    with open_client(vm.path) as client:
        assert b'"QMP"' in client.recv(4096)
    assert daemon.stop() == 0


def open_client(path):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect(path)
    return client


SLEPT = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--time", "--boottime", "36000", "--fork",
         "--kill-child=SIGKILL"]


def test_on_a_host_that_has_slept_retries_come_and_since_is_right(program, serve, config, place):
    """The clocks that stop while the host sleeps and those that do not are ten hours apart."""
    if subprocess.run([*SLEPT, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no time namespace can be made here")
    vm, begin = serve(immediate_end), datetime.now(timezone.utc).timestamp()
    daemon = Daemon(SLEPT[0], place, *SLEPT[1:], program, "-c", config())
    try:
        daemon.wait_line("^warning vm1 does not answer: ")
        vm.behave()
        daemon.wait_line("^info vm1 answers$")
        with open_client(str(place / "api.sock")) as client, client.makefile("rw") as stream:
            for action in ("vm_list", "status"):
                stream.write(json.dumps({"action": action}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
                since = datetime.fromisoformat((answer["vms"][0] if action == "vm_list" else answer)["since"])
                assert begin - 2 < since.timestamp() < datetime.now(timezone.utc).timestamp() + 2
    finally:
        daemon.close()


def test_events_in_between_do_no_harm(start, serve, config):
    def talkative(connection):
        event = {"event": "RTC_CHANGE", "data": {"offset": 1}, "timestamp": {"seconds": 1, "microseconds": 2}}
        connection.send(GREETING)
        while (command := connection.command()) is not None:
            connection.send(encoded(event) * 50 + encoded(answer(command)) + encoded(event | {"data": [None]}))
    serve(talkative)
    daemon = start("-c", config())
    daemon.wait_line("^info vm1 answers$")
    assert daemon.stop() == 0


def test_one_byte_at_a_time(start, serve, config):
    def slow(connection):
        for byte in encoded(GREETING):
            connection.send(bytes([byte]))
        while (command := connection.command()) is not None:
            for byte in encoded(answer(command)):
                connection.send(bytes([byte]))
    serve(slow)
    daemon = start("-c", config())
    daemon.wait_line("^info vm1 answers$")
    assert daemon.stop() == 0


@pytest.mark.parametrize("step", range(0, 300, 37))
def test_an_end_after_some_bytes_is_healed(start, serve, config, step):
    def cut(connection):
        left = step

        def send(data):
            nonlocal left
            connection.client.sendall(data[:left])
            left -= len(data[:left])
            return left > 0
        if send(encoded(GREETING)):
            while (command := connection.command()) is not None and send(encoded(answer(command))):
                pass
    vm = serve(cut)
    daemon = start("-c", config())
    vm.wait_served(1, daemon)
    vm.behave()
    daemon.wait_line("^info vm1 answers$")
    assert daemon.stop() == 0


def test_f20_a_socket_that_comes_late(start, serve, config):
    daemon = start("-c", config())
    daemon.wait_line("^info vm1 is not running")
    vm = serve(good)
    daemon.wait_line("^info vm1 answers$")
    vm.close()
    daemon.wait_line("^info vm1 is not running", count=2)
    assert daemon.stop() == 0


def test_f20_a_socket_file_that_nobody_serves(start, serve, config, place):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(place / "vm1.qmp"))
    daemon = start("-c", config())
    daemon.wait_line("^info vm1 is not running")
    (place / "vm1.qmp").unlink()
    serve(good)
    daemon.wait_line("^info vm1 answers$")
    assert daemon.stop() == 0


def test_f21_the_directory_of_the_socket_comes_goes_and_comes(start, config, place):
    directory = place / "late" / "deep"
    path = config(vms=[{"name": "vm1", "type": "qemu", "socket": str(directory / "vm1.qmp")}])
    daemon = start("-c", path)
    daemon.wait_line("^info vm1 is not running")
    for turn in (1, 2):
        directory.mkdir(parents=True)
        vm = Peer(directory / "vm1.qmp", good)
        daemon.wait_line("^info vm1 answers$", count=turn)
        vm.close()
        directory.rmdir()
        directory.parent.rmdir()
        daemon.wait_line("^info vm1 is not running", count=turn + 1)
    assert daemon.stop() == 0


def test_a_file_in_place_of_the_socket(start, serve, config, place):
    (place / "vm1.qmp").write_text("no socket")
    daemon = start("-c", config())
    daemon.wait_line("^(info|warning) vm1 ")
    (place / "vm1.qmp").unlink()
    serve(good)
    daemon.wait_line("^info vm1 answers$")
    assert daemon.stop() == 0


def test_f44_a_failure_that_repeats_is_one_line(start, serve, config):
    vm = serve(immediate_end)
    daemon = start("-c", config())
    vm.wait_served(6, daemon)
    assert daemon.stop() == 0
    lines = daemon.log()
    assert len(daemon.matching("vm1 does not answer")) == 1
    assert len(lines) == len(set(lines)), "a line was repeated"


def test_nonsense_leaves_nothing_open(start, serve, config):
    vm = serve(good)
    daemon = start("-c", config())
    daemon.wait_line("^info vm1 answers$")
    vm.close()
    daemon.wait_line("^info vm1 is not running")
    before = len(open_files(daemon.process))
    vm = serve(garbage)
    vm.wait_served(4, daemon)
    vm.close()
    daemon.wait_line("^info vm1 is not running", count=2)
    end = time.monotonic() + PATIENCE
    while len(open_files(daemon.process)) > before and time.monotonic() < end:
        time.sleep(0.1)
    assert len(open_files(daemon.process)) <= before
    assert daemon.stop() == 0


def test_the_peer_itself_reads_two_commands_at_once():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b'{"execute": "a"} {"execute": "b"}\n')
        connection = peer.Connection(theirs)
        assert [connection.command()["execute"] for _ in range(2)] == ["a", "b"]
