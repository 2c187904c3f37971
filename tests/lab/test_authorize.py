# USB authorization: what the host's kernel does with devices that nobody gave to the host.
import re

import pytest
from daemon import PLACE, configuration, mouse_rule
from lab import USB_DEVICES, USBCORE, wait_for

KEYBOARD = {"interfaceClass": 3, "interfaceProtocol": 1}
STORAGE = {"interfaceClass": 8}
MOUSE = mouse_rule()


def authorizing(guests, groups, *host_allow, **more):
    return configuration(guests, groups) | {"usbAuthorization": {"enable": True, "hostAllow": list(host_allow), **more}}


def authorized(lab, place):
    return lab.text(f"cat {USB_DEVICES}/{place}/authorized").strip()


def wait_authorized(lab, place, value):
    wait_for(f"{place} to have authorized {value}", lambda: authorized(lab, place) == value,
             show=lambda: lab.run("dmesg | tail -20", check=False).text)


def drivers(lab, place):
    """Of its interfaces; usbfs is that of a VM."""
    links = lab.run(f"readlink {USB_DEVICES}/{place}/{place}:*/driver", check=False).text.split()
    return sorted({link.rsplit("/", 1)[1] for link in links})


class KernelLog:
    """What the host's kernel says from now on."""

    def __init__(self, lab):
        self.lab = lab
        lab.run("echo the log begins here > /dev/kmsg")

    def text(self):
        return self.lab.text("dmesg").rsplit("the log begins here", 1)[1]

    def drivers(self):
        """Lines of drivers that have got a device; one that was refused an unauthorized interface has not."""
        return [line for line in self.text().splitlines()
                if re.search(r"input:|(usbhid|usb-storage|uas) \d|\bsd ", line) and "is not authorized for usage" not in line]


def closed(daemon, lab):
    """Until the daemon has closed the buses and looked at all there is."""
    wait_for("the buses to be closed", lambda: set(lab.usb_switches()) == {"0"}, show=daemon.log)


def test_f38_a_keyboard_for_a_guest_never_is_the_hosts(bench, host):
    guest = bench.guest(kernel=True)
    daemon = bench.daemon(authorizing([guest], [("vm1", [KEYBOARD])]))
    closed(daemon, host)
    # Its driver is loaded because of it, and must not find it then either.
    # The one that makes input devices of what usbhid finds is there already, so that nothing is in time by chance.
    host.run("modprobe -r usbhid 2>/dev/null; ! [ -d /sys/module/usbhid ] && modprobe hid_generic")
    kernel = KernelLog(host)
    host.plug("keys", "usb-kbd", 3)
    guest.wait_console("Product: QEMU USB Keyboard")
    guest.wait_console(r"input: QEMU QEMU USB Keyboard")
    daemon.wait_log(r"1-3\): authorized for its VM: allowed by usbPassthrough\[0\]\.allow\[0\]")
    assert authorized(host, "1-3") == "1" and drivers(host, "1-3") == ["usbfs"]
    mark = daemon.mark()
    daemon.configure(authorizing([guest], [("vm1", [STORAGE])]))
    daemon.signal("HUP")
    guest.wait_count(0)
    wait_authorized(host, "1-3", "0")
    daemon.wait_log(r"1-3\): deauthorized: it is in no VM; no rule", mark)
    assert not kernel.drivers(), kernel.text()
    assert "usbhid 1-3:1.0: Interface 0 is not authorized" in kernel.text(), "its driver was not even loaded: this proves less than it should"
    assert daemon.log().count("1-3): authorized") == 1 and daemon.log().count("1-3): deauthorized") == 1


