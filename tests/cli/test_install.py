"""What meson install puts where, and that the unit fits the program."""
import os
import pathlib
import re
import subprocess

import pytest

FILES = ["sbin/vhotplug", "bin/vhotplugctl", "bin/vhotplugcli", "share/man/man1/vhotplugctl.1",
         "share/bash-completion/completions/vhotplugctl", "share/zsh/site-functions/_vhotplugctl",
         "share/fish/vendor_completions.d/vhotplugctl.fish",
         "share/man/man8/vhotplug.8", "share/man/man5/vhotplug.conf.5",
         "share/bash-completion/completions/vhotplug", "share/zsh/site-functions/_vhotplug",
         "share/fish/vendor_completions.d/vhotplug.fish", "share/doc/vhotplug/README.md",
         "share/doc/vhotplug/docs/architecture.md", "share/doc/vhotplug/docs/authorization.md",
         "share/doc/vhotplug/docs/guests.md", "share/doc/vhotplug/docs/api.md", "share/doc/vhotplug/docs/migrating.md",
         "share/doc/vhotplug/docs/comparison.md", "share/doc/vhotplug/SECURITY.md",
         "share/doc/vhotplug/CHANGELOG.md", "share/doc/vhotplug/LICENSE", "share/vhotplug/vhotplug.schema.json",
         "share/vhotplug/vhotplugctl.schema.json",
         "share/doc/vhotplug/vhotplug.conf.example", "share/doc/vhotplug/examples/mouse.conf"]


@pytest.fixture(scope="module")
def installed(build, tmp_path_factory):
    target = tmp_path_factory.mktemp("installed")
    subprocess.run(["meson", "install", "-C", str(build), "--no-rebuild"], check=True, timeout=300,
                   env={**os.environ, "DESTDIR": str(target)}, stdin=subprocess.DEVNULL)
    return target


def test_everything_is_installed(installed):
    names = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    for file in FILES:
        assert f"usr/local/{file}" in names, sorted(names)
    # And nothing else that we did not mean to.
    assert not [name for name in names if re.search(r"\.(a|h|o)$|test", name)]


# Of the sources only; manual pages are installed elsewhere.
NOT_INSTALLED = {"CONTRIBUTING.md", "../man/vhotplug.conf.5"}


def test_links_of_the_installed_documents_lead_somewhere(installed):
    pages = list(installed.rglob("doc/vhotplug/**/*.md"))
    assert len(pages) >= 9
    for page in pages:
        for target in set(re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())) - NOT_INSTALLED:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def unit(installed):
    found = list(installed.rglob("vhotplug.service"))
    assert len(found) == 1
    return found[0].read_text()


def test_the_unit_starts_what_was_installed(installed):
    text = unit(installed)
    start = re.search(r"^ExecStart=(\S+) (.*)$", text, re.MULTILINE)
    assert (installed / start.group(1).lstrip("/")).is_file()
    assert start.group(2) == "--attach-connected -c /usr/local/etc/vhotplug.conf"
    assert not re.search(r"@\w+@", text)


@pytest.mark.parametrize("setting", ["Type=notify", "ExecReload=/usr/local/bin/vhotplugctl reload",
                                     "RuntimeDirectory=vhotplug", "StateDirectory=vhotplug",
                                     "RuntimeDirectoryPreserve=yes", "Wants=modprobe@usbcore.service modprobe@vfio-pci.service",
                                     "After=modprobe@usbcore.service modprobe@vfio-pci.service", "LimitNOFILE=8192", "NoNewPrivileges=yes"])
def test_the_unit_has(installed, setting):
    assert setting in unit(installed).splitlines()


# ProtectKernelModules hides /usr/lib/modules, and rules with driverPath would match nothing.
@pytest.mark.parametrize("setting", ["ProtectKernelModules", "PrivateTmp", "PrivateNetwork", "PrivateDevices",
                                     "ProtectProc", "ProcSubset", "RootDirectory", "InaccessiblePaths"])
def test_the_unit_does_not_hide_what_the_daemon_reads(installed, setting):
    assert not re.search(rf"^{setting}=", unit(installed), re.MULTILINE)


def test_the_unit_gives_away_no_more_than_this(installed):
    lines = [line for line in unit(installed).splitlines()
             if line.startswith(("SystemCallFilter=", "CapabilityBoundingSet=", "RestrictAddressFamilies=", "ReadWritePaths="))]
    # No module can be loaded, nothing mounted, no identity changed.
    assert lines == ["CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER",
                     "ReadWritePaths=/sys/bus /sys/devices -/sys/module/usbcore/parameters",
                     "RestrictAddressFamilies=AF_UNIX AF_NETLINK",
                     "SystemCallFilter=@system-service",
                     "SystemCallFilter=~@aio @keyring @memlock @privileged @resources @setuid"]


def test_the_security_page_gives_the_units_exposure(installed):
    path = next(installed.rglob("vhotplug.service"))
    try:
        shown = subprocess.run(["systemd-analyze", "security", "--offline=true", path], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no systemd-analyze here")
    found = re.search(r"Overall exposure level for vhotplug.service: (\S+)", shown.stdout)
    if not found:
        pytest.skip("this systemd-analyze does not judge units that are not installed")
    page = (pathlib.Path(__file__).resolve().parents[2] / "SECURITY.md").read_text()
    assert float(found[1]) <= float(re.search(r"security vhotplug`: ([\d.]+), of 10", page)[1])


@pytest.mark.parametrize("name, setting", [("vsock", "RestrictAddressFamilies=AF_VSOCK"), ("tcp", "IPAddressAllow=localhost"),
                                           ("socket-owner", "CapabilityBoundingSet=CAP_CHOWN"),
                                           ("acpi-tables", "SystemCallFilter=@chown")])
def test_what_some_configurations_need_stands_beside_the_documents(installed, name, setting):
    found = list(installed.rglob(f"doc/vhotplug/vhotplug.service.d/{name}.conf"))
    assert len(found) == 1 and setting in found[0].read_text().splitlines()
    # The sentence that people read when it is missing has its name.
    source = pathlib.Path(__file__).resolve().parents[2] / "src"
    assert any(f"{name}.conf" in path.read_text() for path in source.rglob("*.c"))


@pytest.mark.parametrize("devices", ["char-vfio rw",        # to ask whether a VM has an IOMMU group
                                     "char-vfio-dev rw",    # PCI functions that are passed by descriptor,
                                     "/dev/iommu rw",       # and what their VM's memory is mapped by
                                     "char-usb_device rw",  # the nodes that VMs get
                                     "block-* r"])          # to ask whether the kernel has claimed a disk
def test_the_unit_may_open(installed, devices):
    assert f"DeviceAllow={devices}" in unit(installed).splitlines()
