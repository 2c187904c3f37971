# ./dev demo: the whole thing in two minutes, with a real kernel, a real guest and a mouse that is really plugged.
import json
import re
import sys
import threading
import time

from daemon import Daemon, configuration, mouse_rule
from guest import Guest
from lab import Lab, LabError, wait_for


class Story:
    """Tells steps as they happen and sums them up at the end."""

    def __init__(self):
        self.began, self.steps, self.tty = time.monotonic(), [], sys.stdout.isatty()

    def say(self, text=""):
        print(text, flush=True)

    def show(self, text, prefix="    | "):
        for line in text.strip().splitlines():
            self.say(prefix + line)

    def step(self, title, action, detail=""):
        """Does ACTION, which returns what to show; a clock runs meanwhile."""
        self.say(f"\n[{time.monotonic() - self.began:5.1f} s] {title}")
        if detail:
            self.show(detail, "    ")
        start, done = time.monotonic(), threading.Event()
        clock = threading.Thread(target=self.clock, args=(start, done), daemon=True)
        clock.start()
        try:
            shown = action()
        finally:
            done.set()
            clock.join()
        took = time.monotonic() - start
        self.show(shown or "")
        self.say(f"    done in {took:.1f} s")
        self.steps.append((title, took))

    def clock(self, start, done):
        """On a terminal a running clock, elsewhere a line every ten seconds."""
        while not done.wait(0.5 if self.tty else 10):
            text = f"    … {time.monotonic() - start:.0f} s"
            print(f"\r{text}" if self.tty else text, end="" if self.tty else "\n", flush=True)
        if self.tty:
            print("\r\033[K", end="", flush=True)

    def table(self):
        width = max(len(title) for title, _ in self.steps)
        self.say(f"\n{'step':<{width}}  seconds\n{'-' * width}  -------")
        for title, took in self.steps:
            self.say(f"{title:<{width}}  {took:7.1f}")
        self.say(f"{'all together':<{width}}  {time.monotonic() - self.began:7.1f}")
        self.say("\nEverything ran in an emulated machine: the same takes milliseconds on a real one.")


def guest_lines(guest, since, pattern):
    """What the guest's kernel said of the matter."""
    found = [line for line in guest.console()[since:].splitlines() if re.search(pattern, line)]
    return "\n".join(f"guest kernel: {line}" for line in found[-4:])


def daemon_lines(daemon, since, pattern):
    found = [line for line in daemon.log()[since:].splitlines() if re.search(pattern, line)]
    return "\n".join(f"vhotplug: {line}" for line in found[-4:])


class Demo:
    def __init__(self, build):
        self.story = Story()
        self.lab = Lab(build, progress=lambda text: self.story.say(f"    {text}"))
        self.guest = Guest(self.lab, "vm1", kernel=True)
        self.daemon = None

    def host(self):
        self.lab.boot()
        return self.lab.text("uname -sr; qemu-system-x86_64 --version | head -1; udevadm --version | sed 's/^/udev /'")

    def guest_up(self):
        self.guest.start(wait=True)
        return guest_lines(self.guest, 0, "GUEST READY") or "guest kernel: up"

    def daemon_up(self):
        self.daemon = Daemon(self.lab, self.config(), "-a").start()
        self.daemon.wait_log("vm1 answers")
        return daemon_lines(self.daemon, 0, ".")

    def config(self):
        return configuration([self.guest], [("vm1", [mouse_rule(description="mice belong to vm1")])])

    def attached(self, action):
        """Does ACTION and waits until VM, daemon and the guest's kernel all have the mouse."""
        console, log = len(self.guest.console()), self.daemon.mark()
        if action():
            console = 0  # a new guest, a new console
        self.guest.wait_count(1)
        self.daemon.wait_log("attached to vm1", log)
        self.guest.wait_console("Product: QEMU USB Mouse", console)
        return (daemon_lines(self.daemon, log, "attached to vm1|vm1 (is not running|answers)") + "\n" +
                guest_lines(self.guest, console, "usb .*(New USB|Product|Manufacturer)"))

    def plug_mouse(self):
        return self.attached(lambda: self.lab.plug("mouse", "usb-mouse", 3))

    def pull_mouse(self):
        console, log = len(self.guest.console()), self.daemon.mark()
        self.lab.unplug("mouse")
        self.guest.wait_count(0)
        self.guest.wait_console("USB disconnect", console)
        self.daemon.wait_log("unplugged", log)
        return daemon_lines(self.daemon, log, "unplugged") + "\n" + guest_lines(self.guest, console, "disconnect")

    def keyboard_stays(self):
        self.lab.plug("keys", "usb-kbd", 4)
        self.lab.wait_driver("1-4")
        wait_for("the kernel's word", lambda: self.lab.good("dmesg | grep -q 'QEMU USB Keyboard'"))
        assert self.guest.devices() == [], "the keyboard went into the guest"
        return self.lab.text("dmesg | grep 'QEMU USB Keyboard' | tail -2 | sed 's/^/host kernel: /'")

    def plug_again(self):
        return self.attached(lambda: self.lab.plug("mouse", "usb-mouse", 3))

    def guest_restarts(self):
        def restart():
            log = self.daemon.mark()
            self.guest.kill()
            self.daemon.wait_log("vm1 is not running", log)
            self.guest.start()
            return True
        return self.attached(restart)

    def run(self):
        story = self.story
        story.say("vhotplug keeps USB devices in the virtual machines that a configuration names.\n"
                  "This boots a Linux host in a VM, a guest in it, and plugs real (emulated) USB devices into the host.")
        story.step("the host boots", self.host, "a Debian kernel, systemd-udevd and an xHCI controller, on this machine's files")
        story.step("a guest boots in it", self.guest_up, "QEMU with a USB controller and a control socket; nothing plugged")
        story.step("vhotplug starts", self.daemon_up, "with this configuration:\n" + json.dumps(self.config(), indent=2))
        story.step("a mouse is plugged into the host", self.plug_mouse, "the rule says that it belongs to vm1")
        story.step("the mouse is pulled", self.pull_mouse)
        story.step("a keyboard is plugged", self.keyboard_stays, "no rule allows it, so it stays on the host")
        story.step("the mouse is plugged again", self.plug_again)
        story.step("the guest is killed and starts again", self.guest_restarts, "the mouse comes back by itself")
        story.table()


def main():
    if len(sys.argv) != 2:
        print("usage: demo.py BUILD", file=sys.stderr)
        return 2
    demo = None
    try:
        demo = Demo(sys.argv[1])
        demo.run()
    except (LabError, AssertionError, OSError) as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        if demo and demo.daemon and demo.lab.process.poll() is None:
            print(f"--- log of vhotplug\n{demo.daemon.log()[-3000:]}", file=sys.stderr)
        return 1
    finally:
        if demo:
            demo.lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
