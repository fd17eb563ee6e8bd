# Prints where local file systems are mounted.
leak_places() {
  if [ -n "$ROOT" ]; then printf '%s\n' "$ROOT"; return 0; fi
  while read -r _ place type _; do
    case $type in
      ext2|ext3|ext4|xfs|btrfs|f2fs|jfs|zfs|vfat|overlay) printf '%s\n' "$place" ;;
    esac
  done </proc/mounts | sort -u
}

# Prints the names of files that hold something of the build. What was written before the build began can't; where
# `find` knows no times all files are looked at. This script's own folder holds what is looked for.
leak_files() {
  window=
  if find / -maxdepth 0 -cmin -1 >/dev/null 2>&1; then window="-cmin -$LEAK_MINUTES"; fi
  leak_places | while read -r place; do
    # shellcheck disable=SC2086 # two words, or none
    find "$place" -xdev -type f -size +0 $window ! -path "${0%/*}/*" \
      -exec env LC_ALL=C grep -lF @PATTERNS@ {} + 2>/dev/null || true
  done
}

op_leak_gate() {
  found=$(
    leak_files | sort -u | head -n 20 | while read -r file; do
      printf '%s holds %s; ' "${file#"$ROOT"}" "$(leak_kind "$file")"
    done
    if [ "$LEAK_HOST_KEYS" = yes ]; then
      for file in "$ROOT"/etc/ssh/ssh_host_*_key "$ROOT"/etc/dropbear/*_host_key; do
        if [ -e "$file" ]; then printf '%s is a host key; ' "${file#"$ROOT"}"; fi
      done
    fi
    if [ "$LEAK_INSTANCE" = yes ] && tool cloud-init >/dev/null; then
      for file in "$ROOT"/var/lib/cloud/instances/* "$ROOT"/var/lib/cloud/seed/*/*; do
        if [ -e "$file" ]; then printf '%s is of this instance; ' "${file#"$ROOT"}"; fi
      done
    fi
  )
  if [ -n "$found" ]; then fail "${found%; }"; fi
}
