op_dhcp_leases() {
  # Besides the leases what a DHCP client or NetworkManager makes a machine recognisable by.
  remove '/var/lib/dhcp/*.lease*' '/var/lib/dhclient/*.lease*' '/var/lib/dhcpcd/*.lease*' '/var/lib/dhcpcd5/*' \
    '/var/lib/dhcpcd/duid' '/etc/dhcpcd.duid' '/var/lib/NetworkManager/*.lease' '/var/lib/NetworkManager/secret_key' \
    '/var/lib/NetworkManager/timestamps' '/var/lib/NetworkManager/seen-bssids' '/var/lib/wicked/*.xml' \
    '/etc/udev/rules.d/70-persistent-net.rules'
  if [ "$removed" = 0 ]; then skip "no lease is kept"; fi
  echo "$removed files"
}
