# VMs that start, stop, hang and die.
import pytest
from daemon import configuration, mouse_rule

ANY_MOUSE = [mouse_rule()]
KEYBOARD = {"interfaceClass": 3, "interfaceProtocol": 1}

# A VMM that takes connections and says nothing.
MUTE = """/usr/bin/python3 -u -c '
import os, socket, sys
path = sys.argv[1]
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(16)
open(path + ".pid", "w").write(str(os.getpid()))
kept = []
while True:
    kept.append(server.accept()[0])
' %s > /dev/null 2>&1 &
while ! [ -s %s.pid ]; do sleep 0.1; done"""

# Another tool that sits on a VM's QMP socket.
SITTER = """/usr/bin/python3 -u -c '
import os, socket, sys, time
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.recv(1000)
open(sys.argv[1] + ".sitter", "w").write(str(os.getpid()))
time.sleep(100000)
' %s > /dev/null 2>&1 &
while ! [ -s %s.sitter ]; do sleep 0.1; done"""


def test_f26_a_killed_and_restarted_guest_gets_its_devices_back_and_no_other_is_touched(bench, qemu):
    guest, other = bench.guest(kernel=True, qemu=qemu), bench.guest("vm2")
    daemon = bench.daemon(configuration([guest, other], [("vm1", ANY_MOUSE), ("vm2", [KEYBOARD])]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    bench.lab.plug("keys", "usb-kbd", 4)
    guest.wait_console("Product: QEMU USB Mouse")
    untouched = other.wait_count(1)
    guest.kill()
    daemon.wait_log("vm1 is not running")
    guest.start()
    guest.wait_count(1)
    guest.wait_console("Product: QEMU USB Mouse")
    assert guest.places() == ["1-3"] and other.devices() == untouched


@pytest.mark.parametrize("how", ["KILL", "TERM"])
def test_f26_the_vm_restarts_while_the_daemon_is_down(bench, how):
    guest = bench.guest()
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]), "-d")
    bench.lab.plug("mouse", "usb-mouse", 3)
    guest.wait_count(1)
    daemon.wait_log(": attached to vm1")
    daemon.kill()
    guest.kill(how)
    guest.start()
    assert guest.devices() == []
    daemon.start()  # without -a: what it had attached before it still belongs to the VM
    guest.wait_count(1)
    assert guest.places() == ["1-3"]


def test_f20_f31_a_vm_that_starts_after_the_device_gets_it(bench):
    guest = bench.guest(start=False)
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    daemon.wait_log("waits: vm1 is not running")
    guest.start()
    guest.wait_count(1)
    mark = daemon.mark()
    guest.kill()
    daemon.wait_log("waits: vm1 is not running", mark)
    guest.start()
    guest.wait_count(1)


def test_f20_a_socket_file_that_nobody_serves_is_a_vm_that_is_down(bench):
    guest = bench.guest()
    guest.kill()  # leaves the file behind
    assert bench.lab.good(f"[ -S {guest.socket} ]")
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    daemon.wait_log("waits: vm1 is not running")
    guest.start()
    guest.wait_count(1)


def test_f24_a_vm_that_never_greets_holds_up_no_other(bench):
    mute, other = bench.guest("vm1", start=False), bench.guest("vm2")
    bench.lab.run(MUTE % (mute.socket, mute.socket))
    daemon = bench.daemon(configuration([mute, other], [("vm1", [KEYBOARD]), ("vm2", ANY_MOUSE)]))
    bench.lab.plug("keys", "usb-kbd", 4)
    bench.lab.plug("mouse", "usb-mouse", 3)
    other.wait_count(1)
    daemon.wait_log("vm1 does not answer")
    bench.lab.unplug("mouse")
    other.wait_count(0)
    bench.lab.plug("mouse", "usb-mouse", 5)
    other.wait_count(1)
    bench.lab.run(f"kill -KILL $(cat {mute.socket}.pid); rm -f {mute.socket} {mute.socket}.pid")
    mute.start()
    mute.wait_count(1)
    assert mute.places() == ["1-4"] and other.places() == ["1-5"]


def test_f24_a_frozen_qemu_gets_its_device_when_it_thaws(bench):
    frozen, other = bench.guest("vm1"), bench.guest("vm2")
    daemon = bench.daemon(configuration([frozen, other], [("vm1", [KEYBOARD]), ("vm2", ANY_MOUSE)]))
    daemon.wait_log("vm1 answers")
    frozen.signal("STOP")
    bench.lab.plug("keys", "usb-kbd", 4)
    bench.lab.plug("mouse", "usb-mouse", 3)
    other.wait_count(1)
    daemon.wait_log("vm1 does not answer")
    frozen.signal("CONT")
    frozen.wait_count(1)
    frozen.signal("STOP")
    bench.lab.unplug("keys")
    bench.lab.unplug("mouse")
    other.wait_count(0)
    frozen.signal("CONT")
    frozen.wait_count(0)


def test_f25_another_client_on_the_socket_is_waited_for(bench):
    guest = bench.guest()
    bench.lab.run(SITTER % (guest.socket, guest.socket))
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    daemon.wait_log("vm1 does not answer")
    bench.lab.run(f"kill -KILL $(cat {guest.socket}.sitter); rm {guest.socket}.sitter")
    guest.wait_count(1)


def test_f21_a_socket_directory_that_is_deleted_and_made_again(bench):
    guest = bench.guest(folder="/tmp/run/deep/vm1")
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    guest.wait_count(1)
    for _ in range(2):
        mark = daemon.mark()
        guest.kill()
        bench.lab.run("rm -rf /tmp/run")
        daemon.wait_log("vm1 is not running", mark)
        guest.start()
        guest.wait_count(1)


def test_many_vms_start_at_once(bench):
    guests = [bench.guest(f"vm{number}", start=False) for number in range(1, 5)]
    groups = [(f"vm{number}", [mouse_rule(portPath=f"1-{number}")]) for number in range(1, 5)]
    bench.daemon(configuration(guests, groups))
    for number in range(1, 5):
        bench.lab.plug(f"mouse{number}", "usb-mouse", number, wait=False)
    for guest in guests:
        guest.start()
    for number, guest in enumerate(guests, 1):
        guest.wait_count(1)
        assert guest.places() == [f"1-{number}"]
