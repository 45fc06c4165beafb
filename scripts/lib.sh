# shellcheck shell=bash
# What the scripts of this folder share. Sourced, after `set -euo pipefail`; wants $project, the root of the tree.

: "${project:?}"
umask 022  # a plugin that a group can write is refused

# As root, a server loads plugins only from where nobody but root can put one. In a clone that is somebody else's (or
# below a folder of somebody else's) root therefore builds in a place of its own.
default_build_root() {
    local at=$project
    [ "$(id -u)" = 0 ] || { printf '%s' "$project/build"; return; }
    while [ "$(stat -c %u "$at")" = 0 ]; do
        [ "$at" != / ] || { printf '%s' "$project/build"; return; }
        at=$(dirname "$at")
    done
    printf '%s' "/var/cache/mergen-build$(printf '%s' "$project" | tr -c 'A-Za-z0-9' -)"
}
build_root=${MERGEN_BUILD_ROOT:-$(default_build_root)}

say() { printf '%s\n' "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

need_linux() {
    [ "$(uname -s)" = Linux ] ||
        die "Mergen runs on Linux only (it is made of KVM, network namespaces, nftables and pidfd); this is $(uname -s)."
}

# Milliseconds on a clock that only goes forward.
now_ms() {
    local up
    read -r up _ </proc/uptime
    up=${up/./}
    printf '%s' "${up}0"
}

seconds_since() {  # MILLISECONDS
    local took=$(($(now_ms) - $1))
    printf '%d.%01d s' $((took / 1000)) $((took % 1000 / 100))
}

# The names in scripts/packages that one of the given words wants.
packages_for() {  # WORD...
    awk -v words="$*" '
        BEGIN { n = split(words, w, " "); for (i = 1; i <= n; i++) wanted[w[i]] = 1 }
        !/^#/ && NF { m = split($2, by, ","); for (i = 1; i <= m; i++) if (by[i] in wanted) { print $1; next } }
    ' "$project/scripts/packages"
}

# Installs what is missing of that, as root; says what is missing, as an ordinary user.
install_packages() {  # WORD...
    command -v dpkg-query >/dev/null || {
        say "no dpkg here: taking for granted that the packages of scripts/packages are there by other names"
        return
    }
    local missing=() name
    for name in $(packages_for "$@"); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "these packages are missing: ${missing[*]}
  As root: apt-get install --no-install-recommends ${missing[*]}"
    say "installing ${missing[*]}"
    local log=$build_root/apt.log
    mkdir -p "$build_root"
    export DEBIAN_FRONTEND=noninteractive
    local install=(apt-get install -y -q --no-install-recommends "${missing[@]}")
    # Package lists may be missing or older than what the mirror still has: only then are they fetched.
    "${install[@]}" >"$log" 2>&1 || { apt-get update -q >>"$log" 2>&1 && "${install[@]}" >>"$log" 2>&1; } || {
        tail -n 20 "$log" >&2
        die "apt-get could not install them; see $log"
    }
}

# Configures FOLDER once more (cheap when nothing changed) and builds TARGETs in it; quiet unless it fails.
build_tree() {  # FOLDER [-DOPTION...] -- TARGET...
    local folder=$1 options=() began
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    [ -z "$(command -v ccache)" ] || options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache)
    mkdir -p "$folder"
    began=$(now_ms)
    local log=$folder/build.log
    if ! { cmake -S "$project" -B "$folder" -G Ninja "${options[@]}" && ninja -C "$folder" "$@"; } >"$log" 2>&1; then
        grep -m1 -A60 -E '^FAILED|CMake Error' "$log" >&2 || tail -n 60 "$log" >&2
        die "the build failed; see $log"
    fi
    say "built ${folder#"$project"/}  $(seconds_since "$began")"
}