def test_f09_f37_hubs_work_and_a_stick_matches_its_interface_at_its_first_plug(bench, host):
    guest = bench.guest()
    daemon = bench.daemon(authorizing([guest], [("vm1", [STORAGE]), ("vm2", [MOUSE])], KEYBOARD)
                          | {"vms": [{"name": name, "type": "qemu", "socket": f"/tmp/vms/{name}.qmp"} for name in ("vm1", "vm2")]})
    closed(daemon, host)
    kernel = KernelLog(host)
    host.plug("disk", "usb-storage", 2)
    guest.wait_count(1)
    assert guest.places() == ["2-2"] and authorized(host, "2-2") == "1"
    assert not host.good("ls /dev/sd*"), "the host has got the stick too"
    assert not kernel.drivers(), kernel.text()
    # A hub is the host's at once, and so is what hostAllow names behind it.
    host.plug("hub", "usb-hub", 6)
    daemon.wait_log(r"1-6\): authorized for the host: hubs always are")
    host.plug("keys", "usb-kbd", "6.1")
    host.wait_driver("1-6.1")
    daemon.wait_log(r"1-6\.1\): authorized for the host: allowed by usbAuthorization\.hostAllow\[0\]")
    # What waits for its VM, and what nobody names, has no driver.
    host.plug("mouse", "usb-mouse", "6.2")
    host.plug("reader", "usb-ccid", 5)
    daemon.wait_log(r"1-6\.2.*vm2 is not running")
    daemon.wait_log(r"1-5.*no rule")
    assert [authorized(host, place) for place in ("1-6.2", "1-5")] == ["0", "0"]
    # And is the VM's as soon as that runs.
    second = bench.guest("vm2")
    second.wait_count(1)
    assert second.places() == ["1-6.2"] and drivers(host, "1-6.2") == []
    second.kill()
    wait_authorized(host, "1-6.2", "0")


def test_f36_killed_stopped_and_started_again_the_bits_stay(bench, host):
    guest = bench.guest()
    host.plug("reader", "usb-ccid", 5)  # it was there before us
    host.wait_usb("1-5")
    config = authorizing([guest], [("vm1", [MOUSE])], KEYBOARD)
    daemon = bench.daemon(config)
    closed(daemon, host)
    host.plug("mouse", "usb-mouse", 3)
    host.plug("keys", "usb-kbd", 4)
    guest.wait_count(1)
    host.wait_driver("1-4")
    for end in daemon.kill, daemon.stop, daemon.kill:
        end()
        assert set(host.usb_switches()) == {"0"}
        kernel, mark = KernelLog(host), daemon.mark()
        daemon.start()
        daemon.wait_log(r"1-3.*: attached to vm1", mark)
        assert [authorized(host, place) for place in ("1-3", "1-4", "1-5")] == ["1", "1", "1"]
        assert "authorized for" not in daemon.log()[mark:] and "deauthorized" not in daemon.log()[mark:]
        host.wait_driver("1-4")
        assert "disconnect" not in kernel.text(), kernel.text()
    # What is plugged while nobody is there waits for the next start; what has left its VM meanwhile is closed by it.
    daemon.kill()
    host.plug("late", "usb-wacom-tablet", 7)
    assert authorized(host, "1-7") == "0"
    guest.kill()
    daemon.start()
    wait_authorized(host, "1-3", "0")
    # Turned off, all is the host's again.
    daemon.configure(configuration([guest], [("vm1", [STORAGE])]))
    daemon.signal("HUP")
    wait_for("the switches to be put back", lambda: set(host.usb_switches()) == {"1", "-1"}, show=daemon.log)
    for place in "1-3", "1-7":
        wait_authorized(host, place, "1")
        host.wait_driver(place)
    host.plug("next", "usb-mouse", 8)
    host.wait_driver("1-8")


def real_path(lab, path):
    return lab.text(f"cd {USB_DEVICES}; echo $(readlink -f $(dirname {path}))/$(basename {path})").strip()


