# The package for Nix: pkgs.callPackage ./package.nix { }.
{
  lib,
  stdenv,
  meson,
  ninja,
  pkg-config,
  acl,
  cmocka,
  json_c,
  kmod,
  pcre2,
  systemd,
  util-linux,
}:

stdenv.mkDerivation {
  pname = "vhotplug";
  version = "0.1.0";
  src = lib.cleanSource ../..;

  nativeBuildInputs = [
    meson
    ninja
    pkg-config
  ];
  # systemd has libudev and libsystemd, util-linux has libmount and libsmartcols.
  buildInputs = [
    acl
    json_c
    kmod
    pcre2
    systemd
    util-linux
  ];
  checkInputs = [ cmocka ];

  doCheck = true;
  mesonFlags = [
    (lib.mesonBool "tests" true)
    (lib.mesonOption "unitdir" "${placeholder "out"}/lib/systemd/system")
    "--sysconfdir=/etc"
  ];
  mesonCheckFlags = [ "--suite=unit" ];

  meta = {
    description = "Keeps USB devices, input devices and PCI functions of the host in their virtual machines";
    license = lib.licenses.asl20;
    platforms = lib.platforms.linux;
    mainProgram = "vhotplug";
  };
}
