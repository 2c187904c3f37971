# Devices that come and go: what reaches the guest, where it is put in it, and what stays on the host.
import re

import gadget
from daemon import configuration, mouse_rule
from guest import CONTROLLER
from lab import wait_for

ANY_MOUSE = [mouse_rule()]


def add_by_hand(guest, id, address, bus=1):
    guest.qmp('{"execute": "device_add", "arguments": {"driver": "usb-host", "id": "%s", "hostbus": %d, "hostaddr": %d}}'
              % (id, bus, address))


def address_of(lab, name):
    return int(lab.text(f"cat /sys/bus/usb/devices/{name}/devnum"))


def test_the_guest_kernel_sees_a_plugged_mouse_and_sees_it_go(bench, qemu):
    guest = bench.guest(kernel=True, qemu=qemu)
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    guest.wait_console("Product: QEMU USB Mouse")
    daemon.wait_log(r"0627:0001.*: attached to vm1, allowed by ")
    assert guest.places() == ["1-3"]
    before = len(guest.console())
    bench.lab.unplug("mouse")
    guest.wait_count(0)
    guest.wait_console("USB disconnect", before)
    daemon.wait_log(r"1-3.*unplugged")


def test_f11_a_device_that_no_rule_allows_stays_on_the_host_and_leaves_silently(bench):
    guest = bench.guest()
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("keys", "usb-kbd", 4)
    bench.lab.plug("mouse", "usb-mouse", 3)
    guest.wait_count(1)
    assert guest.places() == ["1-3"]
    bench.lab.wait_driver("1-4")
    bench.lab.unplug("keys")
    bench.lab.wait_usb("1-4", False)
    bench.lab.unplug("mouse")
    guest.wait_count(0)
    assert not re.search(r"^(warning|error)", daemon.log(), re.M | re.I), daemon.log()


def test_without_a_only_what_is_plugged_from_now_on_goes_in(bench):
    guest = bench.guest()
    bench.lab.plug("old", "usb-mouse", 3)
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]), "-d")
    daemon.wait_log("1-3|vm1 answers")  # the first scan is over
    bench.lab.plug("new", "usb-mouse", 4)
    guest.wait_count(1)
    assert guest.places() == ["1-4"]


def test_f28_eight_devices_behind_one_hub_at_once(bench, qemu):
    guest = bench.guest(qemu=qemu, controller=["-device", "qemu-xhci,id=xhci,p2=10,p3=10"])
    bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("hub", "usb-hub", 6)
    for number in range(1, 9):
        bench.lab.plug(f"mouse{number}", "usb-mouse", f"6.{number}", wait=False)
    guest.wait_count(8)
    assert guest.places() == [f"1-6.{number}" for number in range(1, 9)]
    assert "QEMU USB Hub" not in guest.usb()
    for number in range(1, 9):
        bench.lab.unplug(f"mouse{number}")
    guest.wait_count(0)


def test_f28_a_hub_that_is_pulled_takes_its_devices_with_it(bench):
    guest = bench.guest()
    bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("hub", "usb-hub", 6)
    for number in range(1, 4):
        bench.lab.plug(f"mouse{number}", "usb-mouse", f"6.{number}", wait=False)
    guest.wait_count(3)
    bench.lab.unplug("hub")
    guest.wait_count(0)


def test_f01_two_identical_devices_one_per_vm_by_port_path(bench):
    one, two = bench.guest("vm1"), bench.guest("vm2")
    bench.daemon(configuration([one, two], [("vm1", [mouse_rule(portPath="1-3")]), ("vm2", [mouse_rule(portPath="1-4")])]))
    bench.lab.plug("a", "usb-mouse", 3, serial="SAME")
    bench.lab.plug("b", "usb-mouse", 4, serial="SAME")
    bench.lab.plug("c", "usb-mouse", 5, serial="SAME")
    one.wait_count(1)
    two.wait_count(1)
    assert one.places() == ["1-3"] and two.places() == ["1-4"]
    bench.lab.wait_driver("1-5")


def test_f05_of_two_twins_without_serial_each_is_its_own(bench):
    guest = bench.guest()
    bench.lab.plug("a", "usb-mouse", 3, serial="")
    bench.lab.plug("b", "usb-mouse", 4, serial="")
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    guest.wait_count(2)
    kept = guest.at("1-4")
    bench.lab.unplug("a")
    assert guest.wait_count(1) == kept
    daemon.stop()
    mark = daemon.mark()
    daemon.start()
    daemon.wait_log(r"1-4.*: attached to vm1", mark)
    bench.lab.plug("a", "usb-mouse", 3, serial="")
    assert set(kept) < set(guest.wait_count(2))
    assert guest.places() == ["1-3", "1-4"]


def test_f02_bus_1_address_12_and_bus_11_address_2_are_two_devices(bench):
    lab = bench.lab
    lab.reset_controller()
    guest = bench.guest()
    gadget.prepare(lab, 9)
    made = gadget.Gadget(lab, "g0", udc=8)
    made.plug()
    lab.wait_usb("11-1")
    while True:
        lab.plug("mouse", "usb-mouse", 3)
        if address_of(lab, "1-3") == 12:
            break
        assert address_of(lab, "1-3") < 12
        lab.unplug("mouse")
        lab.wait_usb("1-3", False)
    assert address_of(lab, "11-1") == 2
    bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    guest.wait_count(2)
    assert guest.places() == ["1-3", "11-1"]
    kept = guest.at("11-1")
    lab.unplug("mouse")
    assert guest.wait_count(1) == kept


