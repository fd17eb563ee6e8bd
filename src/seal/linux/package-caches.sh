op_package_caches() {
  # The files are removed by name: package managers want locks, and some of them the network. The lists of packages
  # stay: without them a clone could install nothing before asking for them again.
  remove /var/cache/apt/archives/*.deb '/var/cache/apt/archives/partial/*' '/var/cache/apt/*.bin' \
    '/var/cache/dnf/*' '/var/cache/libdnf5/*' '/var/cache/yum/*' '/var/cache/zypp/packages/*' \
    '/var/cache/apk/*' '/var/cache/pacman/pkg/*' '/var/cache/PackageKit/*'
  if [ "$removed" = 0 ]; then skip "no package is cached"; fi
  echo "$removed files and folders"
}
