"""A host with devices and VMs that do as they are told, behind the real API: runs the program api_world."""
import json
import pathlib
import select
import shutil
import socket
import subprocess
import tempfile
import time

import client

RULES = {
    "usbPassthrough": [
        {"targetVm": "vm1", "description": "Keyboards and mice", "tag": "input",
         "allow": [{"interfaceClass": 3, "description": "HID"}],
         "deny": [{"vendorId": "1050", "description": "security keys"}]},
        {"allowedVms": ["vm1", "vm2"], "tag": "camera", "allow": [{"interfaceClass": 14, "description": "cameras"}]},
        {"targetVm": "vm2", "skipOnSuspend": True, "allow": [{"interfaceClass": 224, "description": "radios"}]},
    ],
    "evdevPassthrough": {"pcieBusPrefix": "ep", "targetVm": "vm1"},
    "pciPassthrough": [
        {"targetVm": "vm1", "description": "Wireless", "tag": "net", "allow": [{"deviceClass": 2, "deviceSubclass": 128}]},
        {"targetVm": "vm2", "description": "Graphics", "allow": [{"deviceClass": 3}]},
    ],
    "vms": [{"name": "vm1", "type": "qemu", "socket": "/run/vm1.qmp"},
            {"name": "vm2", "type": "crosvm", "socket": "/run/vm2.sock"}],
}

GUESTS = [{"cid": 5, "vms": ["vm1"]}, {"cid": 6, "vms": ["vm2"]}, {"cid": 7, "permissions": ["list"]},
          {"cid": 8, "permissions": ["notify"]}, {"cid": 9, "permissions": ["control"]}]


def usb(place, vid="0627", pid="0001", interfaces=":030102:", number=4, **members):
    """A USB device in the place, "1-2.3"."""
    bus = int(place.split("-")[0])
    return {"device_node": f"/dev/bus/usb/{bus:03}/{number:03}", "vid": vid, "pid": pid, "vendor_name": "QEMU",
            "product_name": "USB Mouse", "interfaces": interfaces, "device_class": 0, "device_subclass": 0,
            "device_protocol": 0, "busnum": bus, "devnum": number, "sys_name": place, "serial": None,
            "id_path": f"pci-0000:00:14.0-usb-0:{place.split('-')[1]}", **members}


def pci(place, vid, did, **members):
    """A PCI function; the place is without its domain."""
    return {"kind": "pci", "address": f"0000:{place}", "vid": vid, "did": did, **members}


MOUSE = usb("1-3", number=5, serial="42", speed="full", removable="removable")
CAMERA = usb("1-2.3", "046d", "0825", ":0e0100:0e0200:010100:", 4, vendor_name="Logitech, Inc.",
             product_name="Webcam C270", serial="2B8C2D20", speed="high", device_class=239, device_subclass=2,
             device_protocol=1)
KEY = usb("1-4", "1050", "0407", ":030101:0b0000:", 6, vendor_name="Yubico", product_name="YubiKey")
RADIO = usb("2-1", "8087", "0a2b", ":e00101:", 2, vendor_name="Intel Corp.", product_name="Bluetooth interface")
WIFI = pci("00:14.3", "8086", "a0f0", pci_class=2, pci_subclass=128, vendor_name="Intel Corporation",
           device_name="Wi-Fi 6 AX201", iommu_group=11)
SOUND = pci("00:1f.3", "8086", "a0c8", pci_class=4, pci_subclass=3, vendor_name="Intel Corporation",
            device_name="Smart Sound", iommu_group=12)
GRAPHICS = pci("01:00.0", "10de", "1f91", pci_class=3, vendor_name="NVIDIA Corporation",
               device_name="GeForce GTX 1650 Mobile", iommu_group=13)
HUB = usb("1-2", "05e3", "0608", ":090000:", 3, vendor_name="Genesys Logic, Inc.", product_name="Hub", device_class=9)
KEYBOARD = {"kind": "evdev", "device_node": "/dev/input/event5", "name": "AT keyboard", "vid": "0001", "pid": "0001",
            "properties": ["ID_INPUT=1", "ID_INPUT_KEYBOARD=1"]}


