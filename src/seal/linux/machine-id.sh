op_machine_id() {
  # Emptied, neither removed nor "uninitialized": an empty file gets a new id at the next boot with every systemd, also
  # where the root is still read-only then; "uninitialized" would count as a first boot and reset all services to
  # their presets (machine-id(5)).
  if [ ! -e "$ROOT/etc/machine-id" ]; then skip "the guest has none"; fi
  : >"$ROOT/etc/machine-id"
  if [ -e "$ROOT/var/lib/dbus/machine-id" ] && [ ! -L "$ROOT/var/lib/dbus/machine-id" ]; then
    rm -f "$ROOT/var/lib/dbus/machine-id"
    ln -s /etc/machine-id "$ROOT/var/lib/dbus/machine-id"
  fi
}
