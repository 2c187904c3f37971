#!/usr/bin/python3
"""A crosvm for tests: its control socket and its USB ports, byte for byte, with faults on demand.

Serves SOCK_SEQPACKET packets of JSON as crosvm does: one request at a time over all clients, no reply
to what it does not understand, and none of the checks that crosvm does not make either. What a client
must never do is written down as a violation and printed by the command "check".

Orders come as lines on standard input, one JSON reply a line on standard output:
  ports | nodes | log | check | quit
                              ports: vendor and product on each; nodes: major and minor of the device node
  run | halt                  the control loop serves, or leaves requests queued (a VM that boots)
  early | ready | guest-init  the guest's xHCI driver is not up yet | is | comes up now
  lag N                       every USB reply is N behind from now on
  usb on | off | unbuilt      off: Err 5 at once; unbuilt: Err 19
  slow [list|attach|detach]   the next USB request (of that kind) takes 2 s and answers Err 5, the late
                              answer comes to the next
  fault KIND NTH ACTION [ARG] the NTH request from now of KIND (list, attach, detach, any):
                              silent, delay MS, eof, reset, truncated, junk, long, unknown, wrong, fd,
                              NoSuchPort, NoSuchDevice, NoAvailablePort, FailedToOpenDevice,
                              FailedToInitHostDevice, err N, twice
                              (eof, reset and words: the request is not executed, else it is)
  kill NTH WHEN               the client is killed at the NTH request from now: WHEN is read (it is executed
                              all the same), executed (and not answered yet) or answered
  foreign VID PID             somebody else's device takes a port
  unplug MAJOR MINOR new|old  the host device goes; a new crosvm frees the port by itself
  loose | strict              replies with blanks, other order and extra members | as crosvm's own
"""
import argparse
import array
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import time

PORTS = 16
USB2 = range(1, 9)
USB3 = range(9, 17)
EMPTY = {"port": 0, "vendor_id": 0, "product_id": 0}


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def no_duplicates(pairs):
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("duplicate member")
    return dict(pairs)


def in_range(number, top):
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= top


class Port:
    def __init__(self, vid, pid, fd=-1, rdev=None, foreign=False):
        self.vid, self.pid, self.fd, self.rdev, self.foreign = vid, pid, fd, rdev, foreign


