op_ssh_host_keys() {
  remove '/etc/ssh/ssh_host_*' '/etc/dropbear/dropbear_*_host_key'
  if [ "$removed" = 0 ]; then skip "the guest has none"; fi
  # Who makes new ones: cloud-init, the units of Fedora and its relatives, Alpine's sshd, dropbear itself.
  if tool cloud-init >/dev/null || [ -e "$ROOT/usr/lib/systemd/system/sshd-keygen@.service" ] \
    || [ -e "$ROOT/lib/systemd/system/sshd-keygen.service" ] || [ -e "$ROOT/sbin/openrc" ] \
    || tool dropbear >/dev/null; then
    return 0
  fi
  echo "nothing known in the guest makes new ones at its next boot: its SSH server may not start"
}
