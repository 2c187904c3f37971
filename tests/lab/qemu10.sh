#!/bin/sh
# qemu10.sh FOLDER: puts QEMU 10 of bookworm-backports into FOLDER, beside the installed one.
# The program to start is then FOLDER/qemu, by root; QEMU_USER=NUMBER lets it run as that user.
set -e
[ -n "$1" ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
[ -x "$1/qemu" ] && exit 0
mkdir -p "$(dirname "$1")"
folder=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
key=/usr/share/keyrings/debian-archive-keyring.gpg
# The mirror that this machine's own packages come from.
# shellcheck disable=SC2016 # apt's own $()
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)}
[ -n "$mirror" ] || { echo "apt names no mirror of Debian" >&2; exit 1; }
echo "deb [signed-by=$key] $mirror bookworm-backports main" > "$work/sources.list"

backports() {
    apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$work/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists="$work/lists" \
        -o Dir::Cache="$work/cache" -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::http::Timeout=60 "$@" >&2
}

backports update
cd "$work"
backports download qemu-system-x86/bookworm-backports qemu-system-common/bookworm-backports \
    qemu-system-data/bookworm-backports seabios/bookworm-backports
for package in *.deb; do dpkg -x "$package" root; done
cat > root/qemu <<EOF
#!/bin/sh
# Its modules and firmware are laid over the installed ones, for this process alone.
folder=$folder
EOF
cat >> root/qemu <<'EOF'
export folder
exec unshare -m sh -c '
for part in usr/lib/x86_64-linux-gnu/qemu usr/share/qemu usr/share/seabios; do
    if [ -d "$folder/$part" ] && [ -d "/$part" ]; then mount --bind "$folder/$part" "/$part"; fi
done
[ -z "$QEMU_USER" ] || set -- setpriv --reuid="$QEMU_USER" --regid="$QEMU_USER" --clear-groups "$@"
exec "$@"' sh "$folder/usr/bin/qemu-system-x86_64" "$@"
EOF
chmod 755 root root/qemu
rm -rf "$folder"
mv root "$folder"
