# Input devices that are not USB: on which port they get into the VM, what its kernel sees, and how they leave.
import re

from daemon import mouse_rule
from guest import CONTROLLER
from inputs import Input, ports
from lab import wait_for

KEYS = "AT Translated Set 2 keyboard"  # the lab host's own, on PS/2; the guest has one of that name too


def configuration(guest, evdev, **more):
    return {"evdevPassthrough": evdev, "vms": [{"name": guest.name, "type": "qemu", "socket": guest.socket}], **more}


def named(guest, pattern, **more):
    """The form with a list of groups."""
    return configuration(guest, [{"targetVm": guest.name, "pcieBusPrefix": "ep", "allow": [{"name": pattern}]}], **more)


def press_key(lab):
    lab.monitor.command("send-key", keys=[{"type": "qcode", "data": "b"}])


def wait_event(guest, name, inject):
    """Until an event that INJECT makes on the host arrives in the guest."""
    before = guest.console().count(f"GUEST EVENT {name}")

    def arrived():
        inject()
        return guest.console().count(f"GUEST EVENT {name}") > before
    wait_for(f"an event of {name} in the guest", arrived, pause=1, show=lambda: guest.console()[-3000:])


def test_f28_every_pointer_and_keyboard_reaches_the_guest_and_power_buttons_do_not(bench):
    lab = bench.lab
    guest = bench.guest(kernel=True, controller=ports("rp9", *[f"ep{number}" for number in range(1, 9)]))
    keys = Input(lab, "keyboard", "lab keys")
    daemon = bench.daemon(configuration(guest, {"targetVm": "vm1", "pcieBusPrefix": "ep"}))
    mouse = Input(lab, "mouse", "lab mouse")
    for name in "lab mouse", "lab keys", KEYS:
        guest.wait_console(rf"input: {name} as .*virtio")
        daemon.wait_log(rf"{name} .*: attached to vm1, allowed by evdevPassthrough")
    found = guest.inputs()
    assert sorted(found.values()) == [f"ep{number}" for number in range(1, len(found) + 1)], found
    assert not re.search(r"Power Button as .*virtio", guest.console())
    wait_event(guest, "lab mouse", mouse.inject)
    wait_event(guest, "lab keys", keys.inject)
    wait_event(guest, KEYS, lambda: press_key(lab))
    # Restarted, by force too, it takes over what is there.
    for end in daemon.kill, daemon.stop:
        end()
        mark = daemon.mark()
        daemon.start()
        daemon.wait_log(r"lab mouse .*: attached to vm1", mark)
        daemon.wait_log(r"lab keys .*: attached to vm1", mark)
        assert guest.inputs() == found
    # A vanished device leaves the guest at once, and its port serves the next.
    mouse.remove()
    kept = wait_for("the mouse to leave the VM", lambda: (now := guest.inputs()) != found and now, show=guest.inputs)
    free = set(found.values()) - set(kept.values())
    assert len(kept) == len(found) - 1 and kept.items() < found.items()
    next_mouse = Input(lab, "mouse", "next mouse")
    guest.wait_console("input: next mouse as .*virtio")
    now = guest.inputs()
    assert kept.items() < now.items() and {now[object] for object in now.keys() - kept.keys()} == free
    wait_event(guest, "next mouse", next_mouse.inject)


def test_f49_no_port_free_then_one_is(bench, qemu):
    lab = bench.lab
    guest = bench.guest(kernel=True, qemu=qemu, controller=ports("ep1", "ep2"))
    daemon = bench.daemon(named(guest, "lab .*"))
    one, two = Input(lab, "mouse", "lab one"), Input(lab, "keyboard", "lab two")
    guest.wait_inputs(["ep1", "ep2"])
    guest.wait_console("input: lab one as")
    guest.wait_console("input: lab two as")
    three = Input(lab, "mouse", "lab three")
    daemon.wait_log("lab three .*all 2 PCIe root ports ep1… of vm1 are in use: start QEMU with "
                    "-device pcie-root-port,id=ep3,chassis=3")
    before = guest.wait_inputs(["ep1", "ep2"])
    one.remove()
    guest.wait_console("input: lab three as")
    now = guest.wait_inputs(["ep1", "ep2"])
    assert len(now.keys() & before.keys()) == 1
    wait_event(guest, "lab three", three.inject)
    wait_event(guest, "lab two", two.inject)
    assert len(re.findall("are in use", daemon.log())) == 1, daemon.log()


def test_f29_a_device_pulled_before_the_guest_is_up_leaves_it_when_it_is(bench):
    guest = bench.guest(kernel=True, wait=False, controller=ports("ep1", "ep2"))
    bench.daemon(named(guest, "lab .*"))
    mouse = Input(bench.lab, "mouse", "lab mouse")
    guest.wait_inputs(["ep1"])
    mouse.remove()
    early = "GUEST READY" not in guest.console()
    guest.wait_ready()
    guest.wait_inputs([], "(pulled before it was up)" if early else "(pulled as it came up)")


def test_f49_a_machine_without_pcie_takes_them_on_its_pci_bus(bench, qemu):
    guest = bench.guest(kernel=True, qemu=qemu, machine="pc", controller=[])
    daemon = bench.daemon(named(guest, "lab .*"))
    one, two = Input(bench.lab, "mouse", "lab one"), Input(bench.lab, "keyboard", "lab two")
    guest.wait_console("input: lab one as")
    guest.wait_console("input: lab two as")
    wait_event(guest, "lab one", one.inject)
    before = guest.wait_inputs(["pci.0", "pci.0"])
    one.remove()
    assert guest.wait_inputs(["pci.0"]).items() < before.items()
    wait_event(guest, "lab two", two.inject)
    daemon.wait_log("lab one .*unplugged")


