# PCI functions of the lab host: network cards.
import re

from lab import CARD_PORTS, wait_for


def addresses(lab, device):
    """Addresses of the functions with that id ("8086:10d3"), in order."""
    vendor, product = device.split(":")
    shown = lab.text("cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/vendor) $(cat $d/device); done")
    return sorted(re.findall(rf"^(\S+) 0x{vendor} 0x{product}$", shown, re.M))


class Function:
    """One of them, by its address."""

    def __init__(self, lab, address):
        self.lab, self.address, self.path = lab, address, f"/sys/bus/pci/devices/{address}"

    def driver(self):
        return self.lab.text(f"basename $(readlink {self.path}/driver) 2>/dev/null || true").strip()

    def wait_driver(self, name):
        wait_for(f"{self.address} to be on {name or 'no driver'}", lambda: self.driver() == name,
                 show=lambda: f"it is on {self.driver()!r}\n" + self.lab.text("dmesg | tail -20"))

    def group(self):
        return self.lab.text(f"basename $(readlink {self.path}/iommu_group)").strip()

    def interface(self):
        """The name of its network interface on the host, "" if it has none."""
        return self.lab.text(f"ls {self.path}/net 2>/dev/null || true").strip()

    def override(self):
        return self.lab.text(f"cat {self.path}/driver_override").strip()


class Card(Function):
    """A network card that is plugged into one of the free ports, and pulled."""

    def __init__(self, lab, port, wait=True):
        before = addresses(lab, "8086:10d3")
        self.id = f"card-{port}"
        lab.monitor.command("device_add", driver="e1000e", id=self.id, bus=port)
        new = wait_for(f"a card in {port}", lambda: set(addresses(lab, "8086:10d3")) - set(before),
                       show=lambda: lab.text("dmesg | tail -20"))
        super().__init__(lab, new.pop())
        if wait:
            self.wait_driver("e1000e")

    def pull(self):
        self.lab.monitor.command("device_del", id=self.id)
        wait_for(f"{self.address} to leave the lab host", lambda: self.id not in self.lab.objects() and
                 not self.lab.good(f"[ -e {self.path} ]"), show=lambda: self.lab.text("dmesg | tail -20"))


def shared(lab):
    return [Function(lab, address) for address in addresses(lab, "8086:100e")]


def restore(lab):
    """As the lab host was at its boot."""
    for port in CARD_PORTS:
        if f"card-{port}" in lab.objects():
            lab.monitor.command("device_del", id=f"card-{port}")
    wait_for("the cards to leave", lambda: not [name for name in lab.objects() if name.startswith("card-")])
    wait_for("the lab host to see it", lambda: not addresses(lab, "8086:10d3"))
    for function in shared(lab):
        if function.driver() != "e1000":
            lab.run(f"echo > {function.path}/driver_override; echo {function.address} > {function.path}/driver/unbind; "
                    f"echo {function.address} > /sys/bus/pci/drivers/e1000/bind", check=False)
        function.wait_driver("e1000")
