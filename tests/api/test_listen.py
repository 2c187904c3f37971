"""The ways in: the Unix socket with its owner and mode, TCP, vsock; who is let in; reload opens and closes them."""
import grp
import os
import pathlib
import pwd
import re
import signal
import socket
import stat

import pytest

import vhotplug


def is_root():
    return os.geteuid() == 0


def reload(daemon):
    daemon.signal(signal.SIGHUP)
    daemon.wait_notice("RELOADING=1")
    daemon.wait_notice("READY=1")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


def working(client):
    return client.request("usb_list")["result"] == "ok"


# ---- the Unix socket

def test_f47_the_socket_is_for_its_owner_only(daemon, connect, address):
    assert working(connect())
    assert stat.S_ISSOCK(address.lstat().st_mode)
    assert mode_of(address) == 0o600
    assert address.lstat().st_uid == os.geteuid()
    daemon.wait_line(f"^info API: listens on {address}$")


@pytest.mark.parametrize("mode", ["0660", "0600", "0666", "0640"])
def test_f47_the_socket_has_the_mode_of_the_file(start, config, address, mode):
    start("-c", config({"unixSocketMode": mode})).wait_ready()
    assert mode_of(address) == int(mode, 8)


def test_f47_the_socket_has_the_owner_of_the_file(start, config, address):
    if not is_root():
        pytest.skip("only root can give files away")
    user, group = pwd.getpwnam("daemon"), grp.getgrnam("mail")
    daemon = start("-c", config({"unixSocketUser": "daemon", "unixSocketGroup": "mail", "unixSocketMode": "0660"}))
    daemon.wait_ready()
    assert (address.lstat().st_uid, address.lstat().st_gid, mode_of(address)) == (user.pw_uid, group.gr_gid, 0o660)
    config({"unixSocketUser": str(user.pw_uid), "unixSocketGroup": user.pw_gid, "unixSocketMode": "0600"})
    reload(daemon)
    assert (address.lstat().st_uid, address.lstat().st_gid, mode_of(address)) == (user.pw_uid, user.pw_gid, 0o600)


