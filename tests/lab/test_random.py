# Random faults: devices are pulled, VMs and the daemon killed and stopped, the host's controller reset, in any order;
# whenever all is calm again, each device is where the configuration says. VHOTPLUG_LAB_RANDOM: for how many seconds.
import os
import random
import time

from daemon import configuration, mouse_rule
from lab import wait_for

SECONDS = int(os.environ.get("VHOTPLUG_LAB_RANDOM", "60"))
SEED = int(os.environ.get("VHOTPLUG_LAB_SEED", str(int(time.time()))))
KEYBOARD, DISK = {"interfaceClass": 3, "interfaceProtocol": 1}, {"interfaceClass": 8}
# What is plugged where; the card reader is nobody's.
PORTS = {"1-3": "usb-mouse", "1-4": "usb-mouse", "1-5": "usb-kbd", "1-6": "usb-kbd", "1-7": "usb-ccid", "2-1": "usb-storage", "2-2": "usb-storage"}
# The VM of each kind of device, by one configuration and by the other.
HOMES = [{"usb-mouse": "vm1", "usb-kbd": "vm2", "usb-storage": "vm1"}, {"usb-mouse": "vm2", "usb-kbd": "vm1", "usb-storage": "vm2"}]
STEPS = 12  # from one calm to the next


class World:
    def __init__(self, bench, choice):
        self.lab, self.choice, self.home, self.done = bench.lab, choice, 0, []
        self.qemu, self.crosvm = bench.guest("vm1"), bench.crosvm("vm2")
        self.daemon = bench.daemon(self.config(), "-a")
        self.counts, self.there, self.plugs = {}, {}, 0

    def config(self):
        home = HOMES[self.home]
        rules = {"vm1": [], "vm2": []}
        for kind, rule in ("usb-mouse", mouse_rule()), ("usb-kbd", KEYBOARD), ("usb-storage", DISK):
            rules[home[kind]].append(rule)
        return configuration([self.qemu, self.crosvm], list(rules.items()))

    # --- what happens

    def plug(self, place):
        self.plugs += 1
        self.there[place] = f"plug{self.plugs}"
        self.lab.plug(self.there[place], PORTS[place], place.split("-")[1], wait=False)

    def pull(self, place):
        self.lab.unplug(self.there.pop(place))

    def plug_or_pull(self):
        place = self.choice.choice(list(PORTS))
        if place in self.there:
            self.pull(place)
        else:
            self.plug(place)

    def replug(self):
        for place in self.choice.sample(sorted(self.there), min(2, len(self.there))):
            self.pull(place)
            self.plug(place)

    def restart_qemu(self):
        self.qemu.kill(self.choice.choice(["KILL", "TERM"]))
        self.qemu.start()

    def restart_crosvm(self):
        self.crosvm.kill()
        self.crosvm.start()

    def freeze_qemu(self):
        self.qemu.signal("STOP")
        self.choice.choice([self.plug_or_pull, self.replug, self.restart_daemon])()
        self.qemu.signal("CONT")

    def restart_daemon(self):
        if self.choice.random() < 0.5:
            self.daemon.kill()
        else:
            self.daemon.stop()
        if self.choice.random() < 0.5:
            self.choice.choice([self.plug_or_pull, self.restart_qemu, self.restart_crosvm])()
        self.daemon.start()

    def reload(self):
        self.home = 1 - self.home
        self.daemon.configure(self.config())
        self.daemon.signal("HUP")

    def reset_controller(self):
        self.lab.reset_controller()

    def restart_udevd(self):
        self.lab.run("udevadm control --exit; while pidof systemd-udevd > /dev/null; do sleep 0.2; done")
        self.choice.choice([self.plug_or_pull, self.replug])()
        self.lab.start_udevd()

    def step(self):
        deed = self.choice.choices([self.plug_or_pull, self.replug, self.restart_qemu, self.restart_crosvm, self.freeze_qemu,
                                    self.restart_daemon, self.reload, self.reset_controller, self.restart_udevd],
                                   [12, 4, 3, 3, 2, 3, 2, 1, 1])[0]
        self.done.append(deed.__name__)
        self.counts[deed.__name__] = self.counts.get(deed.__name__, 0) + 1
        deed()

    # --- what is to hold

    def wanted(self, vm):
        return sorted(place for place in self.there if HOMES[self.home].get(PORTS[place]) == vm)

    def story(self):
        return f"seed {SEED}, after {self.done[-2 * STEPS:]}\nvm1 {self.qemu.places()}, vm2 {self.crosvm.ports()}\n{self.daemon.log()[-6000:]}"

    def calm(self):
        assert self.daemon.running(), f"the daemon has ended\n{self.story()}"
        wait_for(f"vm1 to have {self.wanted('vm1')}", lambda: self.qemu.places() == self.wanted("vm1"), show=self.story)
        wait_for(f"vm2 to have {self.wanted('vm2')}", lambda: sorted(self.crosvm.ports().values()) == self.wanted("vm2"), show=self.story)
        self.crosvm.check(self.daemon)


def test_random_faults_end_with_each_device_where_it_belongs(bench):
    world, end, calms = World(bench, random.Random(SEED)), time.monotonic() + SECONDS, 0
    while time.monotonic() < end or not calms:
        for _ in range(STEPS):
            world.step()
        world.calm()
        calms += 1
    print(f"seed {SEED}: calm {calms} times, {world.counts}")