def test_f28_twenty_fast_replugs_end_attached(bench):
    guest = bench.guest(kernel=True, controller=ports("ep1", "ep2"))
    bench.daemon(named(guest, "lab .*"))
    for _ in range(20):
        Input(bench.lab, "mouse", "lab mouse").remove()
    last = Input(bench.lab, "mouse", "lab mouse")
    wait_for("one mouse in the VM, and only one", lambda: len(guest.inputs()) == 1, show=guest.inputs)
    wait_event(guest, "lab mouse", last.inject)
    assert len(guest.inputs()) == 1


def test_f49_an_unprivileged_qemu_is_told_the_right_that_it_lacks(bench, qemu):
    guest = bench.guest(qemu=qemu, nobody=True, controller=ports("ep1"))
    daemon = bench.daemon(named(guest, "lab .*", general={"grantAccess": False}))
    mouse = Input(bench.lab, "mouse", "lab mouse")
    daemon.wait_log(f"QEMU of vm1 runs as user nobody and may not open {mouse.node}: give that user read and write access")
    assert guest.inputs() == {}
    bench.lab.run(f"chmod 0666 {mouse.node}")
    guest.wait_inputs(["ep1"])
    daemon.wait_log("lab mouse .*: attached to vm1")


def test_f49_a_device_that_another_program_has_grabbed(bench, qemu):
    lab = bench.lab
    guest = bench.guest(qemu=qemu, controller=ports("ep1"))
    mouse = Input(lab, "mouse", "lab mouse")
    lab.run(f"python3 -c 'import fcntl, time; f = open(\"{mouse.node}\"); fcntl.ioctl(f, 0x40044590, 1); "
            "print(\"grabbed\", flush=True); time.sleep(9999)' > /tmp/inputs/grab 2>&1 & echo $! > /tmp/inputs/grab.pid; "
            "until grep -q grabbed /tmp/inputs/grab; do sleep 0.2; done")
    daemon = bench.daemon(named(guest, "lab .*"))
    daemon.wait_log(f"{mouse.node} is grabbed by another program")
    assert guest.inputs() == {}
    lab.run("kill -KILL $(cat /tmp/inputs/grab.pid)")
    guest.wait_inputs(["ep1"])


def test_f49_input_nodes_of_usb_devices_are_no_plugs(bench):
    lab = bench.lab
    guest = bench.guest(controller=CONTROLLER + ports(*[f"ep{number}" for number in range(1, 9)]))
    lab.plug("keys", "usb-kbd", 4)
    usb = [{"targetVm": "vm1", "allow": [mouse_rule()]}]
    daemon = bench.daemon(configuration(guest, {"targetVm": "vm1", "pcieBusPrefix": "ep"}, usbPassthrough=usb))
    daemon.wait_log(rf"{KEYS} .*: attached to vm1")
    before = guest.inputs()
    for _ in range(3):  # the host's driver has it for a moment, and gives it back a moment
        lab.plug("mouse", "usb-mouse", 3)
        guest.wait_count(1)
        lab.unplug("mouse")
        guest.wait_count(0)
    Input(lab, "mouse", "lab mouse")
    daemon.wait_log("lab mouse .*: attached to vm1")
    after = guest.inputs()
    assert before.items() < after.items() and len(after) == len(before) + 1
    assert not re.search("QEMU USB (Mouse|Keyboard).*/dev/input", daemon.log())


def test_f17_f49_without_udevd_the_device_itself_says_what_it_is(bench):
    lab = bench.lab
    guest = bench.guest(controller=ports(*[f"ep{number}" for number in range(1, 9)]))
    lab.run("udevadm control --exit; while pidof systemd-udevd > /dev/null; do sleep 0.2; done; mv /run/udev /run/udev.away")
    daemon = bench.daemon(configuration(guest, {"targetVm": "vm1", "pcieBusPrefix": "ep"}))
    daemon.wait_log(rf"{KEYS} .*: attached to vm1")
    Input(lab, "mouse", "lab mouse")
    daemon.wait_log("lab mouse .*: attached to vm1")
    Input(lab, "keyboard", "lab keys")
    daemon.wait_log("lab keys .*: attached to vm1")
    assert not re.search("Power Button.*attached", daemon.log())


def test_f26_f31_a_vm_that_ends_and_comes_again(bench, qemu):
    guest = bench.guest(qemu=qemu, controller=ports("ep1", "ep2"))
    daemon = bench.daemon(named(guest, "lab .*"))
    Input(bench.lab, "mouse", "lab one")
    Input(bench.lab, "keyboard", "lab two")
    guest.wait_inputs(["ep1", "ep2"])
    mark = daemon.mark()
    guest.kill()
    for name in "lab one", "lab two":
        daemon.wait_log(f"{name} .*vm1 is not running", mark)
    guest.start()
    guest.wait_inputs(["ep1", "ep2"])
    guest.kill()
    guest.machine, guest.controller = "pc", []
    guest.start()
    guest.wait_inputs(["pci.0", "pci.0"])


def test_a_crosvm_target_is_said_and_waits(bench):
    guest = bench.guest(start=False)
    config = named(guest, "lab .*")
    config["vms"][0]["type"] = "crosvm"
    daemon = bench.daemon(config)
    Input(bench.lab, "mouse", "lab mouse")
    daemon.wait_log("lab mouse .*vm1 takes input devices only at its start")
    assert len(re.findall("lab mouse .*only at its start", daemon.log())) == 1
