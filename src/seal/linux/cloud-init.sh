op_cloud_init() {
  # Without --machine-id: it would write "uninitialized" into /etc/machine-id (see there).
  program=$(tool cloud-init) || skip "it is not installed"
  # Logins open before it is done, and what of it still runs would write the traces of this instance anew.
  if limited=$(tool timeout); then "$limited" 300 "$program" status --wait >/dev/null 2>&1 || :; fi
  # --seed is as old as cloud-init 0.7; --logs as well.
  "$program" clean --logs --seed || fail "cloud-init clean ended with status $?"
}
