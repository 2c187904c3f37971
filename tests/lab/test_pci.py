# PCI functions: to the guest and back to the driver that they had, IOMMU groups as a whole, and a daemon that dies on the way.
import json
import re

import functions
import pytest
from daemon import PLACE
from functions import Card
from inputs import ports
from lab import wait_for
from person import SOCKET, STATE

RECORDS = "/run/vhotplug/pci"
# What the guest's own driver says when it has a card.
SEEN = r"e1000e \S+ eth\d: Intel"


def configuration(guests, groups):
    return {"pciPassthrough": groups,
            "vms": [{"name": guest.name, "type": guest.type, "socket": guest.socket} for guest in guests],
            "general": {"statePath": STATE, "api": {"unixSocket": SOCKET}}}


def group(vm, *functions, **more):
    return {"targetVm": vm, "allow": [{"address": function.address} for function in functions], **more}


def said_of(lab, function):
    """What the host's kernel has said of it."""
    return lab.text(f"dmesg | grep -F {function.address} || true")


def wait_seen(guest, count):
    wait_for(f"the guest's driver to get a card, {count} times in all", lambda: len(re.findall(SEEN, guest.console())) == count,
             show=lambda: guest.console()[-3000:])


def on_host(function, interface):
    """It is on the host as it was before, and no trace is left."""
    function.wait_driver("e1000e" if interface.startswith("enp") else "e1000")
    wait_for(f"the host's {interface}", lambda: function.interface() == interface, show=function.interface)
    assert function.override() == "(null)"
    assert not function.lab.good(f"[ -e {RECORDS}/{function.address} ]")


@pytest.mark.parametrize("qemu", ["installed", pytest.param("qemu10", marks=pytest.mark.long)], indirect=True)
def test_f04_f30_f32_f34_one_of_two_cards_goes_to_the_guest_and_back(bench, slots, person, qemu):
    guest = bench.guest(kernel=True, qemu=qemu, controller=ports("rp1", "rp2"))
    card, other = Card(slots, "port1"), Card(slots, "port2")
    interface, kept = card.interface(), (other.interface(), said_of(slots, other))
    daemon = bench.daemon(configuration([guest], [group("vm1", card, tag="net")]))
    daemon.wait_log(rf"{card.address}.*: attached to vm1, allowed by pciPassthrough\[0\]")
    wait_seen(guest, 1)
    assert card.driver() == "vfio-pci" and card.interface() == ""
    before = guest.wait_functions(card.address)
    # Suspended, it waits between host and guest, and comes back into the same guest.
    person.classic("pci", "suspend")
    guest.wait_functions()
    assert card.driver() == "vfio-pci"
    person.classic("pci", "resume")
    guest.wait_functions(card.address)
    wait_seen(guest, 2)
    # A daemon that was killed knows what it had, and also which driver that is from.
    kept_in_guest = guest.functions()
    assert kept_in_guest.keys() != before.keys()
    daemon.kill()
    mark = daemon.mark()
    daemon.start()
    daemon.wait_log(rf"{card.address}.*: attached to vm1", mark)
    assert guest.functions() == kept_in_guest
    person.does("detach", card.address)
    guest.wait_functions()
    on_host(card, interface)
    # Taken out by a person, it stays out until a person puts it back.
    daemon.stop()
    daemon.start()
    daemon.wait_log(f"{card.address}.*a person took it out")
    on_host(card, interface)
    assert "attached to vm1" in person.does("attach", card.address, "vm1")
    wait_seen(guest, 3)
    daemon.configure(configuration([guest], []))
    daemon.signal("HUP")
    guest.wait_functions()
    on_host(card, interface)
    # All the while nothing has happened to the other one.
    assert (other.interface(), said_of(slots, other)) == kept and other.driver() == "e1000e"


@pytest.mark.long
def test_f34_f49_cards_that_come_and_go_while_all_runs(bench, slots):
    guest = bench.guest(kernel=True, controller=ports("rp1", "rp2"))
    daemon = bench.daemon(configuration([guest], [{"targetVm": "vm1", "allow": [{"vendorId": "8086", "deviceId": "10d3"}]}]))
    daemon.wait_log("vm1 answers")
    first = Card(slots, "port1", wait=False)
    guest.wait_functions(first.address)
    wait_seen(guest, 1)
    second = Card(slots, "port2", wait=False)
    found = guest.wait_functions(first.address, second.address)
    third = Card(slots, "port3", wait=False)
    daemon.wait_log(rf"{third.address}.*all 2 PCIe root ports rp1… of vm1 are in use")
    first.pull()  # out of the guest too, which takes part
    now = guest.wait_functions(second.address, third.address)
    assert found.items() & now.items() == {(name, at) for name, at in found.items() if at == second.address}
    daemon.wait_log(rf"{first.address}.*unplugged")
    second.pull()
    again = Card(slots, "port2", wait=False)
    assert again.address == second.address
    late = guest.wait_functions(third.address, again.address)
    assert not {name for name, at in late.items() if at == again.address} & found.keys()
    wait_seen(guest, 4)


def start_again(bench, guests, daemon, groups):
    """The VMs anew, without devices, and that configuration."""
    for guest in guests:
        guest.kill()
    daemon.stop()
    for guest in guests:
        guest.start()
    daemon.configure(configuration(guests, groups))
    mark = daemon.mark()
    daemon.start()
    return mark


