# USB devices with any descriptors and strings: configfs gadgets on dummy_hcd, inside the lab host.
ROOT = "/sys/kernel/config/usb_gadget"
MOUSE = (r"\x05\x01\x09\x02\xa1\x01\x09\x01\xa1\x00\x05\x09\x19\x01\x29\x03\x15\x00\x25\x01\x95\x03\x75\x01\x81\x02\x95\x01"
         r"\x75\x05\x81\x03\x05\x01\x09\x30\x09\x31\x15\x81\x25\x7f\x75\x08\x95\x02\x81\x06\xc0\xc0")

# A script that takes all of them away.
REMOVE_ALL = f"""
    for g in {ROOT}/*; do
        [ -d $g ] || continue
        cd $g; echo > UDC 2>/dev/null; rm -f configs/c.1/*.0; rmdir configs/c.1 functions/* strings/0x409 2>/dev/null; cd /; rmdir $g
    done
    if [ -d /sys/module/dummy_hcd ]; then modprobe -r dummy_hcd; fi"""


def prepare(lab, count=1):
    """Loads the emulated controllers anew; device addresses start at 2 again."""
    lab.run(f"modprobe -r dummy_hcd 2>/dev/null; modprobe dummy_hcd num={count} && modprobe libcomposite && "
            "{ mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config; }")


class Gadget:
    """A mouse unless FUNCTION says otherwise. Strings may be given as bytes. DEVICE_CLASS: 0 leaves it to the interfaces."""

    def __init__(self, lab, name, vendor=0xcafe, product=0x4001, strings=None, udc=0, function="hid", device_class=0):
        self.lab, self.name, self.udc = lab, name, udc
        self.folder = f"{ROOT}/{name}"
        script = [f"set -e; mkdir {self.folder}; cd {self.folder}", f"echo {vendor} > idVendor; echo {product} > idProduct; echo {device_class} > bDeviceClass",
                  "echo 0x0200 > bcdUSB; mkdir strings/0x409; mkdir configs/c.1"]
        for key, value in ({"serialnumber": name, "manufacturer": "Lab", "product": name} | (strings or {})).items():
            value = value if isinstance(value, bytes) else value.encode()
            # cat, as each string must be one write: the shell's printf would end it at every line
            octets = "".join(f"\\x{byte:02x}" for byte in value)
            script.append(f"printf '{octets}' | cat > strings/0x409/{key}")
        if function == "hid":
            script += ["mkdir functions/hid.0; cd functions/hid.0; echo 2 > protocol; echo 1 > subclass; echo 3 > report_length",
                       f"printf '{MOUSE}' > report_desc; cd ../.."]
        else:
            script.append(f"mkdir functions/{function}.0")
        script.append(f"ln -s functions/{function}.0 configs/c.1/")
        lab.run("\n".join(script))

    def plug(self):
        self.lab.run(f"echo dummy_udc.{self.udc} > {self.folder}/UDC")

    def unplug(self):
        self.lab.run(f"echo > {self.folder}/UDC")


def bus(lab, udc=0):
    """The number of the bus on which the gadget of that controller appears."""
    return int(lab.text(f"cat /sys/devices/platform/dummy_hcd.{udc}/usb*/busnum").split()[0])
