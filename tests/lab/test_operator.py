# A person at the host: sees, asks, chooses, takes out and puts back, suspends and reloads, with the real programs.
import json
import shlex

import gadget
import pytest
from daemon import mouse_rule
from lab import wait_for
from person import SOCKET, STATE

CAMERA, TOKEN = {"vendorId": "cafe", "productId": "4001"}, {"vendorId": "cafe", "productId": "4002"}
KEYBOARD = {"interfaceClass": 3, "interfaceProtocol": 1}


def configuration(guests, groups, **api):
    return {"usbPassthrough": groups,
            "vms": [{"name": guest.name, "type": guest.type, "socket": guest.socket} for guest in guests],
            "general": {"statePath": STATE, "api": {"unixSocket": SOCKET, **api}}}


def groups():
    return [{"allowedVms": ["vm1", "vm2"], "tag": "camera", "allow": [CAMERA]},
            {"targetVm": "vm1", "tag": "token", "skipOnSuspend": True, "allow": [TOKEN]},
            {"targetVm": "vm1", "allow": [mouse_rule()]}]


@pytest.fixture
def gadgets(bench):
    """The camera and the token: (gadget, its place) each."""
    gadget.prepare(bench.lab, 2)
    made = [gadget.Gadget(bench.lab, "camera", product=0x4001, strings={"product": "Lab Camera"}, device_class=0x0e),
            gadget.Gadget(bench.lab, "token", product=0x4002, strings={"product": "Lab Token"}, udc=1, device_class=0x0b)]
    return [(one, f"{gadget.bus(bench.lab, number)}-1") for number, one in enumerate(made)]


def wait_places(guest, places, daemon):
    wait_for(f"{guest.name} to have {places}", lambda: guest.places() == sorted(places),
             show=lambda: f"{guest.places()}\n{daemon.log()[-4000:]}")


def test_f13_f31_the_user_chooses_a_vm_and_moves_the_camera_to_the_other(bench, person, gadgets):
    one, two = bench.guest("vm1", kernel=True), bench.guest("vm2")
    (camera, place), (token, token_place) = gadgets
    daemon = bench.daemon(configuration([one, two], groups(), selectTimeout="ask"))
    daemon.wait_log("vm1 answers")
    person.listens("vm2")
    camera.plug()
    wait_places(two, [place], daemon)
    asked = person.wait_heard("usb_select_vm")
    assert asked[0]["allowed_vms"] == ["vm1", "vm2"] and asked[0]["usb_device"]["product_name"] == "Lab Camera"
    person.wait_heard("usb_attached")
    assert one.devices() == []
    token.plug()
    wait_places(one, [token_place], daemon)
    # To the other guest, by what the device is called; the guest's kernel sees it.
    assert "vm1" in person.does("attach", "Lab Camera", "vm1")
    one.wait_console("Product: Lab Camera")
    wait_places(two, [], daemon)
    assert person.device(place)["vm"] == "vm1"
    assert f"attached to vm1" in person.does("explain", place)
    # Where it may not go, and what is not there.
    assert "not allowed" in person.fails("attach", token_place, "vm2")
    person.fails("attach", "1234:5678")
    # The VM that has it dies: it waits, and the other may have it.
    one.kill()
    wait_for("it to wait", lambda: person.device(place)["state"] == "waits", show=daemon.log)
    person.does("attach", place, "vm2")
    wait_places(two, [place], daemon)
    assert [event["vm"] for event in person.wait_heard("vm_down")] == ["vm1"]
    # Plugged anew, the user is asked anew; nobody answers, so it waits, and says for what.
    person.chooses("")
    camera.unplug()
    wait_places(two, [], daemon)
    camera.plug()
    person.wait_heard("usb_select_vm", 2)
    assert person.device(place)["state"] == "waits"
    assert "vm1" in (reason := person.device(place)["reason"]) and "vm2" in reason


def test_f44_nobody_answers_and_the_vm_chosen_last_gets_it(bench, person, gadgets):
    one, two = bench.guest("vm1"), bench.guest("vm2")
    (camera, place), _ = gadgets
    daemon = bench.daemon(configuration([one, two], groups(), selectTimeout=2))
    daemon.wait_log("vm1 answers")
    person.listens()
    camera.plug()
    wait_places(one, [place], daemon)
    person.does("attach", place, "vm2")
    wait_places(two, [place], daemon)
    camera.unplug()
    wait_places(two, [], daemon)
    camera.plug()
    wait_places(two, [place], daemon)
    assert len(person.heard("usb_select_vm")) == 2
    # The daemon is started anew: it stays where it is, and nobody is asked.
    kept = two.devices()
    daemon.stop()
    mark = daemon.mark()
    daemon.start()
    daemon.wait_log(": attached to vm2", mark)
    assert two.devices() == kept and one.devices() == []


