#!/usr/bin/env bash
# Puts llama.cpp's llama-server and the gguf Python module into a cache folder, without installing anything.
#
# Debian 12 does not package llama.cpp, Debian unstable does. Its packages are downloaded with an apt
# configuration of their own (the archive is the machine's own Debian source), unpacked, and started through
# their own ld-linux, so that neither the C library nor the package database of the machine is touched.
#
# Leaves in ${HENG_CACHE:-<repository>/.cache}/llama:
#   llama-server   a script that starts the engine with the fastest backend this processor can run
#   python         a folder for PYTHONPATH with the module gguf
# Prints that folder. Cached: some milliseconds. Fails with one line that says what is wrong.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$(realpath -m "${HENG_CACHE:-$repository/.cache}")
home=$cache/llama
cpu=$(grep -m1 -E '^(flags|Features)' /proc/cpuinfo | cksum)

fail() {
  echo "fetch_llama: $1" >&2
  [ $# -lt 2 ] || sed 's/^/  | /' "$2" | tail -n 15 >&2
  exit 1
}

# A cache that was carried to another processor or folder is of use, its starting script is not.
if [ -x "$home/llama-server" ] && [ "$(cat "$home/made_for" 2>/dev/null)" = "$home $cpu" ]; then
  echo "$home"
  exit 0
fi

mkdir -p "$home"
exec 9>"$home/lock"
flock 9
log=$home/fetch.log

# The machine's own Debian archive, as apt itself understands its sources (deb822 or one-line).
archive_entry() {  # -> "URI<tab>file with the entry"
  apt-get "$@" indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)|$(SOURCESENTRY)' 'Created-By: Packages' \
    'Component: main' 2>>"$log" |
    awk -F'|' '$1 == "Debian" && $2 == "Debian" {sub(/:[0-9]+$/, "", $4); print $3 "\t" $4; exit}'
}

write_apt_configuration() {
  local entry uri file options=
  mkdir -p "$home"/apt/{lists/partial,archives/partial}
  : >"$home/apt/status"  # nothing is installed, so every dependency is downloaded
  cat >"$home/apt/apt.conf" <<CONF
Dir::State "$home/apt";
Dir::State::status "$home/apt/status";
Dir::State::lists "$home/apt/lists";
Dir::Cache "$home/apt";
Dir::Cache::archives "$home/apt/archives";
APT::Sandbox::User "$(id -un)";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
CONF
  entry=$(archive_entry)
  if [ -z "$entry" ]; then  # package lists were never fetched here: fetch them aside
    apt-get -c "$home/apt/apt.conf" -q update >>"$log" 2>&1 ||
      fail "apt cannot read the machine's sources:" "$log"
    entry=$(archive_entry -c "$home/apt/apt.conf")
    rm -rf "$home"/apt/lists/*
    mkdir -p "$home/apt/lists/partial"
  fi
  [ -n "$entry" ] || fail "apt knows no Debian archive on this machine (see apt-get indextargets)"
  uri=${entry%%$'\t'*} file=${entry##*$'\t'}
  if grep -qiE '^[^#]*trusted[=:] *yes' "$file" 2>/dev/null; then
    options='[trusted=yes] '
  elif [ -r /usr/share/keyrings/debian-archive-keyring.gpg ]; then
    options='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] '
  fi
  echo "deb ${options}${uri} unstable main" >"$home/apt/sources.list"
  cat >>"$home/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$home/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
CONF
}

download() {
  local apt=(apt-get -c "$home/apt/apt.conf" -q -y) package=
  "${apt[@]}" update >>"$log" 2>&1 || fail "cannot read Debian unstable's package lists:" "$log"
  for name in llama.cpp-tools llama.cpp; do  # the server moved between these packages
    if "${apt[@]}" --print-uris install "$name" >>"$log" 2>&1; then package=$name && break; fi
  done
  [ -n "$package" ] || fail "Debian unstable has no installable llama.cpp-tools or llama.cpp just now:" "$log"
  # With an empty status file this is the whole closure: the C library and whatever the libraries are called
  # today.
  "${apt[@]}" --download-only install "$package" >>"$log" 2>&1 || fail "cannot download $package:" "$log"
  (cd "$home/apt/archives" && "${apt[@]}" download python3-gguf) >>"$log" 2>&1 ||
    fail "cannot download python3-gguf:" "$log"
}

unpack() {
  local deb
  rm -rf "$home/root.new" "$home/root"
  mkdir "$home/root.new"
  for deb in "$home"/apt/archives/*.deb; do
    dpkg -x "$deb" "$home/root.new" 2>>"$log" || fail "cannot unpack $(basename "$deb"):" "$log"
  done
  mv "$home/root.new" "$home/root"
}

# First match of a path below the unpacked root; the folder names carry architecture and so-versions.
find_one() { find "$home/root" "$@" -print 2>/dev/null | sort | head -n 1; }

# The engine opens its model only when a backend accepted the processor, so a missing model tells the two
# apart.
backend_works() {
  GGML_BACKEND_PATH=$1 timeout 20 "${engine[@]}" -m /nonexistent >"$home/probe.log" 2>&1 || true
  grep -q 'failed to open' "$home/probe.log"
}

choose_backend() {  # -> path; most capable first, names not listed here last
  local name path
  local names=(sapphirerapids zen4 cooperlake icelake cannonlake cascadelake skylakex alderlake haswell
    piledriver ivybridge sandybridge sse42 x64
    armv9.2_2 armv9.2_1 armv8.6_2 armv8.6_1 armv8.2_3 armv8.2_2 armv8.2_1 armv8.0_1)
  for path in "${names[@]/#/libggml-cpu-}" 'libggml-cpu*'; do
    while read -r name; do
      if backend_works "$name"; then echo "$name" && return; fi
    done < <(find "$home/root" -name "$path.so" 2>/dev/null | sort)
  done
}

if [ ! -d "$home/root" ]; then
  : >"$log"
  command -v apt-get >/dev/null || fail "needs apt-get (a Debian machine)"
  write_apt_configuration
  download
  unpack
  rm -rf "$home/apt"
fi

binary=$(find_one -path '*/bin/llama-server' ! -type d)
loader=$(find_one -name 'ld-linux*.so.*' -type f)
[ -n "$binary" ] || fail "the packages hold no bin/llama-server (see $home/root)"
[ -n "$loader" ] || fail "the packages hold no ld-linux (see $home/root)"
libraries=$(find "$home/root/usr/lib" -name '*.so*' ! -path '*/gconv/*' ! -path '*/backends*/*' \
  -printf '%h\n' | sort -u | paste -sd:)
engine=("$loader" --library-path "$libraries" "$binary")
"${engine[@]}" --version >"$home/probe.log" 2>&1 ||
  fail "the unpacked llama-server does not start:" "$home/probe.log"
backend=$(choose_backend)
[ -n "$backend" ] || fail "no CPU backend of ggml runs on this processor:" "$home/probe.log"
gguf=$(find_one -path '*/gguf/__init__.py')
[ -n "$gguf" ] || fail "python3-gguf holds no module gguf (see $home/root)"
ln -sfn "$(dirname "$(dirname "$gguf")")" "$home/python"

cat >"$home/llama-server.new" <<START
#!/bin/sh
GGML_BACKEND_PATH='$backend' exec '$loader' --library-path '$libraries' '$binary' "\$@"
START
chmod +x "$home/llama-server.new"
mv "$home/llama-server.new" "$home/llama-server"
echo "$home $cpu" >"$home/made_for"
echo "$home"