class FakeCrosvm:
    """The VM: ports and their rules, without the socket."""

    def __init__(self, table, strict_devices):
        self.table = table  # st_rdev -> (vid, pid, usb3)
        self.strict_devices = strict_devices  # only real usbfs nodes
        self.ports = {}
        self.guest = "ready"
        self.usb = "on"
        self.dead = False  # the emulated xHCI is gone for good
        self.last_answer = False
        self.lag = []
        self.slow = None
        self.replied = False
        self.violations = []
        self.attaches = 0

    def violation(self, text):
        self.violations.append(text)

    # ---- one request

    def answer(self, request, fds):
        """The reply to a parsed request, or None for crosvm's silence."""
        if request == "VcpuPidTid":
            return {"VcpuPidTidResponse": {"pid_tid_map": {"0": [os.getpid(), os.getpid()]}}}
        if not isinstance(request, dict) or len(request) != 1:
            return None
        if "DiskCommand" in request:
            return {"Err": 19}
        command = request.get("UsbCommand")
        if not isinstance(command, dict) or len(command) != 1:
            return None
        kind, arguments = next(iter(command.items()))
        if not isinstance(arguments, dict):
            return None
        reply = self.usb_reply(kind, arguments, fds)
        return None if reply is None else self.through_controller(kind, reply)

    def through_controller(self, kind, reply):
        """What the two seconds between control loop and xHCI do to replies."""
        if self.usb == "off":
            return {"Err": 5}
        if self.usb == "unbuilt":
            return {"Err": 19}
        if self.dead and not self.last_answer:
            time.sleep(2)
            return {"Err": 5}
        self.last_answer = False
        if self.slow and kind.lower().startswith(self.slow):
            self.slow = None
            self.lag.append(reply)
            time.sleep(2)
            return {"Err": 5}
        if self.lag:
            self.lag.append(reply)
            return self.lag.pop(0)
        return reply

    def usb_reply(self, kind, arguments, fds):
        if kind == "ListDevice":
            numbers = arguments.get("ports")
            if not isinstance(numbers, list) or len(numbers) != PORTS:
                return None
            if not all(in_range(number, 255) for number in numbers):
                return None
            return {"UsbResponse": {"Devices": [self.entry(number) for number in numbers]}}
        if kind == "DetachDevice":
            return self.detach(arguments.get("port"))
        if kind == "AttachDevice":
            return self.attach(arguments.get("file"), fds)
        return None

    def entry(self, number):
        port = self.ports.get(number)
        return {"port": number, "vendor_id": port.vid, "product_id": port.pid} if port else EMPTY

    def identify(self, fd):
        """(vid, pid, usb3) of a device node, or None: crosvm reads the descriptors at its start."""
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode):
            return None
        if status.st_rdev in self.table:
            return self.table[status.st_rdev]
        if os.major(status.st_rdev) != 189:
            if self.strict_devices:
                self.violation(f"attached {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}, no USB node")
            return None
        try:
            descriptor = os.pread(fd, 18, 0)
        except OSError:
            return None
        if len(descriptor) < 18:
            return None
        bcd, = struct.unpack_from("<H", descriptor, 2)
        vid, pid = struct.unpack_from("<HH", descriptor, 8)
        return vid, pid, bcd & 0x300 == 0x300

    def attach(self, index, fds):
        self.attaches += 1
        if not self.replied:
            self.violation("attach before the first reply of this VM")
        if not in_range(index, 255) or index >= len(fds):
            return None
        fd = fds[index]
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            self.violation("attach with a descriptor that is not open for reading and writing")
        identity = self.identify(fd)
        if not identity:
            return {"UsbResponse": "NoSuchDevice"}
        rdev = os.fstat(fd).st_rdev
        if self.usb == "on" and any(port.rdev == rdev for port in self.ports.values()):
            self.violation(f"{identity[0]:04x}:{identity[1]:04x} attached twice")
        vid, pid, usb3 = identity
        free = [number for number in (USB3 if usb3 else USB2) if number not in self.ports]
        if not free:
            return {"UsbResponse": "NoAvailablePort"}
        if self.usb != "on":
            return {"Err": 5}
        self.ports[free[0]] = Port(vid, pid, os.dup(fd), rdev)
        if self.guest == "early":
            return {"UsbResponse": "NoAvailablePort"}
        return {"UsbResponse": {"Ok": {"port": free[0]}}}

    def detach(self, number):
        if not in_range(number, 255):
            return None
        port = self.ports.get(number)
        if not port:
            return {"UsbResponse": "NoSuchDevice"}
        if port.foreign:
            self.violation(f"detach of port {number}, which is somebody else's")
        self.free(number)
        if self.guest == "early":
            return {"UsbResponse": "NoSuchDevice"}
        return {"UsbResponse": {"Ok": {"port": number}}}

    def free(self, number):
        port = self.ports.pop(number)
        if port.fd >= 0:
            os.close(port.fd)

    # ---- what happens to the VM

    def guest_init(self):
        if self.guest == "early" and self.ports:
            self.dead = self.last_answer = True
        self.guest = "ready"

    def add_foreign(self, vid, pid):
        number = next(number for number in USB2 if number not in self.ports)
        self.ports[number] = Port(vid, pid, foreign=True)

    def unplug(self, rdev, new_style):
        if new_style:
            for number in [n for n, port in self.ports.items() if port.rdev == rdev]:
                self.free(number)


