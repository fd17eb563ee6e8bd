# Prints where local file systems are mounted.
leak_places() {
  if [ -n "$ROOT" ]; then printf '%s\n' "$ROOT"; return 0; fi
  while read -r _ place type _; do
    case $type in
      ext2|ext3|ext4|xfs|btrfs|f2fs|jfs|zfs|vfat|overlay) ;;
      *) continue ;;
    esac
    case $place in
      # A space stands there as \040, as it does in formats of printf.
      *\\*) printf "$(printf %s "$place" | sed 's/%/%%/g')\n" ;;
      *) printf '%s\n' "$place" ;;
    esac
  done </proc/mounts | sort -u
}

# Puts a file with a text that is looked for too on each file system that can be written to, and prints their names: a
# search that does not find them finds nothing.
leak_canaries() {
  leak_places | while IFS= read -r place; do
    canary=${place%/}/.forge-canary-$$
    if printf '\n%s\n' "$LEAK_CANARY" 2>/dev/null >"$canary"; then printf '%s\n' "$canary"; fi
  done
}

leak_remove_canaries() {
  while IFS= read -r canary; do rm -f "$canary"; done <"$LEAK_DIR/canaries"
}

# Prints how `find` is told to pass over what was not written since the build began; nothing where it knows no times, or
# where the guest's clock is another one than that of the machine that forge runs on.
leak_window() {
  off=$(($(date +%s) - LEAK_NOW))
  if [ "$off" -gt -3600 ] && [ "$off" -lt 3600 ] && find / -maxdepth 0 -cmin -1 >/dev/null 2>&1; then
    printf '%s\n' "-cmin -$LEAK_MINUTES"
  fi
}

# leak_files LIST: prints the names of files that hold something of that list, the canaries among them. This script's own
# folder holds what is looked for. Files that go while it runs are no errors.
leak_files() {
  window=$(leak_window)
  leak_places | while IFS= read -r place; do
    # shellcheck disable=SC2086 # two words, or none
    find "$place" -xdev -type f -size +0 $window ! -path "$LEAK_DIR/*" \
      -exec env LC_ALL=C grep -lF -f "$LEAK_DIR/$1" {} + 2>>"$LEAK_DIR/errors" || true
  done
}

# Prints which files hold a secret that outlasts the build, but for what goes with the build's user.
leak_ahead_files() {
  home=
  if [ "$CREATED" = yes ]; then home=$(account 6); fi
  case $home in /?*) ;; *) home=/nonexistent ;; esac
  leak_files lasting | sort -u | while IFS= read -r file; do
    name=${file#"$ROOT"}
    case $name in
      "$home"/*|/etc/shadow*|/etc/gshadow*|"/var/mail/$USER_NAME"|"/var/spool/mail/$USER_NAME"|/var/spool/cron/*) ;;
      *) printf '%s holds %s;\n' "$name" "$(leak_kind "$file")" ;;
    esac
  done | head -n 20 | tr '\n' ' '
}

# Before the first operation after which nobody can log in: whoever has to remove what a provisioner left needs to get in.
leak_ahead() {
  if [ -n "${DRY:-}" ] || [ ! -e "$LEAK_DIR/lasting" ]; then return 0; fi
  ahead=$(leak_ahead_files)
  ahead=${ahead% }
  if [ -n "$ahead" ]; then failed="$failed leak-gate"; mark op leak-gate failed "${ahead%;}"; fi
}

op_leak_gate() {
  leak_canaries >"$LEAK_DIR/canaries"
  leak_files leaks | sort -u >"$LEAK_DIR/found"
  leak_remove_canaries
  [ -s "$LEAK_DIR/canaries" ] || fail "no file system can be written to, so that nothing proves the search"
  while IFS= read -r canary; do
    if ! grep -qxF -e "$canary" "$LEAK_DIR/found"; then
      fail "the search does not find what is there: ${canary%/*}/ ($(tail -n 1 "$LEAK_DIR/errors"))"
    fi
  done <"$LEAK_DIR/canaries"
  if grep -F 'Input/output error' "$LEAK_DIR/errors"; then fail "not every file can be read"; fi
  found=$(
    grep -vxF -f "$LEAK_DIR/canaries" "$LEAK_DIR/found" | head -n 20 | while IFS= read -r file; do
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
