# The daemon under test, in the lab host.
import json
import re

from lab import LIMIT, wait_for

PLACE = "/tmp/daemon"


class Daemon:
    def __init__(self, lab, config, arguments="-a -d", name="vhotplug"):
        self.lab, self.arguments, self.name = lab, arguments, name
        self.program = f"{lab.build}/src/vhotplug"
        self.config_file, self.log_file = f"{PLACE}/{name}.conf", f"{PLACE}/{name}.log"
        self.pid = 0
        self.configure(config)

    def configure(self, config):
        self.lab.write(self.config_file, config if isinstance(config, str) else json.dumps(config, indent=2))

    def start(self, prefix="", environment=""):
        """Starts it; PREFIX: valgrind, strace, …. The log goes on where it was."""
        # The inner shell gives its own number away before it becomes the daemon (or its tracer).
        inner = f"echo $$ > {PLACE}/{self.name}.pid; exec {prefix} {self.program} -c {self.config_file} {self.arguments}"
        self.lab.run(f"mkdir -p {PLACE} /run/vhotplug; rm -f {PLACE}/{self.name}.pid; "
                     f"export RUNTIME_DIRECTORY=/run/vhotplug GCOV_PREFIX=/tmp/gcov {environment}; "
                     f"setsid sh -c '{inner}' >> {self.log_file} 2>&1 < /dev/null & "
                     f"while ! [ -s {PLACE}/{self.name}.pid ]; do sleep 0.1; done")
        self.pid = int(self.lab.text(f"cat {PLACE}/{self.name}.pid"))
        return self

    def running(self):
        return bool(self.pid) and self.lab.good(f"kill -0 {self.pid} 2>/dev/null")

    def signal(self, name):
        self.lab.run(f"kill -{name} {self.pid}")

    def wait_end(self, limit=LIMIT):
        wait_for("the daemon to end", lambda: not self.running(), limit, show=self.log)
        self.pid = 0

    def kill(self):
        """SIGKILL, with whatever it started or traces it."""
        if self.pid:
            # the shell that started it has made a session of its own
            self.lab.run(f"command -v pkill >/dev/null || exit 1; pkill -KILL -s {self.pid}; kill -KILL {self.pid} 2>/dev/null; true")
            self.wait_end()

    def stop(self, limit=600):
        """SIGTERM, and until it has ended."""
        if self.pid:
            self.signal("TERM")
            self.wait_end(limit)

    def raw_log(self):
        return self.lab.run(f"cat {self.log_file} 2>/dev/null", check=False).raw

    def log(self):
        return self.raw_log().decode(errors="backslashreplace")

    def mark(self):
        """A place in the log for SINCE."""
        return len(self.log())

    def wait_log(self, pattern, since=0, limit=LIMIT):
        def look():
            found = re.search(pattern, self.log()[since:], re.M)
            assert found or self.running(), f"the daemon has ended\n{self.log()}"
            return found
        return wait_for(f"the daemon to log {pattern!r}", look, limit, show=lambda: self.log()[-6000:])

    def forget(self):
        """Clears its run-time memory, as a reboot does."""
        self.lab.run("rm -rf /run/vhotplug")


def mouse_rule(**fields):
    return {"interfaceClass": 3, "interfaceProtocol": 2, **fields}


def configuration(guests, groups):
    """GROUPS: (VM's name, allow rules[, deny rules]), …"""
    return {
        "usbPassthrough": [{"targetVm": group[0], "allow": group[1], "deny": group[2] if len(group) > 2 else []}
                           for group in groups],
        "vms": [{"name": guest.name, "type": guest.type, "socket": guest.socket} for guest in guests],
        "general": {"statePath": f"{PLACE}/state", "api": {"unixSocket": f"{PLACE}/api.sock"}},
    }


def access_records(lab):
    """What daemons have written down of the rights that they gave on device nodes."""
    return lab.text("cat /run/vhotplug/access/* 2>/dev/null || true")


def access_taken_back(lab):
    return wait_for("everything to be taken back", lambda: not access_records(lab), show=lambda: access_records(lab))
