"""Every example of docs/api.md is run, in its order, and every message has one."""
import collections
import json
import re

import pytest

import world as worlds
from conftest import ROOT

DOCUMENT = ROOT / "docs/api.md"
ANY = "…"
STEP = re.compile(r"^<!-- world: (?P<world>[^\n]*) -->$|^```json (?P<kind>request|reply|event)\n(?P<text>.*?)^```$",
                  re.MULTILINE | re.DOTALL)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
DEVICES = {name: getattr(worlds, name) for name in ("MOUSE", "CAMERA", "KEY", "HUB", "RADIO", "KEYBOARD", "WIFI",
                                                    "GRAPHICS")}
DEVICES["MOUSE2"] = worlds.usb("1-7", number=9)


def steps():
    """(line in the document, kind, object)"""
    text = DOCUMENT.read_text(encoding="utf-8")
    for found in STEP.finditer(text):
        kind = found.group("kind") or "world"
        yield text.count("\n", 0, found.start()) + 1, kind, json.loads(found.group("world") or found.group("text"))


def is_like(documented, real):
    """Whether a real value is as documented: "…" stands for members that are not shown, and any time is a time."""
    if isinstance(documented, dict):
        return isinstance(real, dict) and documented.keys() - {ANY} <= real.keys() \
            and (ANY in documented or documented.keys() == real.keys()) \
            and all(key == ANY or is_like(value, real[key]) for key, value in documented.items())
    if isinstance(documented, list):
        return isinstance(real, list) and len(documented) == len(real) and all(map(is_like, documented, real))
    if isinstance(documented, str) and TIME.fullmatch(documented):
        return isinstance(real, str) and TIME.fullmatch(real) is not None
    return type(documented) is type(real) and documented == real


def test_the_comparison():
    assert is_like({"a": 1, ANY: ANY}, {"a": 1, "b": 2}) and not is_like({"a": 1, ANY: ANY}, {"b": 1})
    assert not is_like({"a": 1}, {"a": 1, "b": 2}) and not is_like({"a": 1}, {"a": True}) and not is_like([1], [1, 2])


class Run:
    """The document as one session with one client, who listens from its first enable_notifications on."""

    def __init__(self, world):
        self.world, self.client = world, world.connect()

    def check(self, documented, real):
        """What the document says of places is otherwise here."""
        documented = json.loads(json.dumps(documented).replace("/etc/vhotplug.conf", str(self.world.file)))
        assert is_like(documented, real), json.dumps(real, indent=1, ensure_ascii=False)

    def do_world(self, step):
        command = step.pop("do")
        if command == "configure":
            self.world.configure(**step)
        elif command == "pull":
            self.world.pull(DEVICES[step["device"]])
        elif command == "plug":
            self.world.plug(DEVICES[step["device"]])
        else:
            self.world.do(command, **step)

    def do_request(self, step):
        self.client.send(json.dumps(step).encode() + b"\n")

    def do_reply(self, step):
        self.check(step, self.client.answer())

    def do_event(self, step):
        self.check(step, self.client.event())


def test_every_example_is_as_it_is_in_truth(build, place):
    world, end = worlds.make(build, place)
    try:
        run, count = Run(world), collections.Counter()
        for line, kind, step in steps():
            count[kind] += 1
            try:
                getattr(run, f"do_{kind}")(step)
            except AssertionError as error:
                raise AssertionError(f"{DOCUMENT.name}:{line}: {error}") from error
        assert count["request"] == count["reply"] > 30 and count["event"] > 20
        # Nothing was told that the document does not tell.
        assert run.client.request("pci_list")["result"] == "ok" and run.client.events == []
    finally:
        end()


def actions():
    source = (ROOT / "src/api/request.c").read_text(encoding="utf-8")
    return re.findall(r'^    \{"(\w+)", API_\w+, \w+\},$', source, re.MULTILINE)


def events():
    source = (ROOT / "src/api/events.c").read_text(encoding="utf-8")
    return set(re.findall(r'"((?:usb|pci|vm|attach)_[a-z_]+)"', source)) - {"usb_device", "pci_device"}


def test_every_action_has_an_example_and_a_permission():
    assert len(actions()) > 15
    shown = {step.get("action") for _, kind, step in steps() if kind == "request"}
    assert not set(actions()) - shown
    table = DOCUMENT.read_text(encoding="utf-8")
    permissions = re.findall(r"^\| `(?:list|notify|control)` \| (.*) \|$", table, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(permissions))) == sorted(actions())


@pytest.mark.parametrize("event", sorted(events()))
def test_every_event_has_an_example(event):
    assert event in {step.get("event") for _, kind, step in steps() if kind == "event"}


# Nobody can bring these about from outside: no socket is open before the first configuration, and what was found
# is still there in the same turn of the loop.
UNREACHABLE = {"vhotplug is still starting", "the device is not there any more"}


def test_every_error_of_the_messages_has_a_test():
    """Each text that a request is refused with is asked for in a test."""
    tests = "".join((ROOT / f"tests/api/test_{name}.py").read_text(encoding="utf-8") for name in ("messages", "pci"))
    found = 0
    for name in ("request", "find", "messages", "starting"):
        source = (ROOT / f"src/api/{name}.c").read_text(encoding="utf-8")
        texts = re.findall(r'(?:reply_failed\(\s*caller, |string_(?:copy|printf)\(\s*)"((?:[^"\\]|\\.)*)"', source)
        for text in texts:
            # The longest piece of it between what is filled in.
            piece = max(re.split(r"%\w+|\\\w", text), key=len).strip(" ,:")
            if len(piece) < 8 or piece in UNREACHABLE:
                continue
            found += 1
            assert piece in tests, f"{name}.c: {text}"
    assert found >= 15
