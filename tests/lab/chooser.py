# A user's applet, for the lab: hears the daemon's events, writes each to a file, and answers each question which VM is
# to have a device with the name that another file holds (none: it does not answer).
import json
import socket
import sys

path, choice_file, log_file = sys.argv[1:]
client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
client.connect(path)
lines = client.makefile("rw")
log = open(log_file, "a")


def send(**message):
    lines.write(json.dumps(message) + "\n")
    lines.flush()


send(action="enable_notifications")
for line in lines:
    log.write(line)
    log.flush()
    message = json.loads(line)
    if message.get("event") != "usb_select_vm":
        continue
    with open(choice_file) as file:
        vm = file.read().strip()
    if vm:
        send(action="usb_attach", device_node=message["usb_device"]["device_node"], vm=vm)
