op_cloud_init() {
  # Without --machine-id: it would write "uninitialized" into /etc/machine-id (see there).
  program=$(tool cloud-init) || skip "it is not installed"
  # --seed is as old as cloud-init 0.7; --logs as well.
  "$program" clean --logs --seed || fail "cloud-init clean ended with status $?"
}