def test_f34_an_iommu_group_goes_as_a_whole_or_not_at_all(bench, slots):
    guests = one, two = [bench.guest(name, controller=ports("rp1", "rp2")) for name in ("vm1", "vm2")]
    a, b = functions.shared(slots)
    names = a.interface(), b.interface()
    # One of them alone: the other goes nowhere, but no driver of the host may have it.
    daemon = bench.daemon(configuration(guests, [group("vm1", a)]))
    one.wait_functions(a.address)
    assert a.driver() == b.driver() == "vfio-pci" and a.group() == b.group()
    assert two.functions() == {}
    # When the VM has ended and no rule names it, all of them are the host's again.
    start_again(bench, guests, daemon, [])
    on_host(a, names[0])
    on_host(b, names[1])
    # Not if others are in the group: nothing is touched.
    mark = start_again(bench, guests, daemon, [group("vm1", a, pciIommuSkipIfShared=True)])
    daemon.wait_log(rf"{a.address}.*{b.address} of the same IOMMU group .*pciIommuSkipIfShared", mark)
    on_host(a, names[0])
    # With the others that are in the group.
    mark = start_again(bench, guests, daemon, [group("vm1", a, pciIommuAddAll=True)])
    one.wait_functions(a.address, b.address)
    daemon.wait_log(rf"{b.address}.*: attached to vm1, allowed with {a.address} of its IOMMU group", mark)
    # The rules want to tear it apart.
    mark = start_again(bench, guests, daemon, [group("vm1", a), group("vm2", b)])
    daemon.wait_log(rf"{a.address}.*{b.address} of the same IOMMU group .*belongs to vm2", mark)
    daemon.wait_log(rf"{b.address}.*{a.address} of the same IOMMU group .*belongs to vm1", mark)
    assert one.functions() == two.functions() == {}
    on_host(a, names[0])
    on_host(b, names[1])
    # The host is reached through one of them.
    slots.run(f"ip address add 192.0.2.2/24 dev {names[1]}; ip link set {names[1]} up; ip route add default via 192.0.2.1")
    mark = start_again(bench, guests, daemon, [group("vm1", a)])
    daemon.wait_log(rf"{a.address}.*the host lives on {b.address}, of the same IOMMU group", mark)
    assert one.functions() == {} and a.driver() == b.driver() == "e1000"
    slots.run("ip route del default")  # and at once the interface is gone
    one.wait_functions(a.address)


@pytest.mark.long
def test_f34_the_daemon_killed_between_steps_ends_in_the_same_state(bench, slots):
    guest = bench.guest(controller=ports("rp1", "rp2"))
    card = Card(slots, "port1")
    interface, place = card.interface(), slots.text(f"realpath {card.path}").strip()
    watched = " ".join(f"-P {path}" for path in (f"{place}/driver_override", "/sys/bus/pci/drivers/e1000e/unbind",
                                                 "/sys/bus/pci/drivers_probe"))
    daemon = bench.daemon(configuration([guest], [group("vm1", card)]), start=False)
    kills = 0
    for calls, where, number in [("write", watched, 1), ("write", watched, 2), ("write", watched, 3), ("write", watched, 4),
                                 ("rename", "", 1), ("rename", "", 2), ("rename", "", 3)]:
        mark = daemon.mark()
        daemon.start(f"strace -f -qq -o {PLACE}/trace {where} -e trace={calls} -e inject={calls}:signal=KILL:when={number}")
        wait_for(f"the daemon to die before {calls} {number} or to be done",
                 lambda: not daemon.running() or re.search(": attached to vm1", daemon.log()[mark:]), show=daemon.log)
        kills += not daemon.running()
        daemon.kill()
        mark = daemon.mark()
        daemon.start()
        daemon.wait_log(rf"{card.address}.*: attached to vm1", mark)
        assert list(guest.functions().values()) == [card.address], (number, guest.functions(), daemon.log())
        # The VM ends; what was forgotten on the way would leave the card without its driver.
        start_again(bench, [guest], daemon, [])
        on_host(card, interface)
        daemon.stop()
        slots.run("rm -rf /run/vhotplug/*")
        daemon.configure(configuration([guest], [group("vm1", card)]))
    assert kills >= 5, f"it was killed only {kills} times"


def test_vmm_args_start_a_qemu_that_has_the_card(bench, slots, person):
    guest = bench.guest(kernel=True, start=False, controller=ports("rp1", "rp2"))
    card = Card(slots, "port1")
    interface = card.interface()
    daemon = bench.daemon(configuration([guest], [group("vm1", card)]))
    daemon.wait_log(f"{card.address}.*vm1 is not running")
    words = person.classic("vmm", "args", "--vm", "vm1", "--qemu-bus-prefix", "rp", "--qemu-bus-start-index", "1").split()
    assert any(card.address in word for word in words), words
    assert card.driver() == "vfio-pci"
    guest.controller = guest.controller + words
    guest.start(wait=True)
    wait_seen(guest, 1)
    daemon.wait_log(f"{card.address}.*vm1")
    # What it was started with is in it once, and is known to be.
    shown = wait_for("the daemon to know where it is", lambda: next(
        (device for device in person.sees("list", "--pci") if device.get("address") == card.address and "vm1" in json.dumps(device)), None),
        show=lambda: person.does("list", "--pci"))
    assert list(guest.functions().values()) in ([card.address], []), shown
    assert len(re.findall(SEEN, guest.console())) == 1
    guest.kill()
    daemon.configure(configuration([guest], []))
    daemon.signal("HUP")
    on_host(card, interface)
