op_fstrim() {
  sync
  if [ -n "$ROOT" ]; then skip "not in a test's folder"; fi
  command -v fstrim >/dev/null || skip "fstrim is not installed"
  # Disks without discard are fine: they only stay larger.
  if ! fstrim -a >/dev/null 2>&1; then
    # Busybox's knows no -a.
    trimmed=
    while read -r device at _; do
      case $device in
        /dev/*) if fstrim "$at" >/dev/null 2>&1; then trimmed=1; fi ;;
      esac
    done </proc/mounts
    [ -n "$trimmed" ] || skip "no disk takes it"
  fi
}
