# Prints the disks of this machine, and what is decrypted from them.
leak_disks() {
  if [ -n "$ROOT" ]; then printf '%s\n' "$ROOT.disk"; return 0; fi
  for disk in /sys/block/*; do
    name=${disk##*/}
    case $name in
      sr*|loop*|ram*|zram*|fd*|md*) continue ;;
      dm-*) case $(cat "$disk/dm/uuid" 2>/dev/null) in CRYPT-*) ;; *) continue ;; esac ;;
    esac
    if [ "$(cat "$disk/size")" -gt 0 ] && [ "$(cat "$disk/ro")" = 0 ] && [ -b "/dev/$name" ]; then
      printf '%s\n' "/dev/$name"
    fi
  done
}

# Runs a program of the guest (or of the folder that stands for it).
leak_run() {
  program=$(tool "$1") || program=$1
  shift
  "$program" "$@"
}

# leak_search DISK: writes what stands on a disk of what is looked for to a file. The zeros between the letters of UTF-16 go,
# and with them those of what was never written.
leak_search() {
  {
    LC_ALL=C tr -d '\000\377' <"$1" || echo cut >"$LEAK_DIR/cut"
  } | LC_ALL=C grep -oaF -f "$LEAK_DIR/blocks" | sort -u >"$LEAK_DIR/there"
  [ ! -e "$LEAK_DIR/cut" ] || fail "$1 can't be read to its end"
}

# Says in $held what the disks hold of the build; empty when nothing. They must hold the canary.
leak_search_disks() {
  seen= held=
  leak_run sync
  # What was read of a disk before is not what is on it now.
  if [ -z "$ROOT" ]; then echo 3 >/proc/sys/vm/drop_caches; fi
  leak_disks >"$LEAK_DIR/disks"
  while IFS= read -r disk; do
    leak_search "$disk"
    if grep -qxF -e "$LEAK_CANARY" "$LEAK_DIR/there"; then seen=yes; fi
    if grep -vxF -e "$LEAK_CANARY" "$LEAK_DIR/there" >"$LEAK_DIR/held"; then
      held="$held$disk holds $(leak_kind "$LEAK_DIR/held"); "
    fi
  done <"$LEAK_DIR/disks"
  if [ -n "$seen" ]; then return 0; fi
  if grep -q ' zfs ' /proc/mounts; then skip "what is in files of ZFS can't be found on its disks"; fi
  fail "the search of the disks ($(tr '\n' ' ' <"$LEAK_DIR/disks")) does not find what is there"
}

# Prints the names of files that hold something of the build in UTF-16.
leak_wide_files() {
  window=$(leak_window)
  leak_places | while IFS= read -r place; do
    # shellcheck disable=SC2086 # two words, or none
    find "$place" -xdev -type f -size +0 $window ! -path "$LEAK_DIR/*" 2>/dev/null
  done | while IFS= read -r file; do
    if LC_ALL=C tr -d '\000' <"$file" 2>/dev/null | LC_ALL=C grep -qaF -f "$LEAK_DIR/lasting"; then
      printf '%s ' "${file#"$ROOT"}"
    fi
  done
}

# Writes zeros wherever nothing is. ext4 keeps some blocks even from root; and where no large piece fits any more small ones
# do, once the others are on the disk.
leak_overwrite() {
  for kept in /sys/fs/ext4/*/reserved_clusters; do
    if [ -z "$ROOT" ] && [ -w "$kept" ]; then echo 0 >"$kept"; fi
  done
  leak_places | while IFS= read -r place; do
    zeros=${place%/}/.forge-zeros-$$
    for size in 1048576 1024; do
      leak_run dd if=/dev/zero of="$zeros-$size" bs="$size" 2>/dev/null || :
      leak_run sync
    done
    rm -f "$zeros"-*
  done
}

op_free_space() {
  [ "$LEAK_GATE" = yes ] || skip "the leak gate is switched off"
  [ -e "$LEAK_DIR/lasting" ] || skip "the guest was given no secret that outlasts the build"
  { cat "$LEAK_DIR/lasting"; printf '%s\n' "$LEAK_CANARY"; } >"$LEAK_DIR/blocks"
  trap leak_remove_canaries EXIT
  leak_canaries >"$LEAK_DIR/canaries"
  leak_search_disks
  if [ -z "$held" ]; then return 0; fi
  wide=$(leak_wide_files)
  if [ -n "$wide" ]; then fail "a secret of the build is in $wide"; fi
  leak_overwrite
  leak_search_disks
  if [ -n "$held" ]; then
    fail "outside of all files, and where zeros in free space do not reach it (swap? a journal?): ${held%; }"
  fi
  echo "overwritten: there was something of the build in it"
}
