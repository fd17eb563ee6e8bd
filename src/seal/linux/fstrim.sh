op_fstrim() {
  sync
  if [ -n "$ROOT" ]; then skip "not in a test's folder"; fi
  command -v fstrim >/dev/null || skip "fstrim is not installed"
  # Disks without discard are fine: they only stay larger.
  fstrim -a >/dev/null 2>&1 || skip "no disk takes it"
}
