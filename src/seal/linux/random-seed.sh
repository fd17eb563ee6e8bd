op_random_seed() {
  # The services save a new seed when they stop, which is at the shutdown after sealing: all clones would get the same.
  # So they are stopped first.
  if [ -z "$ROOT" ]; then
    if command -v systemctl >/dev/null; then
      systemctl stop systemd-random-seed.service >/dev/null 2>&1 || true
    fi
    if command -v rc-service >/dev/null; then
      for service in urandom seedrng; do rc-service -i "$service" stop >/dev/null 2>&1 || true; done
    fi
  fi
  remove /var/lib/systemd/random-seed /var/lib/urandom/random-seed /var/lib/random-seed '/var/lib/seedrng/*' \
    /var/lib/misc/random-seed /boot/loader/random-seed /boot/efi/loader/random-seed /efi/loader/random-seed
  if [ "$removed" = 0 ]; then skip "no seed is kept"; fi
}
