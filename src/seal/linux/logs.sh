op_logs() {
  if [ ! -d "$ROOT/var/log" ]; then skip "there is no /var/log"; fi
  if [ -z "$ROOT" ] && command -v journalctl >/dev/null; then
    journalctl --quiet --rotate >/dev/null 2>&1 || true
    journalctl --quiet --vacuum-time=1s >/dev/null 2>&1 || true
  fi
  # Installers keep their answers there, with hashes of passwords; old journals bear the old machine-id.
  remove '/var/log/installer' '/var/log/anaconda' '/var/log/journal/*' '/var/log/cloud-init*.log' \
    /root/anaconda-ks.cfg /root/original-ks.cfg '/var/crash/*' '/var/lib/systemd/coredump/*'
  # Rotated files go, the others are emptied: their owner and mode are what their writers expect.
  find "$ROOT/var/log" -type f \( -name '*.gz' -o -name '*.xz' -o -name '*.bz2' -o -name '*.zst' -o -name '*.old' \
    -o -name '*.[0-9]' -o -name '*-20[0-9][0-9][0-9][0-9][0-9][0-9]' \) -exec rm -f {} +
  find "$ROOT/var/log" -type f -size +0c -exec sh -c 'for file; do : >"$file"; done' sh {} +
}
