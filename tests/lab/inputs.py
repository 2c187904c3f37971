# Input devices of the lab host that are not USB, made with uinput.
from lab import wait_for

PLACE = "/tmp/inputs"


class Input:
    """A mouse or a keyboard; lives until it is removed."""

    def __init__(self, lab, kind, name):
        self.lab, self.name = lab, name
        self.base = f"{PLACE}/{name.replace(' ', '-')}"
        lab.run(f"modprobe uinput; mkdir -p {PLACE}; rm -f {self.base}.*; mkfifo {self.base}.fifo; "
                f"setsid {lab.folder}/uinput {kind} '{name}' 0<> {self.base}.fifo > {self.base}.node 2>&1 & "
                f"echo $! > {self.base}.pid")
        self.node = wait_for(f"the node of {name}", lambda: lab.text(f"cat {self.base}.node").strip())

    def inject(self):
        """A move, or a key press."""
        self.lab.run(f"echo > {self.base}.fifo")

    def remove(self):
        self.lab.run(f"kill -KILL $(cat {self.base}.pid); rm -f {self.base}.pid")
        wait_for(f"{self.name} to leave the lab host",
                 lambda: not self.lab.good(f"grep -qxF '{self.name}' /sys/class/input/input*/name"))


def ports(*names):
    """QEMU's arguments for PCIe root ports of these names."""
    words = []
    for number, name in enumerate(names, 1):
        words += ["-device", f"pcie-root-port,id={name},chassis={number}"]
    return words