def test_f47_another_user_is_kept_out_by_the_mode(daemon, address, place):
    if not is_root():
        pytest.skip("only root can become another user")
    place.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            socket.socket(socket.AF_UNIX).connect(str(address))
        except PermissionError:
            os._exit(0)
        except BaseException:
            os._exit(2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("key, word", [("unixSocketUser", "user"), ("unixSocketGroup", "group")])
def test_f47_an_owner_who_does_not_exist_keeps_all_others_out(start, config, connect, address, key, word):
    daemon = start("-c", config({key: "nobody-of-that-name", "unixSocketMode": "0660"}))
    daemon.wait_ready()
    daemon.wait_line(f"^error API: {address} is for the daemon's own user only: there is no {word} nobody-of-that-name")
    assert mode_of(address) == 0o600
    assert working(connect())


def test_directories_are_made(start, config, connect, place):
    path = place / "one" / "two" / "api.sock"
    old = os.umask(0o077)
    try:
        start("-c", config({"unixSocket": str(path)})).wait_ready()
    finally:
        os.umask(old)
    assert mode_of(path.parent) == mode_of(path.parent.parent) == 0o755
    assert working(connect(path))


def test_a_dead_daemons_socket_is_replaced(start, config, connect, address):
    first = start("-c", config())
    first.wait_ready()
    first.signal(signal.SIGKILL)
    first.wait_end()
    assert address.exists()
    (address.parent / "api.sock.new").write_text("what one that was killed left")
    second = start("-c", config())
    second.wait_ready()
    assert working(connect())
    assert not (address.parent / "api.sock.new").exists()
    assert second.stop() == 0
    assert not address.exists()


def test_a_living_daemons_socket_is_left_alone(start, config, connect, address, place):
    start("-c", config()).wait_ready()
    inode = address.lstat().st_ino
    (place / "other").mkdir()
    environment = {"RUNTIME_DIRECTORY": str(place / "other"), **vhotplug.sanitizers()}
    second = start("-c", config(), environment=environment)
    second.wait_line(f"^error API: {address} is not served: another program listens there")
    assert second.stop() == 0
    assert address.lstat().st_ino == inode
    assert working(connect())


def test_a_file_that_is_no_socket_is_left_alone(start, config, address):
    address.write_text("precious")
    daemon = start("-c", config())
    daemon.wait_ready()
    daemon.wait_line(f"^error API: {address} is not served: something else than a socket is there")
    assert daemon.stop() == 0
    assert address.read_text() == "precious"


def test_a_link_in_its_place_is_left_alone(start, config, address, place):
    address.symlink_to(place / "elsewhere")
    daemon = start("-c", config())
    daemon.wait_ready()
    daemon.wait_line("^error API: .* is not served: something else than a socket is there")
    assert address.is_symlink() and not (place / "elsewhere").exists()


def test_a_path_that_fits_no_address_is_said(start, config, place):
    path = place / ("x" * (106 - len(str(place))))
    daemon = start("-c", config({"unixSocket": str(path)}))
    daemon.wait_line("^error API: .* is not served: its path is longer than 103 bytes")
    assert daemon.stop() == 0


def test_the_api_can_be_disabled(start, config, address):
    daemon = start("-c", config({"enable": False}))
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert not address.exists() and not daemon.matching("API")


# ---- reload

def test_clients_stay_over_a_reload(start, config, connect, daemon):
    client = connect()
    assert working(client)
    config({"unixSocketMode": "0640"})
    reload(daemon)
    assert working(client) and working(connect())


def test_reload_moves_the_socket(config, connect, daemon, address, place):
    client = connect()
    assert working(client)
    config({"unixSocket": str(place / "moved.sock")})
    reload(daemon)
    assert client.has_ended()
    assert not address.exists()
    assert working(connect(place / "moved.sock"))


def test_reload_heals_a_socket_that_was_deleted(config, connect, daemon, address):
    client = connect()
    assert working(client)
    address.unlink()
    reload(daemon)
    assert working(connect()) and working(client)


def test_f43_reload_by_a_client_says_what_is_wrong(config, connect, daemon):
    client = connect()
    path = config(usbPassthrough=[{"targetVm": "vm9", "allow": [{"vendorId": "zzzz"}]}])
    answer = client.request("reload")
    assert answer["result"] == "failed"
    for place in ("usbPassthrough[0].targetVm: ", "usbPassthrough[0].allow[0].vendorId: "):
        assert f"{path}: {place}" in answer["error"]
        daemon.wait_line("^error " + re.escape(f"{path}: {place}"))
    daemon.wait_line("not reloaded, the running configuration stays")
    config()
    assert client.request("reload")["result"] == "ok"


def test_the_client_that_closes_its_own_way_in_is_still_answered(config, connect, daemon):
    client = connect()
    config({"enable": False})
    assert client.request("reload")["result"] == "ok"
    assert client.has_ended()


def test_the_choices_move_with_the_state_path(start, config, place):
    path = config()
    daemon = start("-c", path)
    daemon.wait_ready()
    path.write_text(path.read_text().replace(str(place / "state"), str(place / "deep" / "state")))
    reload(daemon)
    assert (place / "deep" / "state").exists()


@pytest.mark.parametrize("text", ["", "nonsense", '{"selected_vms": 3}', "[" * 3000])
def test_f33_a_damaged_state_file_does_not_stop_the_daemon(start, config, connect, place, text):
    (place / "state").write_text(text)
    daemon = start("-c", config())
    daemon.wait_ready()
    daemon.wait_line(f"^(warning|error) {place / 'state'}")
    assert working(connect())
    assert [path for path in place.glob("state*") if path.read_text() == text]


# ---- TCP

@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "127.0.0.2"])
def test_tcp_on_loopback(start, config, connect, address, host):
    port = free_port()
    daemon = start("-c", config({"transports": ["tcp"], "host": host, "port": port}))
    daemon.wait_ready()
    if re.search("Address family|Cannot assign", daemon.wait_line("API: ")):
        pytest.skip(f"{host} is no address of this machine")
    assert working(connect((host, port)))
    assert not address.exists()
    page = connect((host, port))  # what a browser can be made to send
    page.send(b'POST / HTTP/1.1\r\n')
    assert page.answer()["result"] == "failed" and page.line() is None


