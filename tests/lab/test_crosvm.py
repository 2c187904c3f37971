# One configuration, a QEMU guest and a crosvm: what each gets of the real devices, and that nothing which happens to
# the one is felt by the other. The crosvm is the fake one, which writes down what a client must never do.
import re

import pytest
from daemon import configuration, mouse_rule
from lab import wait_for

ANY_MOUSE = [mouse_rule()]
KEYBOARD = {"interfaceClass": 3, "interfaceProtocol": 1}
DISK = {"interfaceClass": 8}


def both(guest, crosvm):
    """Mice go to the one, keyboards and disks to the other."""
    return configuration([guest, crosvm], [(guest.name, ANY_MOUSE), (crosvm.name, [KEYBOARD, DISK])])


def descriptors(daemon):
    return len(daemon.lab.text(f"ls /proc/{daemon.pid}/fd").split())


def test_f31_a_qemu_guest_and_a_crosvm_are_served_from_one_configuration(bench):
    lab, guest, crosvm = bench.lab, bench.guest(kernel=True), bench.crosvm("vm2")
    daemon = bench.daemon(both(guest, crosvm))
    counts = []
    for _ in range(2):
        since = len(guest.console())
        lab.plug("mouse", "usb-mouse", 3)
        lab.plug("keys", "usb-kbd", 4)
        lab.plug("disk", "usb-storage", 2)
        guest.wait_console("Product: QEMU USB Mouse", since)
        crosvm.wait_ports({1: "1-4", 9: "2-2"})  # ports from 9 on are for USB 3
        guest.wait_count(1)
        assert guest.places() == ["1-3"]
        assert not re.search("Product: QEMU USB (Keyboard|HARDDRIVE)", guest.console())
        wait_for("the daemon to know all three", lambda: len(re.findall(": attached to vm[12]", daemon.log())) >=
                 3 * (len(counts) + 1), show=daemon.log)
        crosvm.check(daemon)
        counts.append(descriptors(daemon))
        for id in "mouse", "keys", "disk":
            lab.unplug(id)
        guest.wait_console("USB disconnect", since)
        guest.wait_count(0)
        crosvm.wait_ports({})
    # A connection may be open or not at that moment; a device that stays open would be one more each time.
    assert counts[1] <= counts[0] + 1, counts
    assert crosvm.attaches() == 4
    crosvm.check(daemon)


def test_f03_equal_devices_in_both_and_two_in_the_crosvm_each_on_its_own_port(bench):
    lab, guest, crosvm = bench.lab, bench.guest(), bench.crosvm("vm2")
    daemon = bench.daemon(configuration([guest, crosvm], [
        ("vm1", [mouse_rule(portPath="1-3")]), ("vm2", [mouse_rule(portPath="1-4"), mouse_rule(portPath="1-5")])]))
    lab.plug("a", "usb-mouse", 3, serial="SAME")
    lab.plug("b", "usb-mouse", 4, serial="SAME")
    crosvm.wait_ports({1: "1-4"})
    lab.plug("c", "usb-mouse", 5, serial="SAME")
    before = crosvm.wait_ports({1: "1-4", 2: "1-5"})
    kept = guest.wait_count(1)
    assert guest.places() == ["1-3"]
    lab.unplug("b")
    assert crosvm.wait_ports({2: "1-5"}) == {2: before[2]}
    lab.plug("b", "usb-mouse", 4, serial="SAME")
    after = crosvm.wait_ports({1: "1-4", 2: "1-5"})
    assert after[1] != before[1] and after[2] == before[2]
    assert guest.devices() == kept
    lab.unplug("a")
    guest.wait_count(0)
    assert crosvm.nodes() == after
    crosvm.check(daemon)


def test_f22_f26_a_crosvm_that_is_killed_and_boots_again_gets_its_device_and_qemu_feels_nothing(bench):
    lab, guest, crosvm = bench.lab, bench.guest(kernel=True), bench.crosvm("vm2")
    daemon = bench.daemon(both(guest, crosvm))
    lab.plug("mouse", "usb-mouse", 3)
    lab.plug("keys", "usb-kbd", 4)
    guest.wait_console("Product: QEMU USB Mouse")
    crosvm.wait_ports({1: "1-4"})
    daemon.wait_log(r"1-4\): attached to vm2")
    kept, since, pid, mark = guest.wait_count(1), len(guest.console()), crosvm.pid(), daemon.mark()
    crosvm.check(daemon)
    crosvm.kill()
    daemon.wait_log("vm2 is not running", mark)
    # It boots: at first it takes requests and answers none, then its guest cannot use what it is given.
    crosvm.start("--halt", "--early")
    assert crosvm.pid() != pid
    lab.plug("other", "usb-mouse", 5)
    guest.wait_console("Product: QEMU USB Mouse", since)
    crosvm.order("run")
    wait_for("the daemon to try too early", crosvm.attaches, show=daemon.log)
    crosvm.order("ready")
    crosvm.wait_ports({1: "1-4"})
    daemon.wait_log(r"1-4\): attached to vm2", mark)
    # The second mouse has shown that the guest's kernel tells of such things: the first one never left.
    assert "USB disconnect" not in guest.console()
    assert len(guest.devices()) == 2 and set(kept) < set(guest.devices())
    crosvm.check(daemon)