def test_f32_what_a_person_took_out_stays_out_and_f30_it_is_said_as_it_is(bench, person, gadgets):
    one, two = bench.guest("vm1"), bench.guest("vm2", start=False)
    (camera, place), (token, token_place) = gadgets
    daemon = bench.daemon(configuration([one, two], groups()))
    token.plug()
    wait_places(one, [token_place], daemon)
    person.does("detach", "Lab Token")
    wait_places(one, [], daemon)

    def stays_out(after):
        mark = daemon.mark()
        bench.lab.plug("mouse", "usb-mouse", 3)  # what comes later has had its turn
        wait_places(one, ["1-3"], daemon)
        bench.lab.unplug("mouse")
        wait_places(one, [], daemon)
        assert person.device(token_place)["detached"] and not person.device(token_place)["vm"], after
        assert "cafe:4002" not in "".join(line for line in daemon.log()[mark:].splitlines() if "attached to" in line), after

    stays_out("the request")
    daemon.kill()
    daemon.start()
    stays_out("the daemon was killed")
    daemon.forget()
    daemon.stop()
    daemon.start()
    stays_out("a restart that looks like a boot")
    one.restart()
    stays_out("the VM's restart")
    token.unplug()
    token.plug()
    bench.lab.wait_usb(token_place)
    stays_out("a replug")
    person.does("reload")
    stays_out("a reload")
    shown = person.classic("usb", "list", "--disconnected", "--short")
    assert shown.startswith("cafe:4002 ") and "Lab Token" in shown and "Camera" not in shown
    assert "Successfully attached" in person.classic("usb", "attach", "--vid", "cafe", "--pid", "4002", "--vm", "vm1")
    wait_places(one, [token_place], daemon)
    # To a VM that is down: it waits there, nothing is made up, and it goes in when that comes up.
    camera.plug()
    bench.lab.wait_usb(place)
    assert "vm2 is not running" in person.does("attach", place, "vm2")
    assert person.device(place)["state"] == "waits"
    two.start()
    wait_places(two, [place], daemon)


def test_f27_suspend_empties_the_vms_but_for_what_is_skipped_and_resume_fills_them(bench, person, gadgets):
    one, two = bench.guest("vm1"), bench.guest("vm2")
    (camera, place), (token, token_place) = gadgets
    daemon = bench.daemon(configuration([one, two], groups(), selectTimeout=0))
    camera.plug()
    token.plug()
    bench.lab.plug("mouse", "usb-mouse", 3)
    bench.lab.plug("out", "usb-mouse", 4)
    wait_places(one, [place, token_place, "1-3", "1-4"], daemon)
    kept = one.at(token_place)
    person.does("detach", "1-4")
    person.does("suspend")
    # Each has left by the time that it is answered.
    assert one.places() == [token_place]
    # Some devices come back from sleep as new ones.
    camera.unplug()
    bench.lab.unplug("mouse")
    camera.plug()
    bench.lab.plug("mouse", "usb-mouse", 3)
    wait_for("the mouse to wait", lambda: "suspended" in person.device("1-3")["reason"], show=daemon.log)
    assert one.places() == [token_place]
    person.does("resume")
    wait_places(one, [place, token_place, "1-3"], daemon)
    assert one.at(token_place) == kept
    # One VM only, and by the Python client's command line.
    person.does("attach", place, "vm2")
    wait_places(two, [place], daemon)
    assert "Successfully suspended" in person.classic("usb", "suspend", "--vm", "vm1")
    assert one.places() == [token_place] and two.places() == [place]
    assert "Successfully resumed" in person.classic("usb", "resume", "--vm", "vm1")
    wait_places(one, [token_place, "1-3"], daemon)


def test_f45_tags_name_several_devices_at_once(bench, person, gadgets):
    one, two = bench.guest("vm1"), bench.guest("vm2")
    (camera, place), (token, token_place) = gadgets
    daemon = bench.daemon(configuration([one, two], groups(), selectTimeout=0))
    camera.plug()
    token.plug()
    wait_places(one, [place, token_place], daemon)
    assert person.classic("usb", "list", "--short", "--tag", "camera").splitlines()[0].startswith("cafe:4001 ")
    person.classic("usb", "detach", "--tag", "camera")
    wait_places(one, [token_place], daemon)
    person.classic("usb", "attach", "--tag", "camera")
    wait_places(one, [place, token_place], daemon)
    listed = person.classic("usb", "list", "--tag", "camera")
    assert "  vm              : vm1" in listed and "  allowed_vms     : ['vm1', 'vm2']" in listed, listed


