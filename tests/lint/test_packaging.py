"""The packagings agree with the build, the unit and each other; ./dev package builds, installs and removes the real thing."""
import re
import shutil
import subprocess

import pytest

from conftest import ROOT

# What each dependency of meson.build is called by Debian (-dev), Arch and Nix.
LIBRARIES = {
    "libudev": ("libudev", "systemd-libs", "systemd"),
    "libsystemd": ("libsystemd", "systemd-libs", "systemd"),
    "json-c": ("libjson-c", "json-c", "json_c"),
    "libpcre2-8": ("libpcre2", "pcre2", "pcre2"),
    "mount": ("libmount", "util-linux-libs", "util-linux"),
    "libkmod": ("libkmod", "kmod", "kmod"),
    "libacl": ("libacl1", "acl", "acl"),
    "smartcols": ("libsmartcols", "util-linux-libs", "util-linux"),
}


def text(path):
    return (ROOT / path).read_text()


MESON = text("meson.build")
UNIT = text("data/vhotplug.service.in")
DROP_INS = {path.stem: path.read_text() for path in (ROOT / "data/vhotplug.service.d").glob("*.conf")}
PROFILE = re.sub(r"#(?!include).*", "", text("packaging/apparmor/usr.sbin.vhotplug"))
MODULE = text("packaging/nix/module.nix")


def test_all_have_the_version_of_the_program():
    version = re.search(r"version: '([^']+)'", MESON)[1]
    assert re.match(r"vhotplug \((\S+)\) ", text("debian/changelog"))[1] == version
    assert re.search(r"^pkgver=(.*)$", text("packaging/arch/PKGBUILD"), re.M)[1] == version
    assert re.search(r'^ +version = "(.*)";$', text("packaging/nix/package.nix"), re.M)[1] == version


def test_all_name_the_libraries_of_the_build():
    used = set(re.findall(r"^\w+ = dependency\('([\w.-]+)'", MESON, re.M))
    assert used == set(LIBRARIES)
    debian = set(re.findall(r"^ +(lib[\w-]+)-dev\b[^<\n]*$", text("debian/control"), re.M))
    arch = set(re.findall(r"'([^']+)'", re.search(r"^depends=\((.*)\)$", text("packaging/arch/PKGBUILD"), re.M)[1]))
    nix = set(re.search(r" buildInputs = \[([^]]*)\]", text("packaging/nix/package.nix"))[1].split())
    assert debian == {names[0] for names in LIBRARIES.values()}
    assert arch == {names[1] for names in LIBRARIES.values()} | {"glibc"}
    assert nix == {names[2] for names in LIBRARIES.values()}


def test_the_unit_waits_for_the_configuration_that_it_reads():
    assert re.search(r"^ConditionPathExists=(\S+)$", UNIT, re.M)[1] == re.search(r"^ExecStart=.* -c (\S+)$", UNIT, re.M)[1]


def test_shell_of_the_packagings_is_clean():
    files = [ROOT / name for name in ("packaging/check", "packaging/arch/PKGBUILD", "debian/vhotplug.postrm")]
    run = subprocess.run(["shellcheck", *files], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def values(setting):
    """Words of a setting of the unit, and of the files that some configurations need."""
    return {word for part in (UNIT, *DROP_INS.values()) for line in re.findall(rf"^{setting}=(.*)$", part, re.M) for word in line.split()}


def test_the_profile_has_the_capabilities_of_the_unit():
    assert {f"CAP_{name.upper()}" for name in re.findall(r"^ +capability (\w+),", PROFILE, re.M)} == values("CapabilityBoundingSet")


def test_the_profile_has_the_address_families_of_the_unit():
    assert {f"AF_{name.upper()}" for name in re.findall(r"^ +network (\w+) ", PROFILE, re.M)} == values("RestrictAddressFamilies")


# The nodes behind the names of the unit.
NODES = {"char-usb_device": "/dev/bus/usb/", "char-vfio": "/dev/vfio/", "char-vfio-dev": "/dev/vfio/", "/dev/iommu": "/dev/iommu",
         "block-*": "/dev/{sd,"}


def test_the_profile_has_the_devices_of_the_unit():
    for line in re.findall(r"^DeviceAllow=(.*)$", UNIT, re.M):
        device, rights = line.split()
        assert re.search(rf"^ +{re.escape(NODES[device])}\S* {rights},$", PROFILE, re.M), line


def test_the_profile_lets_no_program_start_and_nothing_be_mounted():
    rules = re.findall(r"^ +(?:owner )?[/@][^ ]* (\w+),$", PROFILE, re.M)
    assert len(rules) > 30 and set("".join(rules)) == set("rwk")
    assert not re.search(r"^ *(mount|umount|pivot_root|change_profile|dbus)\b|unconfined|flags", PROFILE, re.M)


@pytest.mark.parametrize("file", ["authorized", "authorized_default", "interface_authorized_default", "driver_override",
                                  "drivers_probe", "bind", "unbind"])
def test_the_profile_lets_sysfs_be_written_by_the_names_that_the_program_has(file):
    assert re.search(rf"^ +@{{sys}}/\S*[/{{,]{file}(?:[,}}]\S*)? w,$", PROFILE, re.M)
    assert any(re.search(rf'[/"]{file}"', path.read_text()) for path in (ROOT / "src/host").glob("*.c"))


@pytest.mark.parametrize("option", ["enable", "package", "attachConnected", "debug", "config"])
def test_the_module_has_the_options_of_the_python_one(option):
    assert re.search(rf"^    {option} = lib\.mk(Enable)?Option", MODULE, re.M)


def test_the_module_opens_the_sandbox_for_each_need():
    assert set(re.findall(r"^      ([\w-]+) = cfg\.sandbox\.\w+;$", MODULE, re.M)) == set(DROP_INS)


def test_the_debian_package_is_built(tmp_path):
    if not shutil.which("dh"):
        pytest.skip("there is no debhelper here; ./dev setup installs it")
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           capture_output=True, text=True, timeout=60, check=True).stdout.split("\0")
    source = tmp_path / "source"
    for name in files:
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    run = subprocess.run(["env", "DEB_BUILD_OPTIONS=nocheck noopt noautodbgsym", "DEB_BUILD_PROFILES=nocheck",
                          "dpkg-buildpackage", "--build=binary", "--unsigned-changes", "--unsigned-source"],
                         cwd=source, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    packages = list(tmp_path.glob("*.deb"))
    assert len(packages) == 1
    listed = subprocess.run(["dpkg-deb", "--contents", packages[0]], capture_output=True, text=True, timeout=60, check=True).stdout
    names = set(re.findall(r"\s\./(\S+)", listed))
    assert {"usr/sbin/vhotplug", "usr/bin/vhotplugctl", "usr/bin/vhotplugcli", "lib/systemd/system/vhotplug.service",
            "usr/share/man/man1/vhotplugcli.1.gz", "usr/share/zsh/vendor-completions/_vhotplugctl",
            "usr/share/doc/vhotplug/README.md", "usr/share/doc/vhotplug/changelog.gz"} <= names
    assert not [name for name in names if name.startswith(("etc", "var", "run", "usr/local")) or re.search(r"\.[aoh]$", name)]
    depends = subprocess.run(["dpkg-deb", "--field", packages[0], "Depends"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert not re.search(r"(?:^|, )(?!lib)", depends), depends