class World:
    def __init__(self, program, place, rules=None, **api):
        self.place, self.address, self.file = place, place / "api.sock", place / "vhotplug.conf"
        self.api = {"unixSocket": str(self.address), "transports": ["unix", "vsock"], "allowedCids": GUESTS,
                    "selectTimeout": "ask", **api}
        self.configure(rules)
        self.error = open(place / "log", "a+", encoding="utf-8")
        self.process = subprocess.Popen([str(program), str(self.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.error, text=True)
        self.clients = []
        self.answer()

    def configure(self, rules=None, text=None):
        """Writes the configuration; nobody reads it yet."""
        rules = RULES if rules is None else rules
        general = {"statePath": str(self.place / "state"), "api": self.api}
        self.file.write_text(json.dumps({**rules, "general": general}) if text is None else text)

    def answer(self):
        ready = select.select([self.process.stdout], [], [], client.PATIENCE)[0]
        line = self.process.stdout.readline() if ready else ""
        self.error.seek(0)
        assert line, f"the world has ended, or hangs: {self.error.read()}"
        return json.loads(line)

    def do(self, command, **members):
        """Returns how many attaches and detaches VMs have been asked for so far."""
        self.process.stdin.write(json.dumps({"do": command, **members}) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.preparing = answer["preparing"]  # PCI functions that the host is asked to make ready
        return answer["operations"]

    def plug(self, device, **members):
        return self.do("plug", device=device, **members)

    def pull(self, device):
        return self.do("pull", key=f"pci:{device['address']}" if "address" in device else f"usb:{device['sys_name']}")

    def ready(self, *vms):
        """The first scan is over, and these VMs answer; the others are down."""
        self.do("scanned")
        for number, vm in enumerate(("vm1", "vm2")):
            self.do(*(("up",) if vm in vms else ("down",)), vm=vm, **({"process": 100 + number} if vm in vms else {}))

    def operations(self):
        return self.do("nothing")

    def wait_operations(self, count):
        end = time.monotonic() + client.PATIENCE
        while self.operations() < count:
            assert time.monotonic() < end, f"no {count}. attach or detach"
            time.sleep(0.01)

    def connect(self):
        self.clients.append(client.Client(self.address))
        return self.clients[-1]

    def guest(self, cid):
        """A client that comes from the VM of that CID."""
        path = self.place / f"guest{len(self.clients)}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            self.do("guest", cid=cid, path=str(path))
            made = client.Client.__new__(client.Client)
            made.socket, _ = listener.accept()
        made.socket.settimeout(client.PATIENCE)
        made.buffer, made.events = b"", []
        self.clients.append(made)
        return made

    def listener(self, cid=None):
        made = self.connect() if cid is None else self.guest(cid)
        assert made.request("enable_notifications") == {"result": "ok"}
        return made

    def log(self, about):
        """What was logged of that."""
        self.error.seek(0)
        return [line for line in self.error.read().splitlines() if about in line]

    def close(self):
        for one in self.clients:
            one.close()
        self.process.stdin.close()
        status = self.process.wait(client.PATIENCE)
        self.process.stdout.close()
        self.error.seek(0)
        log = self.error.read()
        self.error.close()
        assert status == 0, log


def make(build, directory=None, **arguments):
    """A world in a directory of its own, and what ends it."""
    place = pathlib.Path(directory or tempfile.mkdtemp(prefix="vhw-", dir="/tmp"))
    made = World(build / "tests/api/api_world", place, **arguments)

    def end():
        made.close()
        shutil.rmtree(place, ignore_errors=True)
    return made, end


def events(listener):
    """All events that have come to a listener, as short words: the answer to a request shows that they have."""
    assert listener.request("pci_list")["result"] == "ok"
    found, listener.events = listener.events, []
    return [short(event) for event in found]


def short(event):
    device = event.get("usb_device") or event.get("pci_device", {})
    parts = [event["event"], device.get("sys_name") or device.get("address"), event.get("vm"), event.get("error")]
    return " ".join(part for part in parts if part)


def states(listed):
    return {device["sys_name"]: device["state"] for device in listed}


def has_nothing(world, one):
    """Nothing has come for it by now."""
    other = world.connect()
    for _ in range(3):  # after the second of these, all that was asked before has been served and looked at
        assert other.request("pci_list")["result"] == "ok"
    one.socket.setblocking(False)
    try:
        return one.socket.recv(1) and False
    except BlockingIOError:
        return True
    finally:
        one.socket.settimeout(client.PATIENCE)