def test_f28_twenty_fast_replugs_end_attached(bench):
    guest = bench.guest()
    bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    for _ in range(20):
        bench.lab.plug("mouse", "usb-mouse", 3, wait=False)
        bench.lab.unplug("mouse")
    bench.lab.plug("mouse", "usb-mouse", 3)
    bench.lab.wait_driver("1-3", False)
    wait_for("only the last one to be in the VM", lambda: guest.places() == ["1-3"] and len(guest.devices()) == 1,
             show=lambda: f"{guest.devices()}\n{guest.usb()}")
    bench.lab.unplug("mouse")
    guest.wait_count(0)


def test_f07_f08_another_device_at_the_same_port_replaces_the_first(bench):
    guest = bench.guest()
    bench.daemon(configuration([guest], [("vm1", [{"portPath": "1-3"}])]))
    seen = set()
    for turn in range(10):
        bench.lab.plug(f"d{turn}", ["usb-mouse", "usb-kbd", "usb-wacom-tablet"][turn % 3], 3)
        wait_for(f"the device of turn {turn} in the VM, and no other",
                 lambda: len(guest.devices()) == 1 and not seen & set(guest.devices()), show=guest.usb)
        seen |= set(guest.devices())
        if turn < 9:
            bench.lab.unplug(f"d{turn}")
    bench.lab.wait_driver("1-3", False)


def test_f39_a_qemu_that_runs_as_nobody_gets_the_device(bench, qemu):
    guest = bench.guest(qemu=qemu, nobody=True)
    assert bench.lab.text(f"stat -c %u /proc/{guest.pid()}").strip() == "65534"
    bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    bench.lab.run("chmod 0600 /dev/bus/usb/*/*; chown root:root /dev/bus/usb/*/*")
    guest.wait_count(1)
    bench.lab.wait_driver("1-3", False)
    assert "QEMU USB Mouse" in guest.usb()


def test_f41_the_fifth_device_on_four_ports_waits_and_gets_in_when_one_frees(bench, qemu):
    guest = bench.guest(qemu=qemu)
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    for number in range(1, 6):
        bench.lab.plug(f"mouse{number}", "usb-mouse", number)
    guest.wait_count(4)
    daemon.wait_log(r"(waits|refused|no ).*port")
    assert len(guest.devices()) == 4
    assert "QEMU USB Hub" not in guest.usb()
    assert guest.usb().count("480 Mb/s") == 4
    inside = guest.places()
    outside = ({f"1-{number}" for number in range(1, 6)} - set(inside)).pop()
    bench.lab.wait_driver(outside)
    bench.lab.unplug(f"mouse{inside[0][2:]}")
    wait_for("the fifth device in the VM", lambda: guest.places() == sorted(inside[1:] + [outside]), show=guest.usb)
    assert "QEMU USB Hub" not in guest.usb()


def test_f41_a_vm_without_usb_controller_is_told_the_argument_to_add(bench, qemu):
    guest = bench.guest(qemu=qemu, controller=[])
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("mouse", "usb-mouse", 3)
    daemon.wait_log(r"1-3.*vm1.*qemu-xhci|vm1.*qemu-xhci")
    bench.lab.wait_driver("1-3")
    guest.controller = CONTROLLER
    guest.restart()
    guest.wait_count(1)


def test_a_full_speed_device_finds_a_controller_that_can_take_it(bench):
    guest = bench.guest(controller=["-device", "usb-ehci,id=ehci", "-device", "piix3-usb-uhci,id=uhci"])
    bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    bench.lab.plug("slow", "usb-mouse", 3, usb_version=1)
    guest.wait_count(1)
    bench.lab.plug("fast", "usb-mouse", 4)
    guest.wait_count(2)
    assert sorted(re.findall(r"Speed (\d+) Mb/s", guest.usb())) == ["12", "480"]


def test_f40_objects_that_are_not_ours_are_never_removed(bench):
    lab, guest = bench.lab, bench.guest()
    lab.plug("keys", "usb-kbd", 4)
    lab.plug("mouse", "usb-mouse", 3)
    add_by_hand(guest, "foreign-keys", address_of(lab, "1-4"))
    add_by_hand(guest, "foreign-mouse", address_of(lab, "1-3"))
    guest.qmp('{"execute": "device_add", "arguments": {"driver": "usb-tablet", "id": "foreign-tablet"}}')
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    daemon.wait_log("foreign-mouse")
    lab.plug("other", "usb-mouse", 5)
    wait_for("the other mouse in the VM", lambda: guest.places() == ["1-5"], show=guest.usb)
    lab.unplug("keys")
    lab.unplug("other")
    wait_for("the other mouse to leave the VM", lambda: guest.places() == [], show=guest.usb)
    assert guest.devices() == ["foreign-keys", "foreign-mouse"]
    assert '"foreign-tablet"' in guest.names()
    guest.qmp('{"execute": "device_del", "arguments": {"id": "foreign-mouse"}}')
    lab.unplug("mouse")
    lab.plug("mouse", "usb-mouse", 3)
    wait_for("the mouse in the VM once nothing is in its way", lambda: guest.places() == ["1-3"], show=guest.usb)