@pytest.mark.long
def test_f36_killed_before_each_step_of_an_authorization(bench, host):
    guest = bench.guest()
    host.run(f"echo 0 > {USB_DEVICES}/usb1/authorized_default")
    host.plug("mouse", "usb-mouse", 3)
    daemon = bench.daemon(authorizing([guest], [("vm1", [MOUSE])]), start=False)
    parent = real_path(host, "1-3/authorized").rsplit("/", 1)[0]
    held = real_path(host, "usb1/interface_authorized_default")
    for path, number in [(real_path(host, "usb1/authorized_default"), 1), (held, 1), (f"{parent}/authorized", 1), (held, 2),
                         (f"{parent}/1-3:1.0/authorized", 1)]:
        host.run(f"echo 1 > {USB_DEVICES}/usb1/authorized_default; echo 0 > {USB_DEVICES}/1-3/authorized; echo -1 > {USBCORE}")
        daemon.forget()
        daemon.start(f"strace -f -qq -o {PLACE}/trace -P {path} -e trace=write -e inject=write:signal=KILL:when={number}")
        wait_for(f"the daemon to die before write {number} to {path}", lambda: not daemon.running(), show=daemon.log)
        daemon.kill()
        mark = daemon.mark()
        daemon.start()
        daemon.wait_log(r"1-3.*: attached to vm1", mark)
        assert guest.places() == ["1-3"] and authorized(host, "1-3") == "1" and drivers(host, "1-3") == [], path
        assert host.text(f"cat {held} {parent}/1-3:1.0/authorized").split() == ["1", "1"], path
        assert set(host.usb_switches()) == {"0"}, path
        daemon.kill()
        for name in guest.devices():
            guest.qmp('{"execute": "device_del", "arguments": {"id": "%s"}}' % name)
        guest.wait_count(0)


def test_f36_f37_what_nothing_names_is_deauthorized_once_and_never_the_last_keyboard(bench, host):
    guest = bench.guest()
    host.run("for d in /sys/bus/serio/devices/*; do printf none > $d/drvctl; done")
    host.plug("keys", "usb-kbd", 4)
    host.plug("mouse", "usb-mouse", 3)
    host.plug("reader", "usb-ccid", 5)
    for place in "1-3", "1-4":
        host.wait_driver(place)
    wait_authorized(host, "1-5", "1")
    daemon = bench.daemon(authorizing([guest], [("vm1", [STORAGE])], deauthorizeUnmatched=True))
    for place in "1-3", "1-5":
        wait_authorized(host, place, "0")
        daemon.wait_log(rf"{place}\): deauthorized: usbAuthorization\.deauthorizeUnmatched; no rule")
    daemon.wait_log(r"1-4\): not deauthorized, though nothing names it: the host would have no keyboard left; allow it with "
                    r'\{"vendorId": "0627", "productId": "0001"\} in usbAuthorization\.hostAllow')
    host.wait_driver("1-4")
    # A person has another opinion, and a restart leaves it at that.
    host.run(f"echo 1 > {USB_DEVICES}/1-3/authorized")
    host.wait_driver("1-3")
    mark = daemon.mark()
    daemon.kill()
    daemon.start()
    daemon.wait_log("1-3.*no rule", mark)
    daemon.stop()
    assert [authorized(host, place) for place in ("1-3", "1-4", "1-5")] == ["1", "1", "0"]
    assert "deauthorized" not in daemon.log()[mark:]


def test_a_bus_that_appears_is_closed_before_its_devices_are_seen(bench, host):
    daemon = bench.daemon(authorizing([], [("vm1", [MOUSE])])
                          | {"vms": [{"name": "vm1", "type": "qemu", "socket": "/tmp/vms/vm1.qmp"}]})
    closed(daemon, host)
    host.plug("mouse", "usb-mouse", 3)
    assert authorized(host, "1-3") == "0"
    host.reset_controller()
    host.wait_usb("1-3")
    assert authorized(host, "1-3") == "0" and set(host.usb_switches()) == {"0"}
    daemon.configure(configuration([], [("vm1", [MOUSE])]) | {"vms": [{"name": "vm1", "type": "qemu", "socket": "/tmp/vms/vm1.qmp"}]})
    daemon.signal("HUP")
    wait_for("the switches to be put back", lambda: set(host.usb_switches()) == {"1", "-1"}, show=daemon.log)
    host.wait_driver("1-3")