class Server:
    """The socket: packets in, packets out, and the faults."""

    STRINGS = {"NoSuchPort", "NoSuchDevice", "NoAvailablePort", "FailedToOpenDevice", "FailedToInitHostDevice"}

    def __init__(self, path, vm):
        self.vm = vm
        self.path = path
        self.running = True
        self.loose = False
        self.hang_up = False
        self.faults = []  # [kind, countdown, action, argument]
        self.kill = None  # [countdown, when]
        self.log = []
        self.clients = []
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(128)

    def serve(self):
        while True:
            nodes = {port.fd: port.rdev for port in self.vm.ports.values() if self.hang_up and not port.foreign}
            watched = [sys.stdin] + ([self.listener, *self.clients, *nodes] if self.running else [])
            for ready in select.select(watched, [], [])[0]:
                if ready is sys.stdin:
                    line = sys.stdin.readline()
                    if not line or not self.order(line.split()):
                        return
                elif ready is self.listener:
                    self.clients.append(self.listener.accept()[0])
                elif ready in nodes:
                    self.vm.unplug(nodes[ready], True)
                elif ready in self.clients:
                    self.receive(ready)

    def drop(self, client):
        self.clients.remove(client)
        client.close()

    def receive(self, client):
        if self.resets(client):
            self.drop(client)  # with the request unread: the client sees ECONNRESET
            return
        try:
            data, ancillary, _flags, _address = client.recvmsg(1 << 18, socket.CMSG_SPACE(32 * 4))
        except OSError:
            data, ancillary = b"", []
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        try:
            if data:
                self.handle(client, data, list(fds))
            else:
                self.drop(client)
        finally:
            for fd in fds:
                os.close(fd)

    def resets(self, client):
        try:
            kind = self.kind(json.loads(client.recv(1 << 18, socket.MSG_PEEK)))
        except (OSError, ValueError):
            return False
        for fault in self.faults:
            if fault[0] in (kind, "any") and fault[1:3] == [1, "reset"]:
                self.faults.remove(fault)
                return True
        return False

    def handle(self, client, data, fds):
        if select.select([client], [], [], 0)[0]:
            peek = b""
            try:
                peek = client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except OSError:
                pass
            if peek:
                self.vm.violation("more than one request in flight")
        request = None
        try:
            request = json.loads(data.decode(), object_pairs_hook=no_duplicates)
        except ValueError:
            self.vm.violation(f"not JSON: {data[:80]!r}")
        kind = self.kind(request)
        if len(fds) != (kind == "attach"):
            self.vm.violation(f"{kind} with {len(fds)} descriptors")
        self.log.append({"kind": kind, "request": request})
        action, argument = self.fault(kind)
        if action in ("eof", "reset"):
            self.drop(client)
            return
        if self.kill:
            self.kill[0] -= 1
        self.kill_client(client, "read")
        reply = {} if action in self.STRINGS else self.vm.answer(request, fds)
        self.kill_client(client, "executed")
        if reply is not None:
            self.send(client, kind, reply, action, argument)
        self.kill_client(client, "answered")

    def kill_client(self, client, when):
        if self.kill == [0, when]:
            self.kill = None
            pid, = struct.unpack_from("i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            os.kill(pid, signal.SIGKILL)

    @staticmethod
    def kind(request):
        names = {"ListDevice": "list", "AttachDevice": "attach", "DetachDevice": "detach"}
        command = request.get("UsbCommand") if isinstance(request, dict) else None
        return names.get(next(iter(command)), "other") if isinstance(command, dict) and command else "other"

    def fault(self, kind):
        for fault in self.faults:
            if fault[0] in (kind, "any"):
                fault[1] -= 1
                if fault[1] == 0:
                    self.faults.remove(fault)
                    return fault[2], fault[3]
        return None, None

    def send(self, client, kind, reply, action, argument):
        data, fds = self.text(reply), []
        if action == "silent":
            return
        if action == "delay":
            time.sleep(int(argument) / 1000)
        elif action == "truncated":
            data = data[: len(data) // 2]
        elif action == "junk":
            data = b"\x00\xff{]" + os.urandom(40)
        elif action == "long":
            data = compact({"ErrString": '\x1b[31m"evil\\\n\t' * 5000})
        elif action == "unknown":
            data = compact({"NobodyKnows": {"this": 1}})
        elif action == "wrong":
            wrong = {"UsbResponse": {"Devices": [EMPTY] * PORTS}} if kind != "list" else {"UsbResponse": {"Ok": {"port": 7}}}
            data = compact(wrong)
        elif action == "fd":
            fds = [os.open("/dev/null", os.O_RDONLY)]
        elif action in self.STRINGS:
            data = compact({"UsbResponse": action})
        elif action == "err":
            data = compact({"Err": int(argument)})
        try:
            if fds:
                socket.send_fds(client, [data], fds)
            else:
                for _ in range(2 if action == "twice" else 1):
                    client.send(data, socket.MSG_NOSIGNAL)
            self.vm.replied = True
        except OSError:
            self.drop(client)
        for fd in fds:
            os.close(fd)

    def text(self, reply):
        if not self.loose:
            return compact(reply)
        if isinstance(reply, dict) and isinstance(reply.get("UsbResponse"), dict) and "Devices" in reply["UsbResponse"]:
            devices = [{"extra": None, **dict(reversed(d.items()))} for d in reply["UsbResponse"]["Devices"]]
            reply = {"UsbResponse": {"Devices": devices}}
        return b" \n" + json.dumps(reply, indent=1).encode() + b"\n "

    # ---- orders of the test

    def order(self, words):
        if not words:
            return True
        name, *rest = words
        vm, result = self.vm, "ok"
        if name == "quit":
            os.unlink(self.path)
            return False
        if name == "ports":
            result = {number: f"{port.vid:04x}:{port.pid:04x}" for number, port in sorted(vm.ports.items())}
        elif name == "nodes":
            result = {number: f"{os.major(port.rdev)}:{os.minor(port.rdev)}" if port.rdev else None
                      for number, port in sorted(vm.ports.items())}
        elif name == "log":
            result = self.log
        elif name == "check":
            result = vm.violations
        elif name in ("run", "halt"):
            self.running = name == "run"
        elif name in ("early", "ready"):
            vm.guest = name
        elif name == "guest-init":
            vm.guest_init()
        elif name == "lag":
            vm.lag = [{"UsbResponse": {"Devices": [EMPTY] * PORTS}}] * int(rest[0])
        elif name == "usb":
            vm.usb = rest[0]
        elif name == "slow":
            vm.slow = rest[0] if rest else ("list", "attach", "detach")
        elif name == "fault":
            self.faults.append([rest[0], int(rest[1]), rest[2], rest[3] if len(rest) > 3 else None])
        elif name == "kill":
            self.kill = [int(rest[0]), rest[1]]
        elif name == "foreign":
            vm.add_foreign(int(rest[0], 16), int(rest[1], 16))
        elif name == "unplug":
            vm.unplug(os.makedev(int(rest[0]), int(rest[1])), rest[2] == "new")
        elif name in ("loose", "strict"):
            self.loose = name == "loose"
        else:
            result = f"unknown order {name}"
        print(json.dumps(result), flush=True)
        return True


def stand_in(text):
    """MAJOR:MINOR=VID:PID[:usb3] -> (st_rdev, (vid, pid, usb3))"""
    number, identity = text.split("=")
    major, minor = number.split(":")
    vid, pid, *usb3 = identity.split(":")
    return os.makedev(int(major), int(minor)), (int(vid, 16), int(pid, 16), bool(usb3))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket")
    parser.add_argument("--device", action="append", default=[], type=stand_in, help="a stand-in: MAJOR:MINOR=VID:PID[:usb3]")
    parser.add_argument("--usb-nodes", action="store_true", help="only real USB device nodes may be attached")
    parser.add_argument("--halt", action="store_true", help="begin with the control loop not running")
    parser.add_argument("--early", action="store_true", help="begin with the guest's driver not up")
    parser.add_argument("--hang-up", action="store_true",
                        help="a USB device that leaves the host frees its port by itself, as in a new crosvm")
    arguments = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    vm = FakeCrosvm(dict(arguments.device), arguments.usb_nodes)
    vm.guest = "early" if arguments.early else "ready"
    server = Server(arguments.socket, vm)
    server.running = not arguments.halt
    server.hang_up = arguments.hang_up
    print(json.dumps("up"), flush=True)
    server.serve()


if __name__ == "__main__":
    main()
