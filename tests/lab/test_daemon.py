# The daemon's own life: killed at any step, stopped, reloaded, idle, and under valgrind.
import pathlib
import re

import pytest
from daemon import PLACE, configuration, mouse_rule
from lab import wait_for

ANY_MOUSE = [mouse_rule()]
KEYBOARD = {"interfaceClass": 3, "interfaceProtocol": 1}


def kill_at(daemon, calls, number):
    """Starts it so that it dies by SIGKILL before the NUMBERth of the system calls."""
    trace = f"{PLACE}/trace"
    daemon.start(f"strace -f -qq -o {trace} -e trace={calls} -e inject={calls}:signal=KILL:when={number}")


@pytest.mark.parametrize("calls, first, step, least", [
    pytest.param("sendmsg", 1, 1, 3, marks=pytest.mark.long),  # before each message to the VM
    pytest.param("epoll_wait", 2, 3, 3, marks=pytest.mark.long),  # between turns of the loop, with answers unread
    ("rename", 1, 1, 1),  # while the memory is written
])
def test_f26_the_daemon_killed_between_steps_ends_in_the_same_state(bench, calls, first, step, least):
    lab, guest = bench.lab, bench.guest()
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]), start=False)
    lab.plug("mouse", "usb-mouse", 3)
    kills = 0
    for number in range(first, first + 20 * step, step):
        mark = daemon.mark()
        kill_at(daemon, calls, number)
        wait_for(f"the daemon to die before {calls} {number} or to be done",
                 lambda: not daemon.running() or re.search(": attached to vm1", daemon.log()[mark:]), show=daemon.log)
        died = not daemon.running()
        daemon.kill()
        mark = daemon.mark()
        daemon.start()
        daemon.wait_log(r"1-3.*: attached to vm1", mark)
        assert len(guest.devices()) == 1 and guest.places() == ["1-3"], (number, guest.devices(), daemon.log())
        assert guest.usb().count("Product") == 1
        lab.wait_driver("1-3", False)
        if not died:
            break
        kills += 1
        daemon.kill()
        for name in guest.devices():
            guest.qmp('{"execute": "device_del", "arguments": {"id": "%s"}}' % name)
        guest.wait_count(0)
        daemon.forget()
    assert kills >= least, f"it was killed only {kills} times: does it still use {calls}?"


def test_f30_sigterm_leaves_attachments_and_the_next_start_adopts_them(bench, qemu):
    guest = bench.guest(qemu=qemu)
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("one", "usb-mouse", 3)
    bench.lab.plug("two", "usb-mouse", 4)
    before, kept = guest.wait_count(2), guest.at("1-3")
    wait_for("the daemon to know both", lambda: len(re.findall(": attached to vm1", daemon.log())) >= 2, show=daemon.log)
    daemon.stop()
    assert guest.devices() == before
    bench.lab.unplug("two")
    bench.lab.plug("three", "usb-mouse", 5)
    daemon.start()
    wait_for("stale out, new in, the rest adopted", lambda: guest.places() == ["1-3", "1-5"] and
             len(guest.devices()) == 2, show=lambda: f"{guest.devices()}\n{daemon.log()}")
    assert guest.at("1-3") == kept