def test_f47_tcp_off_loopback_needs_a_switch(start, config, connect):
    port = free_port()
    daemon = start("-c", config({"transports": ["tcp", "unix"], "host": "0.0.0.0", "port": port}))
    daemon.wait_ready()
    daemon.wait_line("^warning .*general.api.host: 0.0.0.0 is no loopback address")
    assert working(connect(("127.0.0.1", port)))
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.2", port))
    config({"transports": ["tcp", "unix"], "host": "0.0.0.0", "port": port, "allowRemote": True})
    reload(daemon)
    daemon.wait_line("^warning .*general.api.host: 0.0.0.0 is no loopback address", count=2)
    assert working(connect(("127.0.0.2", port)))


def test_f47_reload_to_loopback_hangs_up_on_remote_clients(start, config, connect):
    port = free_port()
    keys = {"transports": ["tcp", "unix"], "port": port}
    daemon = start("-c", config({**keys, "host": "0.0.0.0", "allowRemote": True}))
    daemon.wait_ready()
    remote, local = connect(("127.0.0.2", port)), connect()
    assert working(remote) and working(local)
    config(keys)
    reload(daemon)
    assert remote.has_ended()
    assert working(local) and working(connect(("127.0.0.1", port)))


def test_a_port_that_is_taken_is_said_and_the_rest_is_served(start, config, connect):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = start("-c", config({"transports": ["tcp", "unix"], "port": port}))
        daemon.wait_ready()
        daemon.wait_line(f"^error API: 127.0.0.1:{port} is not served: Address already in use")
        assert working(connect())
    reload(daemon)
    assert working(connect(("127.0.0.1", port)))


# ---- vsock

def vsock_client(port):
    """Over the kernel's own loopback, which has CID 1."""
    client = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    client.settimeout(vhotplug.PATIENCE)
    client.connect((1, port))
    return client


def has_vsock_loopback():
    modules = pathlib.Path("/sys/module/vsock_loopback")
    return hasattr(socket, "AF_VSOCK") and modules.exists()


def test_f47_vsock_lets_in_only_the_cids_of_the_file(start, config):
    if not has_vsock_loopback():
        pytest.skip("this kernel has not loaded vsock_loopback, by which a host can be its own guest")
    keys = {"transports": ["vsock", "unix"], "port": free_port()}
    daemon = start("-c", config({**keys, "allowedCids": [5]}))
    daemon.wait_ready()
    for _ in range(3):
        assert vsock_client(keys["port"]).recv(1000) == b""
    daemon.wait_line("^warning API: a guest with CID 1 may not connect: general.api.allowedCids does not name")
    config({**keys, "allowedCids": [1]})
    reload(daemon)
    client = vsock_client(keys["port"])
    client.sendall(b'{"action": "usb_list"}\n')
    assert b'"ok"' in client.recv(65536)
    config({**keys, "allowedCids": [5]})
    reload(daemon)
    assert client.recv(1000) == b""
    assert len(daemon.matching("a guest with CID 1 may not connect")) == 1


def test_a_host_without_vsock_says_so_and_serves_the_rest(start, config, connect):
    daemon = start("-c", config({"transports": ["vsock", "unix"], "allowedCids": [5]}))
    daemon.wait_ready()
    assert daemon.wait_line("API: (listens on vsock port 2000|vsock port 2000 is not served: )")
    assert working(connect())
