# shellcheck shell=bash
# What build-kernel and build-rootfs share: taking files out of Debian packages without installing them.
#
# Needs apt, dpkg, tar (a bare Debian 12 has them). Works as root and as an ordinary user.

export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C
umask 022

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() { say "$*" >&2; exit 1; }

# An apt that keeps its package lists in FOLDER, so that an ordinary user can update them and root's stay as they were.
privateApt() {  # FOLDER COMMAND...
    local lists=$1 tool=$2
    shift 2
    mkdir -p "$lists/state/lists/partial" "$lists/cache/archives/partial"
    "$tool" -o "Dir::State=$lists/state" -o "Dir::State::lists=$lists/state/lists" \
        -o Dir::State::status=/var/lib/dpkg/status -o "Dir::Cache=$lists/cache" \
        -o APT::Sandbox::User= -o Debug::NoLocking=1 "$@"
}

# The package that linux-image-cloud-amd64 stands for today, by an apt command line ("apt-cache" and its options).
cloudKernelPackage() {
    "$@" depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p'
}

# Downloads the newest PACKAGE ("cloud-kernel" for the newest kernel) into FOLDER and prints the file's name. apt checks
# its hash against the signed lists. The host's lists are tried first; they may be missing (a fresh container) or name
# a version that the mirror has dropped, and are then fetched anew into FOLDER.
downloadPackage() {  # FOLDER PACKAGE
    local folder=$1 wanted=$2 package
    package=$wanted
    [ "$wanted" != cloud-kernel ] || package=$(cloudKernelPackage apt-cache)
    if [ -z "$package" ] || ! (cd "$folder" &&
        apt-get -qq -o APT::Sandbox::User= -o Debug::NoLocking=1 download "$package" >/dev/null 2>&1); then
        say "fetching package lists" >&2
        # A source that fails, or a hook of the host's that may not do its work as this user, need not matter: the
        # download shows it.
        privateApt "$folder/apt" apt-get -qq update >&2 || :
        [ "$wanted" != cloud-kernel ] || package=$(cloudKernelPackage privateApt "$folder/apt" apt-cache)
        [ -n "$package" ] || die "apt knows no linux-image-cloud-amd64: is bookworm among its sources?"
        (cd "$folder" && privateApt "$folder/apt" apt-get -qq download "$package" >&2) ||
            die "cannot download $package"
    fi
    local file
    file=$(find "$folder" -maxdepth 1 -name "${package}_*.deb" -print -quit)
    [ -n "$file" ] || die "apt-get download $package left no file"
    printf '%s\n' "$file"
}
