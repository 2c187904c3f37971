# VMs whose QEMU runs as nobody: what they get, and that no right on any node is left to them.
import pytest
from daemon import PLACE, access_records, access_taken_back, mouse_rule
from functions import Card
from guest import CONTROLLER
from inputs import Input, ports
from lab import wait_for

NOBODY = 65534


def configuration(guest, functions=(), **general):
    return {"usbPassthrough": [{"targetVm": guest.name, "allow": [mouse_rule()]}],
            "evdevPassthrough": [{"targetVm": guest.name, "allow": [{"name": "lab .*"}]}],
            "pciPassthrough": [{"targetVm": guest.name, "allow": [{"address": function.address} for function in functions]}]
            if functions else [],
            "vms": [{"name": guest.name, "type": guest.type, "socket": guest.socket}],
            "general": {"statePath": f"{PLACE}/state", "api": {"unixSocket": f"{PLACE}/api.sock"}, **general}}


def rights(lab, node):
    """What the node's access list says, as "user::rw-" and the like; nothing if it is not there."""
    return lab.text(f"getfacl -cpn {node} 2>/dev/null || true").split()


def has_right(lab, node):
    return f"user:{NOBODY}:rw-" in rights(lab, node)


def wait_rights(lab, node, expected):
    wait_for(f"the rights on {node} to be {expected}", lambda: rights(lab, node) == expected,
             show=lambda: f"{rights(lab, node)}\n{access_records(lab)}")


def wait_given(lab, node):
    wait_for(f"the right on {node}", lambda: has_right(lab, node), show=lambda: f"{rights(lab, node)}\n{access_records(lab)}")


def wait_input(guest):
    wait_for("the VM to have the input device", lambda: len(guest.inputs()) == 1, show=guest.inputs)


def nobody_has_nothing(lab):
    """No node at all has an entry for anybody, and nothing is written down."""
    assert lab.text("getfacl -Rspn /dev 2>/dev/null | grep -B3 '^user:[0-9]' || true") == ""
    assert access_records(lab) == ""


def test_f39_f23_a_qemu_of_nobody_gets_usb_input_and_pci_and_has_no_right_afterwards(bench, slots):
    lab = bench.lab
    lab.run("chmod 666 /dev/kvm")
    card, keyboard = Card(slots, "port1"), Input(lab, "keyboard", "lab keys")
    lab.plug("mouse", "usb-mouse", 3)
    guest = bench.guest(kernel=True, nobody=True, controller=[*CONTROLLER, *ports("rp1", "rp2")])
    lab.run(f"prlimit -p {guest.pid()} --memlock=unlimited:unlimited")
    before, usb = rights(lab, keyboard.node), lab.text("echo /dev/bus/usb/001/$(printf %03d $(cat /sys/bus/usb/devices/1-3/devnum))")
    usb_before = rights(lab, usb)
    daemon = bench.daemon(configuration(guest, [card]))
    daemon.wait_log("lab keys .*: attached to vm1")
    daemon.wait_log("1-3.*: attached to vm1")
    daemon.wait_log(f"{card.address}.*: attached to vm1")
    wait_input(guest)
    guest.wait_console("input: lab keys as .*virtio")
    guest.wait_functions(card.address)
    node = f"/dev/vfio/{card.group()}"
    assert has_right(lab, keyboard.node) and has_right(lab, node)
    assert rights(lab, usb) == usb_before  # it has a descriptor, and needs no right on the node
    # No longer allowed, each leaves the guest, and takes the right with it.
    daemon.configure(configuration(guest) | {"usbPassthrough": [], "evdevPassthrough": []})
    daemon.signal("HUP")
    guest.wait_inputs([])
    guest.wait_functions()
    wait_rights(lab, keyboard.node, before)
    card.wait_driver("e1000e")
    access_taken_back(lab)
    nobody_has_nothing(lab)


def test_f39_rights_end_with_the_vm_and_come_with_each_plug(bench):
    lab = bench.lab
    guest = bench.guest(nobody=True, controller=ports("rp1", "rp2"))
    bench.daemon(configuration(guest))
    keyboard = Input(lab, "keyboard", "lab keys")
    wait_input(guest)
    assert has_right(lab, keyboard.node)
    # The VM has no OS that would let go of the first one, but there is a port for the second.
    keyboard.remove()
    access_taken_back(lab)
    keyboard = Input(lab, "keyboard", "lab keys")
    wait_given(lab, keyboard.node)
    guest.kill()
    access_taken_back(lab)
    nobody_has_nothing(lab)
    guest.start()
    wait_input(guest)
    assert has_right(lab, keyboard.node)


def test_f39_a_killed_daemon_leaves_no_right_to_a_vm_that_has_ended(bench):
    lab = bench.lab
    guest = bench.guest(nobody=True, controller=ports("rp1", "rp2"))
    keyboard = Input(lab, "keyboard", "lab keys")
    before = rights(lab, keyboard.node)
    daemon = bench.daemon(configuration(guest))
    wait_input(guest)
    # What is in a VM that still runs stays as it is.
    daemon.kill()
    mark = daemon.mark()
    daemon.start()
    daemon.wait_log("lab keys .*: attached to vm1", mark)
    assert has_right(lab, keyboard.node)
    # The VM ends while nobody looks.
    daemon.kill()
    guest.kill()
    assert has_right(lab, keyboard.node)
    daemon.start()
    wait_rights(lab, keyboard.node, before)
    access_taken_back(lab)
    nobody_has_nothing(lab)


@pytest.mark.parametrize("when", ["before", "after"])
def test_f39_killed_while_the_right_is_given_nothing_is_left(bench, when):
    lab = bench.lab
    guest = bench.guest(nobody=True, controller=ports("rp1", "rp2"))
    keyboard = Input(lab, "keyboard", "lab keys")
    before = rights(lab, keyboard.node)
    daemon = bench.daemon(configuration(guest), start=False)
    if when == "before":  # it is written down, and not done yet
        daemon.start(f"strace -f -qq -o {PLACE}/trace -e trace=setxattr -e inject=setxattr:signal=KILL:when=1")
        wait_for("the daemon to die", lambda: not daemon.running(), show=daemon.log)
        assert access_records(lab) and not has_right(lab, keyboard.node)
    else:
        daemon.start()
        lab.run(f"while ! getfacl -cpn {keyboard.node} | grep -q ^user:{NOBODY}:rw-; do :; done; kill -KILL {daemon.pid}")
    guest.kill()
    daemon.kill()
    daemon.start()
    wait_rights(lab, keyboard.node, before)
    access_taken_back(lab)
    nobody_has_nothing(lab)


def test_f39_switched_off_it_is_said_what_the_vm_lacks(bench):
    lab = bench.lab
    guest = bench.guest(nobody=True, controller=ports("rp1", "rp2"))
    keyboard = Input(lab, "keyboard", "lab keys")
    before = rights(lab, keyboard.node)
    daemon = bench.daemon(configuration(guest, grantAccess=False))
    daemon.wait_log(f"lab keys .*waits: QEMU of vm1 runs as user nobody and may not open {keyboard.node}")
    assert rights(lab, keyboard.node) == before
    # Whoever has the right by other means needs none from us.
    lab.run(f"chmod 666 {keyboard.node}")
    daemon.configure(configuration(guest, grantAccess=True))
    daemon.signal("HUP")
    before = rights(lab, keyboard.node)
    guest.restart()
    wait_input(guest)
    assert rights(lab, keyboard.node) == before
    nobody_has_nothing(lab)