def test_f43_a_reload_moves_one_device_and_leaves_three_alone(bench, person, gadgets):
    one, two = bench.guest("vm1"), bench.guest("vm2")
    (camera, place), (token, token_place) = gadgets
    daemon = bench.daemon(configuration([one, two], groups(), selectTimeout=0))
    for device in camera, token:
        device.plug()
    bench.lab.plug("mouse", "usb-mouse", 3)
    bench.lab.plug("other", "usb-mouse", 4)
    wait_places(one, [place, token_place, "1-3", "1-4"], daemon)
    before = {where: one.at(where) for where in (place, token_place, "1-4")}
    changed = groups()
    changed.insert(0, {"targetVm": "vm2", "allow": [mouse_rule(portPath="1-3")]})
    daemon.configure(configuration([one, two], changed, selectTimeout=0))
    person.does("reload")
    wait_places(two, ["1-3"], daemon)
    wait_places(one, [place, token_place, "1-4"], daemon)
    # An object's name tells the very attach: had it been taken out and put in again, it would have another.
    assert {where: one.at(where) for where in before} == before
    # A bad file: the errors come to the one who asked, and nothing changes.
    daemon.configure('{"usbPassthrough": [{"targetVm": "nobody", "allow": [{"vendorid": "1"}]}], "vms": []}')
    failed = person.fails("reload")
    assert "nobody" in failed and "vendorid" in failed and "did you mean vendorId" in failed
    checked = bench.lab.run(f"{person.program} check {daemon.config_file} 2>&1; true").text
    assert all(line.removeprefix("vhotplugctl: ") in checked for line in failed.splitlines() if "usbPassthrough" in line), (failed, checked)
    assert two.places() == ["1-3"] and {where: one.at(where) for where in before} == before


def test_f42_what_is_and_why_is_told_in_80_columns(bench, person, gadgets):
    one, two = bench.guest("vm1"), bench.guest("vm2", start=False)
    (camera, place), (token, token_place) = gadgets
    daemon = bench.daemon(configuration([one, two], groups() + [{"targetVm": "vm2", "allow": [KEYBOARD]}], selectTimeout=0))
    camera.plug()
    token.plug()
    bench.lab.plug("keys", "usb-kbd", 3)
    bench.lab.plug("disk", "usb-storage", 2)
    wait_places(one, [place, token_place], daemon)
    daemon.wait_log("waits: vm2 is not running")
    for verb in ["status"], ["list"], ["list", "--tree"], ["vms"], ["explain", place], ["explain", "1-3"], ["explain", "2-2"]:
        typed = f"stty cols 80; NO_COLOR=1 {person.command(*verb)}"
        shown = bench.lab.run(f"script -qec {shlex.quote(typed)} /dev/null").text.replace("\r", "")
        print(shown)
        assert shown and all(len(line) <= 80 for line in shown.splitlines()), (verb, shown)
    assert "vm2 is not running" in person.does("explain", "1-3")
    assert "no rule allows it" in person.does("explain", "2-2")
    assert person.sees("status")


def test_f47_over_vsock_a_guest_sees_and_does_what_its_cid_may(bench, person):
    bench.lab.run("modprobe vsock_loopback")
    one, two = bench.guest("vm1"), bench.guest("vm2")
    rules = [{"targetVm": "vm1", "allow": [mouse_rule()]}, {"targetVm": "vm2", "allow": [KEYBOARD]}]
    cids = [{"cid": 1, "permissions": ["list"], "vms": ["vm1"]}]
    way = {"transports": ["unix", "vsock"], "port": 2001}
    daemon = bench.daemon(configuration([one, two], rules, **way, allowedCids=cids))
    bench.lab.plug("mouse", "usb-mouse", 3)
    bench.lab.plug("keys", "usb-kbd", 4)
    wait_places(one, ["1-3"], daemon)
    wait_places(two, ["1-4"], daemon)
    guest = f"{person.program} --cid 1 --port 2001"
    assert [device["port_path"] for device in json.loads(bench.lab.run(f"{guest} list --json").text)] == ["1-3"]
    refused = bench.lab.run(f"{guest} detach 1-3 2>&1; {guest} attach 1-4 vm2 2>&1; true").text
    assert refused.count("not allowed for this client") == 2, refused
    assert one.places() == ["1-3"] and two.places() == ["1-4"]
    # Its right to control makes it lord of its own VM's devices, and of no others.
    cids[0]["permissions"].append("control")
    daemon.configure(configuration([one, two], rules, **way, allowedCids=cids))
    person.does("reload")
    refused = bench.lab.run(f"{guest} detach 1-4 2>&1; {guest} attach 1-3 vm2 2>&1; true").text
    assert "there is no device 1-4" in refused and "not allowed for this client" in refused, refused
    bench.lab.run(f"{guest} detach 1-3")
    wait_places(one, [], daemon)
    assert two.places() == ["1-4"]
    # A CID that is not named gets no word.
    cids[0]["cid"] = 77
    daemon.configure(configuration([one, two], rules, **way, allowedCids=cids))
    person.does("reload")
    assert not bench.lab.good(f"{guest} list")
