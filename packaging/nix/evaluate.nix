# What the module makes of some options, with a stand-in for the little of nixpkgs that it uses: packaging/check runs it.
let
  lib = {
    mkOption = option: option;
    mkEnableOption = description: { inherit description; default = false; };
    mkIf = condition: content: if condition then content else { };
    literalExpression = text: text;
    literalMD = text: text;
    optional = condition: item: if condition then [ item ] else [ ];
    concatStringsSep = builtins.concatStringsSep;
    attrNames = builtins.attrNames;
    mapAttrs = builtins.mapAttrs;
    filterAttrs = wanted: set: builtins.removeAttrs set (builtins.filter (name: !wanted name set.${name}) (builtins.attrNames set));
    types = { package = "package"; bool = "bool"; };
  };
  pkgs = {
    formats.json = { }: { type = "json"; generate = name: value: "/store/${name}:${builtins.toJSON value}"; };
    runCommand = name: arguments: script: "/store/${name}:${script}";
    callPackage = path: arguments: "/store/vhotplug";
  };
  # Defaults, where nothing was set, as the module system gives them.
  withDefaults = options: set: builtins.mapAttrs (name: option:
    if option ? type || option ? default then set.${name} or option.default else withDefaults option (set.${name} or { })) options;
  evaluate = set:
    let
      module = import ./module.nix { inherit lib pkgs; config.services.vhotplug = cfg; };
      cfg = withDefaults module.options.services.vhotplug set;
    in
    module.config;
  plain = evaluate { enable = true; };
  full = evaluate {
    enable = true;
    attachConnected = true;
    debug = true;
    config.general.api = { transports = [ "unix" "vsock" ]; unixSocketUser = "microvm"; };
    config.acpiPassthrough = [ { targetVm = "vm1"; } ];
  };
  start = result: builtins.elemAt result.systemd.services.vhotplug.serviceConfig.ExecStart 1;
  opens = result: names: builtins.match ".*for name in ${names}; do.*" (builtins.elemAt result.systemd.packages 1) != null;
in
assert evaluate { } == { };
assert start plain == "/store/vhotplug/bin/vhotplug --config /etc/vhotplug.conf";
assert start full == "/store/vhotplug/bin/vhotplug --config /etc/vhotplug.conf --attach-connected --debug";
assert opens plain "" && opens full "acpi-tables socket-owner vsock";
assert builtins.match ".*vhotplugctl check .*microvm.*" full.environment.etc."vhotplug.conf".source != null;
true
