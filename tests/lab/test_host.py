# The host's side: its disks, its controllers, its udev, and what devices say of themselves.
import re

import gadget
from daemon import configuration, mouse_rule
from lab import wait_for

ANY_MOUSE = [mouse_rule()]
STORAGE = {"interfaceClass": 8}


def test_f35_a_mounted_disk_is_refused_and_goes_in_once_unmounted(bench):
    lab, guest = bench.lab, bench.guest()
    lab.plug("disk", "usb-storage", 2)
    wait_for("the disk's node", lambda: lab.good("[ -b /dev/sda ]"))
    lab.run("modprobe ext4; mke2fs -q -F -t ext4 /dev/sda && mkdir -p /mnt/lab && mount /dev/sda /mnt/lab", 600)
    daemon = bench.daemon(configuration([guest], [("vm1", [STORAGE]), ("vm1", ANY_MOUSE)]))
    daemon.wait_log(r"2-2.*/mnt/lab")
    lab.plug("mouse", "usb-mouse", 3)
    guest.wait_count(1)
    assert guest.places() == ["1-3"]
    lab.run("echo still here > /mnt/lab/file && sync && umount /mnt/lab")
    guest.wait_count(2)
    assert guest.places() == ["1-3", "2-2"]
    assert not lab.good("[ -b /dev/sda ]")


def test_f35_swap_and_loop_files_protect_their_disk_too(bench):
    lab, guest = bench.lab, bench.guest()
    lab.plug("swap", "usb-storage", 1)
    wait_for("the first disk's node", lambda: lab.good("[ -b /dev/sda ]"))
    lab.run("mkswap /dev/sda && swapon /dev/sda")
    try:
        daemon = bench.daemon(configuration([guest], [("vm1", [STORAGE]), ("vm1", ANY_MOUSE)]))
        daemon.wait_log(r"2-1.*swap")
        lab.plug("mouse", "usb-mouse", 3)
        guest.wait_count(1)
        assert guest.places() == ["1-3"]
    finally:
        lab.run("swapoff -a")


def test_f17_without_udevd_it_listens_to_the_kernel(bench):
    lab, guest = bench.lab, bench.guest()
    lab.run("udevadm control --exit; while pidof systemd-udevd > /dev/null; do sleep 0.2; done; mv /run/udev /run/udev.away")
    lab.plug("early", "usb-mouse", 3, wait=False)
    wait_for("the kernel to see it", lambda: lab.good("[ -e /sys/bus/usb/devices/1-3/1-3:1.0/driver ]"))
    daemon = bench.daemon(configuration([guest], [("vm1", [{"productName": "QEMU USB Mouse"}])]))
    guest.wait_count(1)
    lab.plug("late", "usb-mouse", 4, wait=False)
    guest.wait_count(2)
    assert guest.places() == ["1-3", "1-4"]
    lab.unplug("early")
    guest.wait_count(1)
    daemon.wait_log("QEMU USB Mouse.*1-3.*unplugged")


def test_f18_an_overflow_of_the_event_buffer_loses_nothing(bench):
    lab, guest = bench.lab, bench.guest()
    lab.plug("goes", "usb-mouse", 3)
    # Without this right the buffer cannot be made large.
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]), start=False)
    daemon.start("setpriv --bounding-set=-net_admin")
    guest.wait_count(1)
    daemon.wait_log(": attached to vm1")
    mark = daemon.mark()
    daemon.signal("STOP")
    lab.run("for i in $(seq 1500); do echo change > /sys/bus/usb/devices/usb2/uevent; done; udevadm settle --timeout=500", 600)
    lab.unplug("goes")
    lab.wait_usb("1-3", False)
    lab.plug("comes", "usb-mouse", 4)
    lab.run("udevadm settle --timeout=500", 600)
    daemon.signal("CONT")
    wait_for("the VM to have what is there", lambda: guest.places() == ["1-4"] and len(guest.devices()) == 1,
             show=lambda: f"{guest.devices()}\n{daemon.log()[-3000:]}")
    warnings = re.findall(r".*(?:lost|overflow|overran|too many events).*", daemon.log()[mark:], re.I)
    assert warnings, daemon.log()[mark:][-3000:]


def test_f07_f27_a_reset_of_the_host_controller(bench):
    lab, guest = bench.lab, bench.guest()
    bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    lab.plug("one", "usb-mouse", 3)
    lab.plug("two", "usb-mouse", 4)
    before = guest.wait_count(2)
    lab.reset_controller()
    lab.wait_usb("1-3")
    lab.wait_usb("1-4")
    wait_for("both to be in the VM anew", lambda: guest.places() == ["1-3", "1-4"] and not set(before) & set(guest.devices()),
             show=lambda: f"{guest.devices()}\n{guest.usb()}")
    lab.wait_driver("1-3", False)
    lab.wait_driver("1-4", False)


def test_f06_an_id_path_rule_survives_other_bus_numbers(bench):
    lab, guest = bench.lab, bench.guest()
    lab.plug("mouse", "usb-mouse", 3)
    lab.plug("not", "usb-mouse", 4)
    path = lab.text("udevadm info -q property --property=ID_PATH --value /sys/bus/usb/devices/1-3").strip()
    daemon = bench.daemon(configuration([guest], [("vm1", [{"idPath": path}])]))
    guest.wait_count(1)
    assert guest.places() == ["1-3"]
    lab.reset_controller(meanwhile="modprobe dummy_hcd num=1")
    lab.wait_usb("2-3")
    wait_for("it to be in the VM under its new name", lambda: guest.places() == ["2-3"] and len(guest.devices()) == 1,
             show=lambda: f"{guest.devices()}\n{daemon.log()[-3000:]}")


def test_f47_hostile_strings_reach_the_log_only_escaped(bench):
    lab, guest = bench.lab, bench.guest()
    gadget.prepare(lab, 3)
    daemon = bench.daemon(configuration([guest], [("vm1", ANY_MOUSE)]))
    strings = [
        {"product": b"one\nERROR forged\r\n", "manufacturer": b"\x1b[2J\x1b]0;title\x07", "serialnumber": b"s\nt"},
        {"product": b"\xff\xfe\xc3(", "manufacturer": b"\xe2\x80\xae\xc2\x9b31m", "serialnumber": b"%s%n%p"},
        {"product": b"Evil, ID: d1", "manufacturer": b"x" * 120, "serialnumber": b"\"}\\"},
    ]
    for number, wrong in enumerate(strings):
        gadget.Gadget(lab, f"g{number}", strings=wrong, udc=number).plug()
    guest.wait_count(3)
    wait_for("the log to say so", lambda: len(re.findall(": attached to vm1", daemon.log())) >= 3, show=daemon.log)
    raw = daemon.raw_log()
    text = raw.decode()  # valid UTF-8
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text), raw
    assert not re.search(r"^ERROR forged", text, re.M), raw
    assert "Evil" in text and "one" in text
