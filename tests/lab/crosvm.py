# The fake crosvm as a VM in the lab host, beside the QEMU guests: it takes real USB device nodes only.
import json
import pathlib

from guest import PLACE
from lab import wait_for

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "crosvm" / "fake_crosvm.py"


class Crosvm:
    """Ports and a control socket without an OS behind them. OPTIONS: those of the fake."""
    type, kernel = "crosvm", False

    def __init__(self, lab, name, *options):
        self.lab, self.name, self.options = lab, name, options
        self.base = f"{PLACE}/{name}"
        self.socket, self.pidfile = f"{self.base}.sock", f"{self.base}.pid"

    def start(self, *options):
        """Starts it; OPTIONS: for this once, such as --halt."""
        program = f"{PLACE}/fake_crosvm.py"
        self.lab.write(program, SOURCE.read_text())  # as text: the source may lie under /tmp, which is another one there
        words = " ".join([self.socket, "--usb-nodes", *self.options, *options])
        # Of the orders it holds both ends itself, so that they never end.
        self.lab.run(f"cd {PLACE}; rm -f {self.name}.{{orders,replies,errors}}; mkfifo {self.name}.orders; "
                     f"setsid /usr/bin/python3 -u {program} {words} "
                     f"0<> {self.base}.orders > {self.base}.replies 2> {self.base}.errors & echo $! > {self.pidfile}")
        wait_for(f"{self.name} to be up", lambda: self.lab.good(f"grep -q up {self.base}.replies"), show=self.console)
        return self

    def pid(self):
        return self.lab.text(f"cat {self.pidfile} 2>/dev/null || true").strip()

    def running(self):
        return self.lab.good(f"kill -0 $(cat {self.pidfile} 2>/dev/null) 2>/dev/null")

    def kill(self):
        """SIGKILL: its socket's file stays behind, and what it has seen is lost."""
        pid = self.pid()
        if pid:
            self.lab.run(f"kill -KILL {pid} 2>/dev/null; true")
            wait_for(f"{self.name} to end", lambda: not self.lab.good(f"kill -0 {pid} 2>/dev/null"))
        self.lab.run(f"rm -f {self.pidfile}")

    def order(self, words):
        """The fake's answer to one of its orders."""
        replies = f"{self.base}.replies"
        return json.loads(self.lab.text(
            f"before=$(wc -l < {replies}); echo '{words}' 1<> {self.base}.orders; "
            f"while [ $(wc -l < {replies}) = $before ]; do kill -0 $(cat {self.pidfile}) || exit; sleep 0.1; done; "
            f"tail -n +$((before + 1)) {replies}"))

    def console(self):
        return self.lab.run(f"tail -n 30 {self.base}.errors {self.base}.replies; ls -l /proc/$(cat {self.pidfile})/fd",
                            check=False).text

    # --- what it has

    def ports(self):
        """{1: "1-4"}: the host's place of the device on each port. Device node, vendor and product must be those that
        the host's kernel has there; what is not there is "gone"."""
        shown = self.lab.text("cd /sys/bus/usb/devices; for d in *; do [ -e $d/idVendor ] && "
                              "echo $d $(cat $d/dev $d/idVendor $d/idProduct 2>/dev/null); done; true")
        # place, device number, vendor, product; one that is just leaving has fewer
        lines = [line.split() for line in shown.splitlines()]
        places = {f"{words[1]} {words[2]}:{words[3]}": words[0] for words in lines if len(words) == 4}
        names = self.order("ports")
        return {port: places.get(f"{node} {names.get(str(port))}", f"gone {node}") for port, node in self.nodes().items()}

    def nodes(self):
        """{1: "189:5"}: the number of the device node on each port, which no other plug of the device has."""
        return {int(port): node for port, node in self.order("nodes").items()}

    def wait_ports(self, ports, why=""):
        """Until it has just these; their node numbers."""
        wait_for(f"{self.name} to have {ports} {why}", lambda: self.ports() == ports,
                 show=lambda: f"it has {self.ports()} of {self.nodes()}\n{self.order('log')}")
        return self.nodes()

    def attaches(self):
        """How many were asked of this process, in vain or not."""
        return [request["kind"] for request in self.order("log")].count("attach")

    def check(self, *daemons):
        """It has seen nothing that a client must never do, and nobody keeps a device open but it, each once."""
        assert self.order("check") == [], self.order("log")
        assert len(nodes_held(self.lab, self.pid())) == len(self.order("ports"))
        for daemon in daemons:
            wait_for("the daemon to have closed every device", lambda: not nodes_held(self.lab, daemon.pid),
                     show=lambda: nodes_held(self.lab, daemon.pid))


def nodes_held(lab, pid):
    """The USB device nodes that a process has open, of devices that are gone too."""
    shown = lab.text(f"ls -l /proc/{pid}/fd 2>/dev/null; true")
    return [line.split(" -> ")[1] for line in shown.splitlines() if " -> /dev/bus/usb/" in line]
