# The lab itself: what it promises to the tests of the daemon.
import gadget
import pytest
from lab import LabError


def test_commands_answer_with_status_and_output(lab):
    assert lab.run("echo out; echo err >&2; exit 3", check=False).status == 3
    assert lab.text("echo out; echo err >&2") == "out\nerr\n"
    assert lab.run("printf '\\377\\000x'").raw == b"\xff\0x"
    assert len(lab.run("head -c 3000000 /dev/zero").raw) == 3000000
    with pytest.raises(LabError, match="status 1"):
        lab.run("false")


def test_a_command_that_hangs_is_ended_and_one_in_the_background_is_not(lab):
    assert lab.run("sleep 1000", 2, check=False).status == 124
    assert lab.text("sleep 1000 & echo $!").strip().isdigit()
    assert lab.good("pgrep -f 'sleep 1000' && pkill -f 'sleep 1000'")


def test_plugged_devices_are_real(lab):
    lab.plug("mouse", "usb-mouse", 3)
    assert "DRIVER=usbhid" in lab.text("cat /sys/bus/usb/devices/1-3/1-3:1.0/uevent")
    lab.plug("disk", "usb-storage", 2)
    lab.unplug("mouse")
    lab.wait_usb("1-3", False)
    assert lab.good("[ -e /sys/bus/usb/devices/2-2 ]")


def test_gadgets_have_any_strings(lab):
    gadget.prepare(lab)
    made = gadget.Gadget(lab, "g0", strings={"product": b"a\x1b[31mb\n"})
    made.plug()
    name = f"{gadget.bus(lab)}-1"
    lab.wait_usb(name)
    assert lab.run(f"cat /sys/bus/usb/devices/{name}/product").raw.startswith(b"a\x1b[31mb\n")
    made.unplug()
    lab.wait_usb(name, False)


def test_a_guest_without_os_claims_a_device(bench, qemu):
    guest = bench.guest(qemu=qemu)
    assert ('"major": 7' if qemu == "installed" else '"major": 10') in guest.qmp('{"execute": "query-version"}')[0]
    bench.lab.plug("mouse", "usb-mouse", 3)
    bench.lab.wait_driver("1-3")
    address = int(bench.lab.text("cat /sys/bus/usb/devices/1-3/devnum"))
    guest.qmp('{"execute": "device_add", "arguments": {"driver": "usb-host", "id": "x", "hostbus": 1, "hostaddr": %d}}' % address)
    assert guest.wait_count(1) == ["x"]
    bench.lab.wait_driver("1-3", False)
    guest.restart()
    assert guest.devices() == []


def test_the_kernel_of_a_guest_says_what_it_sees(bench):
    guest = bench.guest(kernel=True)
    guest.qmp('{"execute": "device_add", "arguments": {"driver": "usb-mouse", "id": "x"}}')
    guest.wait_console("Product: QEMU USB Mouse")
    guest.qmp('{"execute": "device_del", "arguments": {"id": "x"}}')
    guest.wait_console("USB disconnect")


def test_the_next_test_gets_a_new_lab_host_when_this_one_has_died(labs):
    lab = labs.get()
    lab.process.kill()
    lab.process.wait()
    assert labs.get() is not lab and labs.get().alive()
