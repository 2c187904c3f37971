# NixOS module: services.vhotplug. The options of the Python vhotplug's module are all here and mean the same.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.vhotplug;
  format = pkgs.formats.json { };
  written = format.generate "vhotplug.conf" cfg.config;
  # Mistakes show when the system is built, not when the service starts.
  checked = pkgs.runCommand "vhotplug.conf" { } ''
    ${cfg.package}/bin/vhotplugctl check ${written}
    cp ${written} $out
  '';
  # The files for what only some configurations need stand beside the package's documents.
  opened = lib.attrNames (
    lib.filterAttrs (_: wanted: wanted) {
      tcp = cfg.sandbox.tcp;
      vsock = cfg.sandbox.vsock;
      socket-owner = cfg.sandbox.socketOwner;
      acpi-tables = cfg.sandbox.acpiTables;
    }
  );
  dropIns = pkgs.runCommand "vhotplug-sandbox" { } ''
    mkdir -p $out/lib/systemd/system/vhotplug.service.d
    for name in ${toString opened}; do
      cp ${cfg.package}/share/doc/vhotplug/vhotplug.service.d/$name.conf $out/lib/systemd/system/vhotplug.service.d/
    done
  '';
in
{
  options.services.vhotplug = {
    enable = lib.mkEnableOption "vhotplug, which keeps devices of the host in their virtual machines";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package of vhotplug.";
    };

    attachConnected = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Attach also the devices that are connected already when the service starts.";
    };

    debug = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Log more.";
    };

    config = lib.mkOption {
      type = format.type;
      default = { };
      description = "The configuration, as vhotplug.conf(5) describes it. It is checked when the system is built.";
      example = lib.literalExpression ''
        {
          usbPassthrough = [
            {
              targetVm = "vm1";
              allow = [ { interfaceClass = 3; interfaceProtocol = 2; } ];
            }
          ];
          vms = [ { name = "vm1"; type = "qemu"; socket = "/run/vm1.qmp"; } ];
        }
      '';
    };

    sandbox =
      lib.mapAttrs
        (
          _: what:
          lib.mkOption {
            type = lib.types.bool;
            default = what.default;
            defaultText = lib.literalMD what.when;
            description = "Open the service's sandbox for ${what.for}.";
          }
        )
        {
          tcp = {
            for = "an API over TCP";
            when = "whether `general.api.transports` has it";
            default = builtins.elem "tcp" (cfg.config.general.api.transports or [ ]);
          };
          vsock = {
            for = "an API over vsock";
            when = "whether `general.api.transports` has it";
            default = builtins.elem "vsock" (cfg.config.general.api.transports or [ ]);
          };
          socketOwner = {
            for = "an API socket of another user or group";
            when = "whether `general.api` has `unixSocketUser` or `unixSocketGroup`";
            default = (cfg.config.general.api or { }) ? unixSocketUser || (cfg.config.general.api or { }) ? unixSocketGroup;
          };
          acpiTables = {
            for = "owners of ACPI tables";
            when = "whether there is an `acpiPassthrough`";
            default = (cfg.config.acpiPassthrough or [ ]) != [ ];
          };
        };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    environment.etc."vhotplug.conf".source = checked;

    # The unit, with its sandbox, is the package's; this changes what the options say.
    systemd.packages = [
      cfg.package
      dropIns
    ];
    systemd.services.vhotplug = {
      wantedBy = [ "multi-user.target" ];
      reloadTriggers = [ checked ];
      serviceConfig = {
        ExecStart = [
          ""
          (lib.concatStringsSep " " (
            [
              "${cfg.package}/bin/vhotplug"
              "--config /etc/vhotplug.conf"
            ]
            ++ lib.optional cfg.attachConnected "--attach-connected"
            ++ lib.optional cfg.debug "--debug"
          ))
        ];
      };
    };
  };
}