def test_f03_f26_the_daemon_killed_and_restarted_attaches_nothing_twice(bench):
    lab, guest, crosvm = bench.lab, bench.guest(), bench.crosvm("vm2")
    daemon = bench.daemon(both(guest, crosvm))
    lab.plug("mouse", "usb-mouse", 3)
    lab.plug("keys", "usb-kbd", 4)
    lab.plug("twin", "usb-kbd", 5)
    wait_for("two keyboards in the crosvm", lambda: sorted(crosvm.ports().values()) == ["1-4", "1-5"], show=daemon.log)
    known = [r"1-3\): attached to vm1", r"1-4\): attached to vm2", r"1-5\): attached to vm2"]
    for name in known:
        daemon.wait_log(name)
    inside, before, held = crosvm.ports(), crosvm.nodes(), guest.wait_count(1)
    daemon.kill()
    mark = daemon.mark()
    daemon.start()
    for name in known:
        daemon.wait_log(name, mark)
    assert crosvm.nodes() == before and guest.devices() == held
    assert crosvm.attaches() == 2
    # Killed while it waits for the answer to each request that an attach takes, the attach itself among them.
    taken = []
    for number in 1, 2, 3:
        crosvm.order(f"kill {number} executed")
        lab.plug("disk", "usb-storage", 2)
        daemon.wait_end()
        taken.append(crosvm.nodes() != before)
        mark = daemon.mark()
        daemon.start()
        daemon.wait_log(r"2-2\): attached to vm2", mark)
        assert crosvm.ports() == inside | {9: "2-2"}
        assert crosvm.attaches() == 2 + number
        if number < 3:
            lab.unplug("disk")
            crosvm.wait_ports(inside)
    assert taken == [False, True, True], "it was not killed at the attach"
    # What changes while it is away is made up for, and of two equal devices the right one goes.
    daemon.kill()
    lab.unplug("keys")
    lab.unplug("mouse")
    daemon.start()
    guest.wait_count(0)
    crosvm.wait_ports({port: place for port, place in inside.items() if place != "1-4"} | {9: "2-2"})
    crosvm.check(daemon)


@pytest.mark.parametrize("option", [[], ["--hang-up"]], ids=["frees_ports_when_told", "frees_ports_itself"])
def test_f28_fast_replugs_end_attached_once(bench, option):
    lab, guest, crosvm = bench.lab, bench.guest(), bench.crosvm("vm2", *option)
    daemon = bench.daemon(both(guest, crosvm))
    for _ in range(5):
        for id, driver, port in ("keys", "usb-kbd", 4), ("mouse", "usb-mouse", 3):
            lab.plug(id, driver, port, wait=False)
        for id in "keys", "mouse":
            lab.unplug(id)
    lab.plug("keys", "usb-kbd", 4)
    lab.plug("mouse", "usb-mouse", 3)
    wait_for("only the last ones to be in the VMs", lambda: list(crosvm.ports().values()) == ["1-4"] and
             guest.places() == ["1-3"] and len(guest.devices()) == 1, show=lambda: f"{crosvm.ports()}\n{guest.usb()}")
    daemon.wait_log(r"1-4\): attached to vm2")
    crosvm.check(daemon)
    daemon.kill()
    lab.unplug("keys")
    lab.unplug("mouse")
    if option:
        crosvm.wait_ports({}, "without the daemon")
    daemon.start()
    crosvm.wait_ports({})
    guest.wait_count(0)
    crosvm.check(daemon)


def test_f43_a_reload_moves_a_device_from_qemu_to_the_crosvm_and_back(bench):
    lab, guest, crosvm = bench.lab, bench.guest(), bench.crosvm("vm2")
    vms = [guest, crosvm]
    daemon = bench.daemon(configuration(vms, [("vm1", ANY_MOUSE), ("vm2", [KEYBOARD])]))
    lab.plug("mouse", "usb-mouse", 3)
    lab.plug("keys", "usb-kbd", 4)
    guest.wait_count(1)
    stays = crosvm.wait_ports({1: "1-4"})
    daemon.configure(configuration(vms, [("vm2", ANY_MOUSE), ("vm2", [KEYBOARD])]))
    daemon.signal("HUP")
    assert crosvm.wait_ports({1: "1-4", 2: "1-3"})[1] == stays[1]
    assert guest.devices() == [], "it is in two VMs"
    daemon.configure(configuration(vms, [("vm1", ANY_MOUSE), ("vm2", [KEYBOARD])]))
    daemon.signal("HUP")
    guest.wait_count(1)
    assert crosvm.nodes() == stays, "it is in two VMs"
    assert guest.places() == ["1-3"]
    crosvm.check(daemon)
