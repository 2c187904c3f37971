# A person at the lab host, who types commands and has an applet that answers for them.
import json
import pathlib
import shlex

from daemon import PLACE
from lab import wait_for

SOCKET, STATE = f"{PLACE}/api.sock", f"{PLACE}/state"
CHOICE, EVENTS = f"{PLACE}/choice", f"{PLACE}/events"
CHOOSER = pathlib.Path(__file__).resolve().with_name("chooser.py")


class Person:
    """Types commands at the host."""

    def __init__(self, bench):
        self.lab = bench.lab
        self.program = f"{self.lab.build}/src/ctl/vhotplugctl"

    def command(self, *words):
        return " ".join([self.program, "-s", SOCKET, *map(shlex.quote, words)])

    def does(self, *words):
        """Prints what it prints."""
        return self.lab.run(self.command(*words) + " 2>&1").text

    def fails(self, *words):
        done = self.lab.run(f"{self.command(*words)} 2>&1; echo status $?").text
        assert not done.rstrip().endswith("status 0"), done
        return done

    def sees(self, *words):
        return json.loads(self.does(*words, "--json"))

    def device(self, place):
        return next(device for device in self.sees("list") if device.get("port_path") == place)

    def classic(self, *words):
        """The Python client's name and command lines."""
        return self.lab.run(f"(exec -a vhotplugcli {self.program} -u {SOCKET} {' '.join(words)}) 2>&1").text

    def listens(self, choice=""):
        """Starts the applet; answers with CHOICE."""
        self.chooses(choice)
        self.lab.write(f"{PLACE}/chooser.py", CHOOSER.read_text())  # the lab sees no source tree that lies below /tmp
        self.lab.run(f": > {EVENTS}; setsid python3 {PLACE}/chooser.py {SOCKET} {CHOICE} {EVENTS} "
                     f"> {PLACE}/chooser.log 2>&1 < /dev/null &")
        wait_for("the applet to listen", lambda: "result" in self.lab.text(f"cat {EVENTS}"),
                 show=lambda: self.lab.text(f"cat {PLACE}/chooser.log"))

    def chooses(self, vm):
        self.lab.run(f"echo {vm} > {CHOICE}")

    def heard(self, event):
        lines = [json.loads(line) for line in self.lab.text(f"cat {EVENTS}").splitlines()]
        return [line for line in lines if line.get("event") == event]

    def wait_heard(self, event, count=1):
        return wait_for(f"{count} times {event}", lambda: len(found := self.heard(event)) >= count and found,
                        show=lambda: self.lab.text(f"cat {EVENTS}"))