def test_f43_a_reload_touches_only_what_changes_and_a_bad_file_nothing(bench):
    one, two = bench.guest("vm1"), bench.guest("vm2")
    daemon = bench.daemon(configuration([one, two], [("vm1", ANY_MOUSE), ("vm1", [KEYBOARD])]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    bench.lab.plug("keys", "usb-kbd", 4)
    one.wait_count(2)
    kept = one.at("1-4")
    daemon.configure(configuration([one, two], [("vm2", ANY_MOUSE), ("vm1", [KEYBOARD])]))
    daemon.signal("HUP")
    two.wait_count(1)
    assert one.wait_count(1) == kept and two.places() == ["1-3"]
    mark = daemon.mark()
    daemon.configure('{"usbPassthrough": [{"targetVm": "nobody", "allow": [{"vendorid": "1"}]}], "vms": []}')
    daemon.signal("HUP")
    daemon.wait_log(r"usbPassthrough\[0\]", mark)
    bench.lab.plug("other", "usb-mouse", 5)
    two.wait_count(2)
    assert one.devices() == kept
    daemon.configure(configuration([one, two], [("vm1", [KEYBOARD])]))
    daemon.signal("HUP")
    two.wait_count(0)
    bench.lab.wait_driver("1-3")
    assert one.devices() == kept


def switches(daemon):
    return daemon.lab.text(f"cat /proc/{daemon.pid}/task/*/status | grep ctxt_switches")


def test_f44_idle_it_makes_no_wake_up_and_writes_nothing(bench):
    guest, down = bench.guest(), bench.guest("vm2", start=False)
    daemon = bench.daemon(configuration([guest, down], [("vm1", ANY_MOUSE), ("vm2", [KEYBOARD])]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    bench.lab.plug("keys", "usb-kbd", 4)
    daemon.wait_log(": attached to vm1")
    daemon.wait_log("waits: vm2 is not running")
    bench.lab.run("udevadm settle --timeout=200")
    seen = []

    def quiet():
        # The last events of the plugging may still be on their way: any ten quiet seconds will do.
        before, log = switches(daemon), daemon.log()
        bench.lab.run("sleep 10")
        seen.append(before)
        return switches(daemon) == before and daemon.log() == log

    wait_for("ten seconds without a wake-up", quiet, 300, 0, lambda: "\n".join(seen) + daemon.log()[-2000:])


def sanitized(lab):
    return b"__asan_init" in pathlib.Path(lab.build, "src/vhotplug").read_bytes()


def test_valgrind_finds_no_error_no_leak_and_no_lost_descriptor(bench):
    lab, guest = bench.lab, bench.guest()
    if sanitized(lab):
        pytest.skip("valgrind cannot run a program that is built with sanitizers")
    found = f"{PLACE}/valgrind"
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]), start=False)
    daemon.start(f"valgrind --leak-check=full --show-leak-kinds=definite,indirect,possible --track-fds=yes --log-file={found}")
    for _ in range(2):
        lab.plug("mouse", "usb-mouse", 3)
        guest.wait_count(1, limit=600)
        lab.unplug("mouse")
        guest.wait_count(0, limit=600)
    guest.restart()
    lab.plug("mouse", "usb-mouse", 3)
    guest.wait_count(1, limit=600)
    daemon.signal("HUP")
    daemon.stop()
    report = lab.text(f"cat {found}")
    assert "ERROR SUMMARY: 0 errors" in report, report
    for kind in "definitely", "indirectly", "possibly":
        lost = re.search(rf"{kind} lost: ([\d,]+) bytes", report)
        assert not lost or lost.group(1) == "0", report
    assert "FILE DESCRIPTORS" in report, report
    for number, place in re.findall(r"Open (?:file descriptor|AF_\w+ socket) (\d+):?.*\n(?:==\d+==\s+(.*))?", report):
        assert int(number) < 3 or "inherited from parent" in place, report


def test_f16_start_says_how_many_rules_there_are(bench):
    guest = bench.guest(start=False)
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE + [KEYBOARD])]), "-a")
    daemon.wait_log(r"2 USB allow rules.*vm1: 2")


def test_a_bad_configuration_ends_with_1_and_attaches_nothing(bench):
    lab, guest = bench.lab, bench.guest()
    lab.plug("mouse", "usb-mouse", 3)
    lab.write("/tmp/daemon/bad.conf", '{"usbPassthrough": [{"targetVm": "vm1", "allow": [{}, {"vendorID": "1"}]}], "vms": [{"name": '
              f'"vm1", "type": "qemu", "socket": "{guest.socket}"}}]}}')
    result = lab.run(f"{lab.build}/src/vhotplug -a -c /tmp/daemon/bad.conf", check=False)
    assert result.status == 1
    assert "usbPassthrough[0].allow[0]" in result.text and "usbPassthrough[0].allow[1].vendorID" in result.text
    assert guest.devices() == []
